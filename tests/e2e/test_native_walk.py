"""Every route that opencode declares, tried on a managed session: none changes it, none shows a secret."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.app import RunningSidecar
from tests.fakes.mcp_process import mcp_server
from tests.harness import http_client, text_of
from tests.raw_client import RawClient
from tests.waiting import PATIENCE_SECONDS

TOKEN = "bearer-of-the-native-walk"
VALUE = "variable-of-the-native-walk"
TOOLSET = {"type": "agent_toolset_20260401"}
WRITES = ("post", "put", "patch", "delete")
REFUSALS = {403, 404, 405, 409}
STREAMS = ("/event", "/global/event", "/api/event")


@pytest.fixture
async def http(sidecar: RunningSidecar) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_client(sidecar.url) as session:
        yield session


@pytest.fixture
async def routes(sidecar: RunningSidecar) -> list[tuple[str, str]]:
    """(method, template) of all that opencode declares."""
    assert sidecar.supervisor.client is not None
    paths = (await sidecar.supervisor.client.doc())["paths"]
    found = [(method, path) for path, methods in paths.items() for method in methods]
    assert len(found) > 150
    return found


class Managed:
    """A managed session with secrets, as opencode has it."""

    def __init__(self, session_id: str, child_id: str, directory: Path) -> None:
        self.id = session_id
        self.child_id = child_id
        self.directory = directory

    def filled(self, template: str) -> str:
        """Return a route's path with this session's ids, and ids that fit for the others."""
        ids = {"sessionID": self.child_id, "messageID": "msg_1", "partID": "prt_1"}
        ids |= {"permissionID": "per_1", "requestID": "per_1", "name": "hub"}
        return re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "id_1"), template)

    def ways(self, template: str) -> Iterator[dict[str, Any]]:
        """Yield what names the session: its id in the path, or its directory in three spellings."""
        if "{sessionID}" in template:
            yield {}
        yield {"params": {"directory": str(self.directory)}}
        yield {"params": {"directory": f"{self.directory}/.."}}
        yield {"headers": {"x-opencode-directory": f"{self.directory}/../{self.id}/below"}}


@pytest.fixture
async def managed(raw: RawClient, sidecar: RunningSidecar) -> AsyncIterator[Managed]:
    """One turn lies behind it; it has an MCP server with a vault's bearer, and a vault's variable."""
    async with mcp_server(token=TOKEN) as server:
        vault = (await raw.call("POST", "/v1/vaults", {"display_name": "v"}))["id"]
        for auth in (
            {"type": "static_bearer", "mcp_server_url": server.url, "token": TOKEN},
            {"type": "environment_variable", "secret_name": "A_KEY", "secret_value": VALUE},
        ):
            await raw.call("POST", f"/v1/vaults/{vault}/credentials", {"auth": auth})
        session_id = await raw.new_session(
            vault_ids=[vault],
            tools=[TOOLSET, {"type": "mcp_toolset", "mcp_server_name": "hub"}],
            mcp_servers=[{"type": "url", "name": "hub", "url": server.url}],
        )
        assert text_of(await raw.turn(session_id, "[[say: hello]]")) == "hello"
        record = await sidecar.sessions.record(session_id)
        assert record.child_session_id is not None
        assert sidecar.supervisor.client is not None
        child = await sidecar.supervisor.client.get_session(record.child_session_id)
        yield Managed(session_id, record.child_session_id, Path(child["directory"]))


async def test_no_write_of_any_route_reaches_a_managed_session(
    http: aiohttp.ClientSession,
    raw: RawClient,
    sidecar: RunningSidecar,
    managed: Managed,
    routes: list[tuple[str, str]],
) -> None:
    """By its id or its directory; afterwards it is what it was, and goes on."""
    assert sidecar.supervisor.client is not None
    before = await raw.events(managed.id)
    child = await sidecar.supervisor.client.get_session(managed.child_id)
    boot = sidecar.supervisor.boot
    statuses: dict[str, int] = {}
    body = {"parentID": managed.child_id, "sessionID": managed.child_id}
    for method, template in routes:
        if method not in WRITES or template == "/log":
            continue
        for way in managed.ways(template):
            path = managed.filled(template)
            async with http.request(method, path, json=body, **way) as response:
                answer = await response.text()
                assert response.status in REFUSALS, (method, path, way, answer)
                statuses[f"{method} {template}"] = response.status
    assert {403, 409} <= set(statuses.values())
    assert statuses["patch /session/{sessionID}"] == 409
    assert await raw.events(managed.id) == before
    assert await sidecar.supervisor.client.get_session(managed.child_id) == child
    assert sidecar.supervisor.boot == boot
    assert text_of(await raw.turn(managed.id, "[[say: still here]]")) == "still here"


async def test_no_read_of_any_route_shows_a_secret(
    http: aiohttp.ClientSession,
    raw: RawClient,
    sidecar: RunningSidecar,
    managed: Managed,
    routes: list[tuple[str, str]],
) -> None:
    """Not the vault's, not those between the sidecar and opencode; nor do the events of all directories."""
    secrets = [TOKEN, VALUE, sidecar.relay.token, sidecar.relay.url]
    async with http.get("/global/event") as stream:
        reads = 0
        for method, template in routes:
            if method != "get" or template in STREAMS:
                continue
            params = {
                "directory": str(managed.directory),
                "path": ".",
                "query": "e",
                "pattern": "e",
            }
            async with http.get(managed.filled(template), params=params) as response:
                answer = await response.text()
                reads += response.status == 200
            assert [secret for secret in secrets if secret in answer] == [], template
        assert reads > 20
        await raw.turn(managed.id, "[[say: the last word of the walk]]")
        frames = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"the last word of the walk" not in frames:
                frames += await stream.content.readany()
    assert [secret for secret in secrets if secret.encode() in frames] == []


