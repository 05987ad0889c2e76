"""Managed sessions through opencode's own API: read as they are, never changed around the managed one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from sidecar.app import RunningSidecar
from tests.harness import http_client, text_of, user_message
from tests.raw_client import RawClient
from tests.waiting import patience

ASKING = {
    "type": "agent_toolset_20260401",
    "default_config": {"permission_policy": {"type": "always_ask"}},
}


@pytest.fixture
async def http(sidecar: RunningSidecar) -> AsyncIterator[aiohttp.ClientSession]:
    async with http_client(sidecar.url) as session:
        yield session


class Managed:
    """A managed session and its other name."""

    def __init__(self, session_id: str, child_id: str, directory: Path) -> None:
        self.id = session_id
        self.child_id = child_id
        self.directory = directory


async def started(raw: RawClient, sidecar: RunningSidecar, **options: Any) -> Managed:
    """A managed session that opencode has, with one turn behind it."""
    session_id = await raw.new_session(**options)
    assert text_of(await raw.turn(session_id, "[[say: hello]]")) == "hello"
    record = await sidecar.sessions.record(session_id)
    assert record.child_session_id is not None
    client = sidecar.supervisor.client
    assert client is not None
    directory = Path((await client.get_session(record.child_session_id))["directory"])
    return Managed(session_id, record.child_session_id, directory)


async def refused(
    http: aiohttp.ClientSession, managed: Managed, method: str, path: str, **options: Any
) -> None:
    """The request is a 409 that names the managed session and what to use instead."""
    async with http.request(method, path, **options) as response:
        body = await response.json()
        assert response.status == 409, (method, path, body)
    assert body["error"]["type"] == "conflict_error"
    assert body["name"] == "ConflictError"
    assert managed.id in body["data"]["message"]
    assert "/v1/sessions/" in body["data"]["message"]


WRITES = [
    ("PATCH", "", {"permission": [{"permission": "*", "pattern": "*", "action": "allow"}]}),
    ("PATCH", "", {"title": "mine now"}),
    ("DELETE", "", None),
    ("POST", "/message", {"parts": [{"type": "text", "text": "[[say: unseen]]"}]}),
    ("POST", "/prompt_async", {"parts": [{"type": "text", "text": "[[say: unseen]]"}]}),
    ("POST", "/shell", {"agent": "sidecar", "command": "touch unseen"}),
    ("POST", "/command", {"command": "init", "arguments": ""}),
    ("POST", "/init", {"providerID": "litellm", "modelID": "house-model", "messageID": "msg_1"}),
    ("POST", "/summarize", {"providerID": "litellm", "modelID": "house-model"}),
    ("POST", "/abort", None),
    ("POST", "/fork", {}),
    ("POST", "/revert", {"messageID": "msg_1"}),
    ("POST", "/unrevert", None),
    ("DELETE", "/message/msg_1", None),
    ("PATCH", "/message/msg_1/part/prt_1", {}),
    ("POST", "/permissions/per_1", {"response": "once"}),
]


async def test_no_write_reaches_a_managed_session(
    http: aiohttp.ClientSession, raw: RawClient, sidecar: RunningSidecar
) -> None:
    """Every write of opencode's API on it is refused, and the session is afterwards what it was."""
    managed = await started(raw, sidecar)
    before = await raw.events(managed.id)
    for method, suffix, body in WRITES:
        path = f"/session/{managed.child_id}{suffix}"
        options = {} if body is None else {"json": body}
        await refused(http, managed, method, path, **options)
    assert not (managed.directory / "unseen").exists()
    assert await raw.events(managed.id) == before
    assert text_of(await raw.turn(managed.id, "[[say: still here]]")) == "still here"


