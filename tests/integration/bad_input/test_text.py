"""Text, numbers and depths that JSON allows and that no answer could hold."""

import gzip
import json
from typing import Any

import pytest

from sidecar.http.responses import json_response
from tests.integration.bad_input.server import AGENT, Server, speak

HALVES = [rb"\ud83d", rb"\uDC00", b"\xed\xa0\x80"]
CUSTOM = (
    b'{"name": "n", "model": "openai/gpt-4o", "tools": [{"type": "custom", "name": "t", '
    b'"description": "d", "input_schema": {"type": "object", "x": %s}}]}'
)
AGENT_WITH = b'{"name": "n", "model": "openai/gpt-4o", "metadata": {%s}}'


async def lists_are_fine(server: Server) -> None:
    for path in ("/v1/agents", "/v1/environments", "/v1/sessions"):
        await server.raw.call("GET", path)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/agents", b'{"name": "%s", "model": "openai/gpt-4o"}'),
        ("/v1/agents", AGENT_WITH % b'"%s": "v"'),
        ("/v1/agents", CUSTOM % b'{"y": ["%s"]}'),
        ("/v1/agents", CUSTOM % b'{"%s": 1}'),
        ("/v1/agents", b'{"name": "n", "model": "openai/gpt-4o", "%s": 1}'),
        ("/v1/environments", b'{"name": "e", "metadata": {"%s": "v"}}'),
        ("/v1/sessions", b'{"agent": "x", "environment_id": "y", "metadata": {"%s": "v"}}'),
    ],
)
async def test_half_a_surrogate_pair(
    server: Server, path: str, template: bytes, half: bytes
) -> None:
    """However it is written and wherever it stands, it is a 400, and lists stay readable."""
    body = template % half
    says = "UTF-8" if half[0] > 127 else ""
    await server.refused("POST", path, 400, "invalid_request_error", says, data=body)
    await lists_are_fine(server)


async def test_a_field_with_half_a_pair_is_named(server: Server, session: str) -> None:
    """Also on the update of a session, whose metadata no other check reads as text."""
    body = rb'{"metadata": {"\ud800": "v"}}'
    path = f"/v1/sessions/{session}"
    await server.refused("POST", path, 400, "invalid_request_error", "metadata: ", data=body)
    await server.raw.call("GET", path)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/agents", {"name": "a\0", "model": "openai/gpt-4o", "metadata": {"k\0": "\0v"}}),
        ("/v1/environments", {"name": "\0", "metadata": {"k\0": "v"}, "description": "d\0"}),
        ("/v1/vaults", {"display_name": "v\0", "metadata": {"k\0": "v"}}),
    ],
)
async def test_nul_is_replaced(server: Server, path: str, body: dict[str, Any]) -> None:
    """LAP stores what it is answered in PostgreSQL, which has no NUL: neither texts nor names keep one."""
    made = await server.raw.call("POST", path, body)
    listed = await server.raw.call("GET", path)
    for answer in (made, listed):
        assert "\\u0000" not in json.dumps(answer)
        assert "\ufffd" in json.dumps(answer, ensure_ascii=False)


async def test_nul_in_a_secret_is_refused(server: Server, agent: str, place: str) -> None:
    """A secret is never changed, so here it is a 400."""
    vault = await server.raw.call("POST", "/v1/vaults", {"display_name": "v"})
    token = {"type": "static_bearer", "mcp_server_url": "https://mcp.test/", "token": "t\0"}
    path = f"/v1/vaults/{vault['id']}/credentials"
    await server.refused("POST", path, 400, "invalid_request_error", "token", json={"auth": token})
    clone = {"type": "github_repository", "url": "https://git.test/a/b"}
    body = {
        "agent": agent,
        "environment_id": place,
        "resources": [{**clone, "authorization_token": "t\0"}],
    }
    await server.refused(
        "POST", "/v1/sessions", 400, "invalid_request_error", "authorization_token", json=body
    )


async def test_utf_16_is_not_read(server: Server) -> None:
    """JSON on the wire is UTF-8."""
    body = json.dumps({"name": "n", "model": "openai/gpt-4o"}).encode("utf-16")
    await server.refused("POST", "/v1/agents", 400, "invalid_request_error", "UTF-8", data=body)


