"""Keys, sizes and probes."""

import json

import aiohttp
import pytest

from tests.harness import RUNTIME_KEY
from tests.integration.bad_input.server import (
    AGENT,
    CREATORS,
    Server,
    check_envelope,
    speak,
)


async def test_a_body_above_the_limit(server: Server, session: str) -> None:
    """40 MB are refused with 413 on every write, and the connection's server lives on."""
    big = b'{"name": "' + b"x" * 40_000_000 + b'"}'
    for path in (*CREATORS, f"/v1/sessions/{session}/events"):
        before = server.counts()
        async with (
            aiohttp.ClientSession(server.url, headers={"x-api-key": RUNTIME_KEY}) as http,
            http.post(path, data=big) as response,
        ):
            check_envelope(response, await response.json(), 413, "request_too_large")
        assert server.counts() == before
    await server.raw.call("GET", "/v1/agents")


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "x-api-key"),
        ({"x-api-key": "wrong"}, "RUNTIME_API_KEY"),
        ({"x-api-key": ""}, "x-api-key"),
        ({"x-api-key": RUNTIME_KEY + " more"}, "invalid"),
        ({"Authorization": "Bearer wrong"}, "invalid"),
        ({"Authorization": RUNTIME_KEY}, "x-api-key"),
        ({"Authorization": f"Basic {RUNTIME_KEY}"}, "x-api-key"),
        ({"api-key": RUNTIME_KEY}, "x-api-key"),
        ({"Cookie": f"x-api-key={RUNTIME_KEY}"}, "x-api-key"),
    ],
)
async def test_a_missing_or_wrong_key(server: Server, headers: dict[str, str], says: str) -> None:
    """Without our key in one of the two headers nothing is served, and the key is never repeated."""
    before = server.counts()
    async with aiohttp.ClientSession(server.url, headers=headers) as http:
        for method, path in (
            ("GET", "/v1/models"),
            ("POST", "/v1/agents"),
            ("GET", "/v1/nothing"),
            ("GET", "/config"),
            ("GET", f"/v1/models?key={RUNTIME_KEY}"),
        ):
            async with http.request(method, path, json=AGENT if method == "POST" else None) as r:
                body = await r.json()
                check_envelope(r, body, 401, "authentication_error")
                assert says in body["error"]["message"]
                assert RUNTIME_KEY not in json.dumps(body)
    assert server.counts() == before


async def test_a_key_that_is_no_text(server: Server) -> None:
    """Bytes that are no UTF-8 are just a wrong key."""
    status, _, body = await speak(server, "GET", "/v1/models", key=b"\xff\xfe\x80")
    assert (status, body["error"]["type"]) == (401, "authentication_error")


async def test_probes_need_no_key(server: Server) -> None:
    """Health is answered without a key; ready is 503 while the child is not."""
    async with aiohttp.ClientSession(server.url) as http:
        for path, status in {
            "/health": 200,
            "/livez": 200,
            "/startupz": 200,
            "/readyz": 503,
        }.items():
            async with http.get(path) as response:
                assert response.status == status