async def test_no_write_reaches_a_managed_sessions_directory(
    http: aiohttp.ClientSession, raw: RawClient, sidecar: RunningSidecar
) -> None:
    """By query, by header, below it, by a link to it, or as one of several: each is refused."""
    managed = await started(raw, sidecar)
    link = managed.directory.parent / "native" / f"link-{managed.id}"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(managed.directory)
    below = managed.directory / "below"
    for directory in (managed.directory, below, link, f"{managed.directory}/../{managed.id}"):
        text = str(directory)
        await refused(http, managed, "POST", "/session", params={"directory": text}, json={})
        headers = {"x-opencode-directory": quote(text)}
        await refused(http, managed, "POST", "/session", headers=headers, json={})
    both = [("directory", str(link.parent)), ("directory", str(managed.directory))]
    await refused(http, managed, "POST", "/session", params=both, json={})
    await refused(http, managed, "POST", "/session", json={"parentID": managed.child_id})
    params = {"directory": str(managed.directory)}
    for path in ("/permission/per_1/reply", "/question/que_1/reply", "/vcs/apply"):
        await refused(http, managed, "POST", path, params=params, json={"reply": "once"})


async def test_a_call_that_waits_is_not_answered_from_the_native_door(
    http: aiohttp.ClientSession, raw: RawClient, sidecar: RunningSidecar
) -> None:
    """The permission request of an `always_ask` call takes its answer from `user.tool_confirmation` only."""
    managed = await started(raw, sidecar, tools=[ASKING])
    async with raw.stream(managed.id) as reader:
        await raw.send(managed.id, "[[bash: touch ran]]")
        await reader.until("session.status_idle")
        params = {"directory": str(managed.directory)}
        async with http.get("/permission", params=params) as response:
            (asked,) = await response.json()  # a read shows what is
        asked_id = asked["id"]

        path = f"/permission/{asked_id}/reply"
        await refused(http, managed, "POST", path, params=params, json={"reply": "once"})
        own = f"/session/{managed.child_id}/permissions/{asked_id}"
        await refused(http, managed, "POST", own, json={"response": "once"})
        # By way of a directory and of a session that are not managed, opencode knows no such request.
        async with http.post("/session", json={"title": "another"}) as response:
            other = (await response.json())["id"]
        for path, body in (
            (f"/permission/{asked_id}/reply", {"reply": "once"}),
            (f"/session/{other}/permissions/{asked_id}", {"response": "once"}),
        ):
            async with http.post(path, json=body) as response:
                await response.read()
        async with http.get("/permission", params=params) as response:
            assert [a["id"] for a in await response.json()] == [asked_id]
        assert not (managed.directory / "ran").exists()
        confirmation = {
            "type": "user.tool_confirmation",
            "tool_use_id": reader.seen[-1]["stop_reason"]["event_ids"][0],
            "result": "allow",
        }
        await raw.send_events(managed.id, confirmation)
        await reader.until("session.status_idle")
    assert (managed.directory / "ran").exists()


async def test_reads_of_a_managed_session_are_what_they_are(
    http: aiohttp.ClientSession, raw: RawClient, sidecar: RunningSidecar
) -> None:
    """Its messages, files and events are shown."""
    managed = await started(raw, sidecar)
    async with http.get("/event", params={"directory": str(managed.directory)}) as stream:
        async with http.get(f"/session/{managed.child_id}/message") as response:
            assert "hello" in await response.text()
        await raw.turn(managed.id, "[[bash: echo inside > file.txt]] [[then]] [[say: written]]")
        params = {"directory": str(managed.directory), "path": "file.txt"}
        async with http.get("/file/content", params=params) as response:
            assert (await response.json())["content"].strip() == "inside"
        async with patience():
            async for line in stream.content:
                if line.startswith(b"data:") and b'"text":"written"' in line:
                    break
    event = json.loads(line[5:])
    assert event["properties"]["sessionID"] == managed.child_id
    assert "payload" not in event


