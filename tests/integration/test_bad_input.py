"""Wrong requests over real sockets: the status, the envelope, a message that helps, and nothing written.

No opencode is needed for any of it: the sidecar's child is a program that never becomes ready.
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from sidecar.app import Sidecar
from sidecar.gateway.demo import DemoGateway
from sidecar.ids import new_id
from tests.harness import (
    GATEWAY_KEY,
    RUNTIME_KEY,
    http_client,
    make_settings,
    sidecar_for,
    user_message,
)
from tests.raw_client import RawClient

TABLES = ("agents", "agent_versions", "environments", "sessions", "events", "queued_events")
NEVER_READY = Path(__file__).parents[1] / "fakes" / "child_never_ready.py"
AGENT = {"name": "a", "model": "openai/gpt-4o"}


class Server:
    """The sidecar under test and what its database holds."""

    def __init__(self, sidecar: Sidecar, database: Path, http: aiohttp.ClientSession) -> None:
        self.url = sidecar.url
        self.http = http
        self.raw = RawClient(http)
        self._database = database

    def counts(self) -> dict[str, int]:
        """Return the number of rows per table, as another process would see them."""
        with closing(sqlite3.connect(self._database)) as connection:
            return {
                table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in TABLES
            }

    async def refused(
        self, method: str, path: str, status: int, type_: str, *says: str, **options: Any
    ) -> dict[str, Any]:
        """Send; check status, envelope, request id, words of the message, and that no row came or went."""
        before = self.counts()
        async with self.http.request(method, path, **options) as response:
            body = await response.json()
            check_envelope(response, body, status, type_)
        for word in says:
            assert word in body["error"]["message"]
        assert self.counts() == before
        return {"headers": response.headers, **body}


def check_envelope(response: Any, body: Any, status: int, type_: str) -> None:
    assert response.status == status, body
    assert response.headers["content-type"].startswith("application/json")
    assert body.keys() == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["error"]["type"] == type_
    assert body["error"]["message"]
    assert body["request_id"] == response.headers["request-id"]
    assert body["request_id"].startswith("req_")


@pytest.fixture(scope="module")
async def gateway() -> AsyncIterator[DemoGateway]:
    demo = DemoGateway(key=GATEWAY_KEY)
    await demo.start()
    yield demo
    await demo.close()


@pytest.fixture(scope="module")
async def server(
    gateway: DemoGateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    root = tmp_path_factory.mktemp("bad_input")
    child = root / "opencode"
    child.write_text(f'#!/bin/sh\nexec {sys.executable} {NEVER_READY} "$@"\n')
    child.chmod(0o755)
    settings = make_settings(
        root / "data", gateway.url, child={"binary": child, "drain_seconds": 0.1}
    )
    async with sidecar_for(settings, is_ready=False) as sidecar:
        await sidecar.catalogue.refresh()
        async with http_client(sidecar.url) as http:
            yield Server(sidecar, settings.storage.database_file, http)


@pytest.fixture(scope="module")
async def agent(server: Server) -> str:
    return str((await server.raw.call("POST", "/v1/agents", AGENT))["id"])


@pytest.fixture(scope="module")
async def place(server: Server) -> str:
    return str((await server.raw.call("POST", "/v1/environments", {"name": "e"}))["id"])


@pytest.fixture(scope="module")
async def session(server: Server, agent: str, place: str) -> str:
    body = {"agent": agent, "environment_id": place}
    return str((await server.raw.call("POST", "/v1/sessions", body))["id"])


CREATORS = ["/v1/agents", "/v1/environments", "/v1/sessions"]


@pytest.mark.parametrize("path", CREATORS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"name=x", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[1]", "an array"),
        (b'"text"', "a string"),
        (b"null", "null"),
        (b'{"name": NaN}', "not JSON"),
        (b"[" * 100_000, "JSON"),
        (b'{"a":' * 100_000, "JSON"),
    ],
    ids=["empty", "cut", "form", "utf-16", "array", "string", "null", "nan", "deep", "deeper"],
)
async def test_a_body_that_is_no_json_object(
    server: Server, path: str, body: bytes, says: str
) -> None:
    """Anything but a JSON object is a 400 that says what came."""
    await server.refused("POST", path, 400, "invalid_request_error", says, data=body)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": None}, "name"),
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"model": 7}, "model"),
        ({"model": ""}, "model"),
        ({"model": {}}, "model"),
        ({"model": {"id": ["a"]}}, "model"),
        ({"model": {"id": "openai/gpt-4o", "effort": "extreme"}}, "effort"),
        ({"system": {}}, "system"),
        ({"system": "x" * 100_001}, "system"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "browser"}]}, "agent_toolset_20260401"),
        ({"tools": [{"type": "agent_toolset_20260401", "configs": [{"name": "rm"}]}]}, "rm"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "gone"}]}, "gone"),
        ({"tools": [{"type": "custom", "name": "a b"}]}, "name"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "ftp://x"}]}, "url"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "http://x"}]}, "mcp_toolset"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": {"k": None}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "16"),
        ({"metadata": {"k" * 65: "v"}}, "64"),
        ({"metadata": {"k": "v" * 513}}, "512"),
        ({"multiagent": {"type": "coordinator"}}, "multiagent"),
        ({"execution_identity": {"type": "user"}}, "execution_identity"),
    ],
)
async def test_agents_with_wrong_fields(server: Server, change: Any, says: str) -> None:
    """A field of the wrong type or out of bounds is a 400 that names it."""
    await server.refused(
        "POST", "/v1/agents", 400, "invalid_request_error", says, json=AGENT | change
    )


@pytest.mark.parametrize("missing", ["name", "model"])
async def test_an_agent_without_a_required_field(server: Server, missing: str) -> None:
    """A missing field is a 400 that names it."""
    body = {key: value for key, value in AGENT.items() if key != missing}
    await server.refused("POST", "/v1/agents", 400, "invalid_request_error", missing, json=body)


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("openai/gpt-4oo", "openai/gpt-4o"),
        ("litellm/claude-sonnet-4.5", "claude-sonnet-4-5"),
        ("gpt-4o", "openai/gpt-4o"),
    ],
)
async def test_an_unknown_model_is_answered_with_near_matches(
    server: Server, typed: str, near: str
) -> None:
    """A name nobody offers is a 400 that names the field and what may have been meant."""
    body = AGENT | {"model": typed}
    await server.refused(
        "POST", "/v1/agents", 400, "invalid_request_error", "model", typed, near, json=body
    )


async def test_a_text_that_is_no_unicode_is_refused_before_it_is_stored(server: Server) -> None:
    """Half of a surrogate pair cannot be answered as UTF-8, so it must not get in."""
    custom = '{"type": "custom", "name": "t", "description": "d", "input_schema": %s}'
    schema = '{"type": "object", "x": "\\udfff"}'
    for body in (
        '{"name": "\\ud800", "model": "openai/gpt-4o"}',
        '{"name": "a", "model": "openai/gpt-4o", "tools": [%s]}' % (custom % schema),
    ):
        await server.refused("POST", "/v1/agents", 400, "invalid_request_error", data=body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": "e", "config": {"type": "moon"}}, "config"),
        ({"name": "e", "config": {"type": "cloud", "networking": {"type": "open"}}}, "networking"),
        ({"name": "e", "config": {"type": "cloud", "packages": {"pip": "x"}}}, "packages"),
        ({"config": {"type": "cloud"}}, "name"),
    ],
)
async def test_environments_with_wrong_fields(server: Server, body: Any, says: str) -> None:
    """A wrong environment is a 400 that names the field."""
    await server.refused("POST", "/v1/environments", 400, "invalid_request_error", says, json=body)


async def test_sessions_with_wrong_fields(server: Server, agent: str, place: str) -> None:
    """A session that cannot be made is refused with the field's name; unknown ids are 404."""
    good = {"agent": agent, "environment_id": place}
    bad = [
        ({"environment_id": place}, "agent"),
        ({"agent": agent}, "environment_id"),
        (good | {"agent": 7}, "agent"),
        (good | {"agent": {"type": "agent"}}, "id"),
        (good | {"agent": "nonsense"}, "agent"),
        (good | {"environment_id": "../x"}, "environment_id"),
        (good | {"initial_events": [{"type": "user.interrupt"}]}, "initial_events"),
        (good | {"initial_events": [user_message("x")] * 51}, "initial_events"),
        (good | {"budget": {"type": "limit"}}, "budget"),
        (good | {"title": ["x"]}, "title"),
        (
            good | {"agent": {"type": "agent_with_overrides", "id": agent, "model": None}},
            "model",
        ),
        (
            good | {"agent": {"type": "agent_with_overrides", "id": agent, "model": "gpt-5o"}},
            "model",
        ),
    ]
    for body, says in bad:
        await server.refused("POST", "/v1/sessions", 400, "invalid_request_error", says, json=body)
    for body in (
        good | {"agent": new_id("agent")},
        good | {"environment_id": new_id("env")},
        good | {"agent": {"type": "agent", "id": agent, "version": 9}},
    ):
        await server.refused("POST", "/v1/sessions", 404, "not_found_error", json=body)


