"""Methods that a path does not have, on each path of the document."""

from __future__ import annotations

import json
import re

from tests.integration.bad_input.server import Server

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")


async def test_a_method_that_a_path_does_not_have(
    server: Server, agent: str, session: str, place: str
) -> None:
    """405 in the envelope, with those that it has in `allow`; nothing is changed."""
    async with server.http.get("/openapi.json") as response:
        paths = (await response.json())["paths"]
    before = server.counts()
    ids = {"agents": agent, "sessions": session, "environments": place}
    for template, operations in paths.items():
        kind = template.removeprefix("/v1/").partition("/")[0]
        path = re.sub(r"\{\w+\}", ids.get(kind, "x"), template)
        offered = {method.upper() for method in operations}
        async with server.http.options(path) as response:
            await response.read()
        assert response.status == 405, path
        allowed = set(response.headers["allow"].split(", "))
        assert allowed - {"HEAD"} == offered, path
        assert not ("HEAD" in allowed and "GET" not in allowed), path
        for method in METHODS:
            if method in allowed:
                continue
            async with server.http.request(method, path, json={}) as response:
                body = await response.read()
            assert response.status == 405, (method, path, body)
            assert set(response.headers["allow"].split(", ")) == allowed
            if method != "HEAD":
                assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert server.counts() == before
