"""The OpenAPI document, held against the routes; what answers are like is checked in all tests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.demo_gateway import DemoGateway
from tests.fakes.small_sidecar import fake_child
from tests.harness import GATEWAY_KEY, http_client, make_settings, sidecar_for
from tests.openapi_check import check_answer, document

WITHOUT_DOCUMENT = (
    *(
        r"/",
        r"/\{path:\.\*\}",
        r"/v1/v1/.*",
        r"//\{path.*",
        r"/v1/[a-z/]+\{rest.*",
    ),  # refusals; what is opencode's own
    r"/console.*",  # pages for people
)
"""Routes that the document does not have."""


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> list[web.RouteDef]:
    """Collect all routes of the public listener."""
    collected: list[web.RouteDef] = []
    add_routes = web.UrlDispatcher.add_routes

    def collect(self: web.UrlDispatcher, added: Any) -> Any:
        added = list(added)
        collected.extend(added)
        return add_routes(self, added)

    monkeypatch.setattr(web.UrlDispatcher, "add_routes", collect)
    return collected


@pytest.fixture
async def url(routes: list[web.RouteDef], tmp_path: Path) -> AsyncIterator[str]:
    """A sidecar whose child never becomes ready: nothing here needs one."""
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    routes.clear()  # of the gateway
    settings = make_settings(
        tmp_path / "data",
        demo.url,
        child={"binary": fake_child(tmp_path, "child_never_ready.py"), "drain_seconds": 0.1},
        admin={"is_enabled": False},
    )
    async with sidecar_for(settings, is_ready=False) as sidecar:
        yield sidecar.url
    await demo.close()


async def test_the_document_has_every_route_and_no_other(
    url: str, routes: list[web.RouteDef]
) -> None:
    """Both ways, and as it is served; HEAD goes without saying."""
    async with http_client(url, key=None) as http, http.get("/openapi.json") as response:
        served = await response.json()

    declared = {
        (method.upper(), path) for path, methods in served["paths"].items() for method in methods
    }
    routed = {
        (route.method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path))
        for route in routes
        if not any(re.fullmatch(pattern, route.path) for pattern in WITHOUT_DOCUMENT)
    }
    assert declared == routed
    assert served["openapi"] == "3.1.0"


async def test_the_document_is_served_conditionally_and_without_a_key(url: str) -> None:
    """A second reader that has it already is answered 304."""
    async with http_client(url, key=None) as http:
        async with http.get("/openapi.json") as response:
            assert response.status == 200
            tag = response.headers["etag"]
        async with http.get("/openapi.json", headers={"if-none-match": tag}) as response:
            assert response.status == 304


def test_operations_have_one_id_each_and_text() -> None:
    """What generated clients call their methods, and what people read."""
    operations = [each for methods in document()["paths"].values() for each in methods.values()]

    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids) > 40
    assert all(operation["summary"] for operation in operations)
    assert {tag for operation in operations for tag in operation["tags"]} == {
        tag["name"] for tag in document()["tags"]
    }


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b'{"id": "x", "type": "vault_deleted", "more": 1}', "more"),
        (200, b'{"id": 3, "type": "vault_deleted"}', "string"),
        (418, b"{}", "418"),
        (404, b'{"error": "no"}', "required"),
    ],
)
def test_the_check_of_answers_finds_what_is_wrong(status: int, body: bytes, says: str) -> None:
    """A field too many, a wrong type, an undocumented status, an answer outside of the envelope."""
    headers = {"content-type": "application/json; charset=utf-8", "request-id": "req_x"}
    path = "/v1/vaults/vlt_01ARZ3NDEKTSV4RRFFQ69G5FAV"

    with pytest.raises(AssertionError, match=says):
        check_answer("DELETE", path, status, headers, body)
    check_answer("DELETE", path, 200, headers, b'{"id": "x", "type": "vault_deleted"}')


@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"]
)
async def test_calls_of_models_are_answered_with_where_they_are_served(url: str, path: str) -> None:
    """The sidecar serves no models: the error names the gateway, and the recipe for one URL."""
    async with http_client(url) as http, http.post(path, json={"model": "m"}) as response:
        answer = await response.json()

    assert response.status == 404
    assert answer["error"]["type"] == "not_found_error"
    assert "LiteLLM in front" in answer["error"]["message"]