UNKNOWN = {
    "agents": new_id("agent"),
    "environments": new_id("env"),
    "sessions": new_id("sesn"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize(
    "id_of",
    [
        lambda known: known,
        lambda known: known.lower(),
        lambda known: f"{known}%00",
        lambda known: f"..%2f{known}",
        lambda known: "..%2F..%2Fetc%2Fpasswd",
        lambda known: "%2e%2e",
        lambda known: "%00",
        lambda known: "x" * 4000,
        lambda known: "%F0%9F%A6%84",
        lambda known: "%27%20OR%201%3D1%20--",
        lambda known: "%FF%FE",
    ],
    ids=[
        "unknown",
        "case",
        "nul",
        "up",
        "passwd",
        "dots",
        "only-nul",
        "long",
        "emoji",
        "sql",
        "raw",
    ],
)
async def test_ids_that_name_nothing(server: Server, kind: str, id_of: Any) -> None:
    """An unknown or malformed id is a 404 that repeats a short form of it, on reads and writes alike."""
    path = f"/v1/{kind}/{id_of(UNKNOWN[kind])}"
    for method in ("GET", "POST"):
        status, headers, body = await speak(server, method, path, b"{}")
        assert status == 404, (method, body)
        assert body["error"]["type"] == "not_found_error"
        assert len(body["error"]["message"]) < 300
        assert headers["request-id"] == body["request_id"]


@pytest.mark.parametrize(
    "tail", ["/events", "/events/stream", "/threads", "/threads/sthr_x/events"]
)
async def test_reading_below_a_missing_session(server: Server, tail: str) -> None:
    """Lists and streams of a session that does not exist are a JSON 404, not an open stream."""
    for session_id in (UNKNOWN["sessions"], "..", "%00"):
        status, _, body = await speak(server, "GET", f"/v1/sessions/{session_id}{tail}")
        assert (status, body["error"]["type"]) == (404, "not_found_error")


async def speak(
    server: Server, method: str, path: str, body: bytes = b"", key: bytes = RUNTIME_KEY.encode()
) -> tuple[int, dict[str, str], Any]:
    """Send bytes exactly as given, without a client library that tidies paths up."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".encode()
            + b"x-api-key: "
            + key
            + b"\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        raw = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers, json.loads(rest)


@pytest.mark.parametrize(
    "path",
    ["/v1/deployments", "/v1/messages", "/v1/nothing", "/v1/sessions/x/work", "/", "/v1/../etc"],
)
async def test_routes_that_are_not_there(server: Server, path: str) -> None:
    """What is not offered answers 404 in the envelope, never a page of HTML."""
    status, headers, body = await speak(server, "GET", path)
    assert status == 404
    assert headers["content-type"].startswith("application/json")
    assert body["error"]["type"] == "not_found_error"


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


NUMBERS = ["0", "-1", "--5", "1.5", "abc", "", "9" * 5000, "1e3", "+3", " 7"]


@pytest.mark.parametrize("limit", NUMBERS)
@pytest.mark.parametrize(
    "path",
    ["/v1/agents", "/v1/environments", "/v1/sessions", "/v1/models", "/v1/sessions/{id}/events"],
)
async def test_limits_out_of_range(server: Server, session: str, path: str, limit: str) -> None:
    """A limit that is no number in range is a 400 that tells the range."""
    await server.refused(
        "GET",
        path.format(id=session),
        400,
        "invalid_request_error",
        "limit",
        "1",
        params={"limit": limit},
    )


@pytest.mark.parametrize(
    ("path", "query", "says"),
    [
        ("/v1/agents", "page=nonsense", "next_page"),
        ("/v1/agents", "page=%00", "next_page"),
        ("/v1/agents", "page=WzEsMl0", "next_page"),
        ("/v1/agents", "page=e30", "next_page"),
        ("/v1/agents", "include_archived=maybe", "true or false"),
        ("/v1/agents", "created_at[gte]=yesterday", "RFC 3339"),
        ("/v1/sessions", "order=sideways", "asc or desc"),
        ("/v1/sessions", "statuses[]=asleep", "idle"),
        ("/v1/sessions", "agent_version=1", "agent_id"),
        ("/v1/sessions", f"agent_id=x&agent_version={'9' * 30}", "agent_version"),
        ("/v1/sessions/{id}/events", "types[]=lap.text", "types"),
        ("/v1/sessions/{id}/events", "page=nonsense", "next_page"),
        ("/v1/sessions/{id}/events", "created_at[lt]=x", "RFC 3339"),
        ("/v1/sessions/{id}/events/stream", "event_deltas[]=user.message", "event_deltas"),
        ("/v1/agents/{agent}", "version=0", "version"),
        ("/v1/agents/{agent}", "version=x", "version"),
        ("/v1/agents/{agent}", f"version={'9' * 5000}", "version"),
        ("/v1/models", "after_id=gone", "after_id"),
        ("/v1/models", "before_id=gone", "before_id"),
        ("/v1/models", "after_id=openai/gpt-4o&before_id=openai/gpt-4o-mini", "before_id"),
        ("/v1/models", "lifecycle[]=asleep", "lifecycle"),
        ("/v1/models", "refresh=perhaps", "true or false"),
    ],
)
async def test_wrong_queries(
    server: Server, agent: str, session: str, path: str, query: str, says: str
) -> None:
    """Each wrong query parameter is a 400 that says what is right; so are both cursors at once."""
    from yarl import URL

    target = f"{path.format(id=session, agent=agent)}?{query}"
    url = URL(server.url + target, encoded="%" in query)
    await server.refused("GET", str(url.relative()), 400, "invalid_request_error", says)


async def test_a_cursor_of_the_other_order(
    server: Server, session: str, place: str, agent: str
) -> None:
    """A cursor is bound to the order it was made with."""
    await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    page = await server.raw.call("GET", "/v1/sessions?limit=1")
    await server.refused(
        "GET",
        f"/v1/sessions?limit=1&order=asc&page={page['next_page']}",
        400,
        "invalid_request_error",
        "order",
    )


@pytest.mark.parametrize(
    "events",
    [
        None,
        [],
        {},
        [{}],
        [{"type": "user.shout", "content": []}],
        [{"type": "agent.message", "content": [{"type": "text", "text": "x"}]}],
        [{"type": "user.message"}],
        [{"type": "user.message", "content": []}],
        [{"type": "user.message", "content": [{"type": "text"}]}],
        [{"type": "user.message", "content": [{"type": "redacted"}]}],
        [{"type": "user.message", "content": [{"type": "text", "text": 7}]}],
        [
            {
                "type": "user.message",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "!"},
                    }
                ],
            }
        ],
        [user_message("fine"), {"type": "user.message"}],
        [user_message("fine"), {"type": "user.tool_confirmation"}],
        [{"type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "allow"}],
        [{"type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "perhaps"}],
        [{"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_x", "content": []}],
        [{"type": "user.tool_result", "tool_use_id": "sevt_x", "content": []}],
        [{"type": "user.define_outcome", "description": "x"}],
        [{"type": "system.message", "content": [{"type": "text", "text": "x"}]}],
        [{"type": "user.interrupt", "session_thread_id": "sthr_other"}],
        [user_message("x")] * 1001,
    ],
)
async def test_events_that_are_wrong(server: Server, session: str, events: Any) -> None:
    """A batch with one wrong event is refused whole: nothing is stored, no turn starts."""
    path = f"/v1/sessions/{session}/events"
    await server.refused(
        "POST", path, 400, "invalid_request_error", "events", json={"events": events}
    )
    assert await server.raw.status(session) == "idle"


async def test_events_to_a_missing_session(server: Server) -> None:
    """Sending to a session that does not exist is a 404."""
    path = f"/v1/sessions/{UNKNOWN['sessions']}/events"
    body = {"events": [user_message("x")]}
    await server.refused("POST", path, 404, "not_found_error", UNKNOWN["sessions"], json=body)


async def test_events_while_the_child_is_away_are_kept(
    server: Server, agent: str, place: str
) -> None:
    """With opencode not ready the message is accepted and durable; an interrupt ends the wait."""
    made = await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    async with server.raw.stream(made["id"]) as reader:
        (accepted,) = await server.raw.send(made["id"], "wait for it")
        assert accepted["processed_at"] is not None
        assert await server.raw.status(made["id"]) == "running"
        assert accepted in await server.raw.events(made["id"])
        await server.raw.interrupt(made["id"])
        ending = await reader.until("session.status_idle", seconds=10)
    assert ending[-1]["stop_reason"] == {"type": "end_turn"}


async def test_conflicts_tell_the_sdk_not_to_retry(server: Server, agent: str, place: str) -> None:
    """A stale version and an ended session are 409 with `x-should-retry: false`."""
    answer = await server.refused(
        "POST", f"/v1/agents/{agent}", 409, "conflict_error", "version", json={"version": 9}
    )
    assert answer["headers"]["x-should-retry"] == "false"
    made = await server.raw.call("POST", "/v1/sessions", {"agent": agent, "environment_id": place})
    await server.raw.call("POST", f"/v1/sessions/{made['id']}/archive")
    body = {"events": [user_message("x")]}
    answer = await server.refused(
        "POST", f"/v1/sessions/{made['id']}/events", 409, "conflict_error", "ended", json=body
    )
    assert answer["headers"]["x-should-retry"] == "false"


async def test_an_update_cannot_clear_what_must_be_there(server: Server, agent: str) -> None:
    """Null for name or model is a 400, and the version stays."""
    for body in ({"name": None}, {"model": None}, {"version": 0}, {"version": "1"}):
        await server.refused("POST", f"/v1/agents/{agent}", 400, "invalid_request_error", json=body)
    assert (await server.raw.call("GET", f"/v1/agents/{agent}"))["version"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/agents"),
        ("DELETE", "/v1/agents/{agent}"),
        ("PATCH", "/v1/sessions/{id}"),
        ("POST", "/v1/models"),
    ],
)
async def test_methods_that_are_not_offered(
    server: Server, agent: str, session: str, method: str, path: str
) -> None:
    """A method we do not have is an envelope with 404 or 405."""
    before = server.counts()
    target = path.format(agent=agent, id=session)
    async with server.http.request(method, target, json={}) as response:
        body = await response.json()
        assert response.status in {404, 405}, body
        assert body["error"]["type"] == "not_found_error"
    assert server.counts() == before