@pytest.mark.parametrize(
    "path",
    [
        "/session/ses%5f1/message",
        "/session/ses_1%2fmessage",
        "/session/..%2f..%2fconfig/message",
        "/session/ses_1%5cx/message",
        "/session/ses_1%00/message",
        "/session/~/message",
        "/session/ses_1;x/message",
        "/session//message",
        "/./session/ses_1/message",
        "/session/" + "s" * 300 + "/message",
    ],
)
async def test_a_path_that_opencode_would_read_otherwise_is_none(
    http: aiohttp.ClientSession, path: str
) -> None:
    """Encoded separators and the like never reach the child: 404 in the envelope."""
    import yarl  # only here: the client must not normalise

    url = yarl.URL(str(http._base_url).rstrip("/") + path, encoded=True)
    async with http.post(url, json={"parts": []}) as response:
        body = await response.json()
    assert (response.status, body["error"]["type"]) == (404, "not_found_error"), body
    assert body["name"] == "NotFoundError"


async def test_a_new_sessions_model_is_looked_up_and_stays_known(
    http: aiohttp.ClientSession, sidecar: RunningSidecar
) -> None:
    """`POST /session` with a model is as an agent's: qualified or 400; a prompt without one then works."""
    unknown = {"model": {"providerID": "litellm", "id": "gpt-4oo"}}
    async with http.post("/session", json=unknown) as response:
        body = await response.json()
        assert response.status == 400, body
    assert "openai/gpt-4o" in body["data"]["message"]

    for provider in (
        "ollama",
        "litellm",
        "anthropic",
    ):  # a listed id under a foreign provider is taken
        model = {"providerID": provider, "id": "house-model"}
        async with http.post("/session", json={"model": model}) as response:
            assert response.status == 200, await response.text()
            session = await response.json()
        assert session["model"]["providerID"] == "litellm"
        assert session["model"]["id"] == "house-model"
        prompt = {"parts": [{"type": "text", "text": "[[say: with it]]"}]}
        async with http.post(f"/session/{session['id']}/message", json=prompt) as response:
            assert response.status == 200, await response.text()
            assert (await response.json())["info"]["modelID"] == "house-model"


async def test_sharing_is_refused_with_its_reason(
    http: aiohttp.ClientSession, raw: RawClient
) -> None:
    """It would publish the conversation; 403 says so, for any session."""
    async with http.post("/session", json={}) as response:
        session = (await response.json())["id"]
    async with http.post(f"/session/{session}/share") as response:
        body = await response.json()
    assert response.status == 403
    assert "sharing" in body["data"]["message"]


async def test_the_document_shows_what_is_served(
    http: aiohttp.ClientSession, raw: RawClient
) -> None:
    """`GET /doc` has the routes that work here and none that is refused."""
    async with http.get("/doc") as response:
        paths = (await response.json())["paths"]
    assert {"/session", "/session/{sessionID}/message", "/config/providers", "/log"} <= set(paths)
    assert set(paths["/config"]) == {"get"}
    assert set(paths["/session/{sessionID}"]) == {"get", "patch", "delete"}
    gone = ("/pty", "/auth/{providerID}", "/global/dispose", "/sync/replay", "/tui/publish")
    assert not set(gone) & set(paths)
    assert "/session/{sessionID}/share" not in paths


async def test_the_global_stream_outlives_a_replacement_of_the_child(
    http: aiohttp.ClientSession, raw: RawClient, sidecar: RunningSidecar
) -> None:
    """One connection sees `server.connected` of both children and a turn of the second, in whole frames."""
    async with http.get("/global/event") as stream:
        frames = _read(stream)
        first = await anext(frames)
        assert first["payload"]["type"] == "server.connected"
        boot = sidecar.supervisor.boot
        sidecar.supervisor.request_restart("a test", force=True)
        async with patience():
            async for frame in frames:
                if frame["payload"]["type"] == "server.connected":
                    break
        assert sidecar.supervisor.boot == boot + 1
        session = await raw.new_session()
        await raw.send_events(session, user_message("[[say: after]]"))
        async with patience():
            async for frame in frames:
                if '"text": "after"' in json.dumps(frame):
                    break


async def _read(stream: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in stream.content:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])