@pytest.mark.parametrize("number", [b"1e999", b"-1e400", b"Infinity"])
async def test_numbers_that_are_not_finite(server: Server, number: bytes) -> None:
    """They would come back as `Infinity`, which no client can read."""
    await server.refused("POST", "/v1/agents", 400, "invalid_request_error", data=CUSTOM % number)


@pytest.mark.parametrize("depth", [130, 900, 960, 990, 5000])
async def test_values_nested_too_deeply(server: Server, depth: int) -> None:
    """Beyond the bound is a 400 that names it."""
    deep = b"[" * depth + b"]" * depth
    await server.refused(
        "POST", "/v1/agents", 400, "invalid_request_error", "128", data=CUSTOM % deep
    )


async def test_the_deepest_that_is_taken_can_be_listed(server: Server) -> None:
    """What is stored is answered."""
    deep = b"[" * 120 + b"]" * 120
    async with server.http.post("/v1/agents", data=CUSTOM % deep) as response:
        assert response.status == 200, await response.text()
    await lists_are_fine(server)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_that_is_not_in_its_coding(server: Server, coding: str) -> None:
    """The fault is the client's."""
    headers = {"content-encoding": coding, "content-type": "application/json"}
    options: dict[str, Any] = {"headers": headers, "data": b"plainly not compressed" * 20}
    await server.refused(
        "POST", "/v1/agents", 400, "invalid_request_error", "Content-Encoding", **options
    )


async def test_a_compressed_body_is_read(server: Server) -> None:
    """The same header with a body that keeps its word."""
    body = gzip.compress(b'{"name": "zipped"}')
    headers = {"content-encoding": "gzip"}
    async with server.http.post("/v1/environments", data=body, headers=headers) as response:
        assert (await response.json())["name"] == "zipped"


@pytest.mark.parametrize("version", [2**63, 2**64, -1, 0])
async def test_versions_beyond_an_integer_of_the_store(
    server: Server, agent: str, place: str, version: int
) -> None:
    """A version out of range is a 400 wherever it is sent."""
    reference = {"id": agent, "version": version}
    for kind in ("agent", "agent_with_overrides"):
        body = {"agent": {"type": kind, **reference}, "environment_id": place}
        await server.refused(
            "POST", "/v1/sessions", 400, "invalid_request_error", "version", json=body
        )
    body = {"version": version, "name": "other"}
    await server.refused(
        "POST", f"/v1/agents/{agent}", 400, "invalid_request_error", "version", json=body
    )


@pytest.mark.parametrize("path", ["/v1/agents", "/v1/sessions", "/v1/sessions/{id}/events"])
async def test_times_at_the_ends_of_the_calendar(server: Server, session: str, path: str) -> None:
    """They are times like others: before everything, or after it."""
    target = path.format(id=session)
    for early in ("0001-01-01T00:00:00%2B23:59", "0999-12-31T00:00:00Z"):
        status, _, body = await speak(server, "GET", f"{target}?created_at[lt]={early}")
        assert (status, body["data"]) == (200, [])
    late = "9999-12-31T23:59:59-23:59"
    after = await server.raw.call("GET", f"{target}?created_at[gte]={late}")
    before = await server.raw.call("GET", f"{target}?created_at[lt]={late}")
    everything = await server.raw.call("GET", target)
    assert after["data"] == []
    assert [item["id"] for item in before["data"]] == [item["id"] for item in everything["data"]]


async def test_times_before_the_year_1000_come_first(server: Server) -> None:
    """Years are compared as numbers, not as the text that they happen to be written as."""
    agent = (await server.raw.call("POST", "/v1/agents", AGENT))["id"]
    page = await server.raw.call("GET", "/v1/agents?created_at[gte]=0999-01-01T00:00:00Z")
    assert agent in [item["id"] for item in page["data"]]


def test_what_an_older_version_stored_does_not_spoil_an_answer() -> None:
    """Half a pair that is in the store already is shown as U+FFFD, as everywhere."""
    assert json_response({"data": ["\ud83d", "é"]}).body == '{"data":["\ufffd","é"]}'.encode()