async def test_the_directory_of_all_sessions_is_read_only(
    http: aiohttp.ClientSession, managed: Managed
) -> None:
    """A session in it could write into those of all others."""
    root = managed.directory.parent
    for directory in (root, f"{root}/", f"{root}/native/..", f"{root}/./"):
        params = {"directory": str(directory)}
        async with http.post("/session", params=params, json={}) as response:
            refused = await response.json()
        assert (response.status, refused["error"]["type"]) == (403, "permission_error"), refused
        assert "read-only" in refused["data"]["message"]
        async with http.get("/path", params=params) as response:
            assert response.status == 200


async def test_opencodes_workspaces_are_refused_by_name(http: aiohttp.ClientSession) -> None:
    """opencode would answer 500 to one, and make a session of it that cannot be used."""
    for options in (
        {"params": {"workspace": "wrk_1"}, "json": {}},
        {"json": {"workspaceID": "wrk_1"}},
        {"json": {"workspaceID": 7}},
    ):
        async with http.post("/session", **options) as response:
            refused = await response.json()
        assert (response.status, refused["error"]["type"]) == (400, "invalid_request_error")
        assert "workspace" in refused["data"]["message"]
    async with http.get("/session", params={"workspace": "wrk_1"}) as response:
        assert response.status == 400


async def test_an_agent_of_opencodes_own_api_writes_into_no_other_session(
    http: aiohttp.ClientSession, managed: Managed
) -> None:
    """Neither by the path of a managed session's directory nor by a link to it."""
    native = managed.directory.parent / "native"
    native.mkdir(exist_ok=True)
    link = native / f"link-{managed.id}"
    link.symlink_to(managed.directory)
    async with http.post("/session", json={"title": "outside"}) as response:
        session = (await response.json())["id"]
    for directory in (managed.directory, link):
        written = json.dumps({"filePath": str(directory / "unseen"), "content": "x"})
        body = {
            "model": {"providerID": "litellm", "modelID": "openai/gpt-4o"},
            "parts": [{"type": "text", "text": f"[[tools: write {written}]] [[then]] [[say: ok]]"}],
        }
        async with http.post(f"/session/{session}/prompt_async", json=body) as response:
            assert response.status in {200, 204}, await response.text()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with http.get(f"/session/{session}/message") as response:
                    messages = await response.json()
                async with http.get("/permission") as response:
                    asked = [a for a in await response.json() if a["sessionID"] == session]
                for each in asked:
                    reply = f"/permission/{each['id']}/reply"
                    async with http.post(reply, json={"reply": "reject"}) as response:
                        assert response.status == 200
                states = [
                    part["state"]["status"]
                    for message in messages
                    for part in message["parts"]
                    if part["type"] == "tool" and str(directory) in json.dumps(part)
                ]
                if states and states[-1] in {"completed", "error"}:
                    break
                await asyncio.sleep(0.1)
        assert not (managed.directory / "unseen").exists(), directory
