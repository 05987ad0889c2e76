"""A permission request that is allowed by anything but the sidecar ends the turn, and is an alarm.

The attacker of this test has opencode's password, which no agent can read where it is confined.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import psutil
import pytest

from sidecar.demo_gateway import DemoGateway
from tests.confined import Sessions, confined, install
from tests.fakes.gate import Gate
from tests.harness import HELD_CALL, until_idle, user_message
from tests.waiting import patience, until

ASK = [{"name": "write", "permission_policy": {"type": "always_ask"}}]


@pytest.fixture(scope="module")
def gate() -> Gate:
    """Holds the gateway's slow answers."""
    return Gate()


@pytest.fixture(scope="module")
async def sessions(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> AsyncIterator[Sessions]:
    """A sidecar."""
    installation = install(tmp_path_factory.mktemp("installation"), "own")
    data_dir = tmp_path_factory.getbasetemp() / "alarm"
    gateway = DemoGateway(sleep=gate)
    await gateway.start()
    async with confined(installation, data_dir, LITELLM_BASE_URL=gateway.url) as made:
        yield made
    await gateway.close()


async def asking(sessions: Sessions) -> str:
    """Return a session whose turn waits for the client's word about a file."""
    session = await sessions.session(configs=ASK)
    path = f"/v1/sessions/{session}/events"
    call = json.dumps({"filePath": str(sessions.workspace(session) / "file"), "content": "x"})
    async with sessions.http.get(f"{path}/stream") as stream:
        await sessions.post(path, {"events": [user_message(f"[[tool: write {call}]]")]})
        events = await until_idle(stream, seconds=120)
    assert events[-1]["stop_reason"]["type"] == "requires_action"
    return session


async def opencode(sessions: Sessions, session: str) -> aiohttp.ClientSession:
    """Return a client of opencode in the session's directory, with its password."""
    started = sessions.process.entries("child started")[-1]
    environment = psutil.Process(started["pid"]).environ()
    ports = [
        c.laddr.port for c in psutil.Process(started["pid"]).net_connections("tcp") if not c.raddr
    ]
    login = f"opencode:{environment['OPENCODE_SERVER_PASSWORD']}".encode()
    headers = {
        "authorization": f"Basic {base64.b64encode(login).decode()}",
        "x-opencode-directory": str(sessions.workspace(session)),
    }
    return aiohttp.ClientSession(f"http://127.0.0.1:{ports[0]}", headers=headers)


async def assert_alarm(sessions: Sessions, session: str, permission: str, count: int) -> None:
    """The turn ends with an error that says why, log and metric have the alarm; the session can go on."""
    await sessions.idle(session)
    async with patience():
        while "session.error" not in (
            types := [e["type"] for e in await listed(sessions, session)]
        ):
            await asyncio.sleep(0.1)
    assert types[-1] == "session.status_idle"
    (error,) = [e for e in await listed(sessions, session) if e["type"] == "session.error"]
    assert "allowed by something other than the client" in error["error"]["message"]
    alarm = await sessions.process.logged("permission answered by another program", count=count)
    assert alarm["permission"] == permission
    assert f"sidecar_permission_alarms_total {count}.0" in await sessions.metrics()
    assert "fine" in await sessions.bash(session, "echo fine")


@pytest.mark.parametrize("reply", ["once", "always"])
async def test_an_answer_that_we_did_not_send(sessions: Sessions, reply: str) -> None:
    """The turn ends with an error that says so, the log and the metric have it; the session can go on."""
    session = await asking(sessions)
    before = len(sessions.process.entries("permission answered by another program"))
    async with await opencode(sessions, session) as intruder:
        async with intruder.get("/permission") as answer:
            (asked,) = [a for a in await answer.json() if a["permission"] == "edit"]
        async with intruder.post(f"/permission/{asked['id']}/reply", json={"reply": reply}) as done:
            assert done.status == 200
    await assert_alarm(sessions, session, asked["id"], before + 1)


async def test_an_answer_to_a_sub_agent(sessions: Sessions, gate: Gate) -> None:
    """The sidecar refuses what sub-agents ask. Here another program is faster: also that is an alarm."""
    session = await sessions.session()
    workspace = sessions.workspace(session)
    before = len(sessions.process.entries("permission answered by another program"))
    await sessions.bash(session, "pwd")
    prompt = {"events": [user_message(f"{HELD_CALL} [[then]] [[say: over]]")]}
    await sessions.post(f"/v1/sessions/{session}/events", prompt)
    async with await opencode(sessions, session) as intruder:
        root = await until(lambda: first(intruder, "/session"))
        await until(lambda: is_busy(intruder, root["id"]))
        # Agents of sessions have no tool that starts one: the intruder does it.
        rule = {"permission": "edit", "pattern": "*", "action": "ask"}
        body = {"parentID": root["id"], "title": "sub-agent", "permission": [rule]}
        async with intruder.post("/session", json=body) as answer:
            sub_agent = await answer.json()
        call = json.dumps({"filePath": str(workspace / "file"), "content": "x"})
        text = f"[[slow: 5x1 tick]] [[tool: write {call}]]"
        body = {"agent": "general", "parts": [{"type": "text", "text": text}]}
        async with intruder.post(f"/session/{sub_agent['id']}/prompt_async", json=body) as answer:
            assert answer.status == 204, await answer.text()
        async with patience():
            await gate.reached.wait()
        child = psutil.Process(sessions.process.entries("child started")[-1]["pid"])
        with stopped(child):
            gate.open()
            # What opencode reads when it goes on, it has from the sidecar now.
            await until(lambda: none_in_flight(sessions))
            sessions.sidecar.suspend()
        with resumed(sessions.sidecar):
            asked = await until(lambda: first(intruder, "/permission"))
            assert asked["sessionID"] == sub_agent["id"]
            reply = {"reply": "once"}
            async with intruder.post(f"/permission/{asked['id']}/reply", json=reply) as done:
                assert done.status == 200
            await until((workspace / "file").exists)
    await assert_alarm(sessions, session, asked["id"], before + 1)


async def test_a_client_s_answer_is_no_alarm(sessions: Sessions) -> None:
    """What comes by the API is allowed as it was asked for."""
    session = await asking(sessions)
    before = sessions.process.entries("permission answered by another program")
    (use,) = [e for e in await listed(sessions, session) if e["type"] == "agent.tool_use"]
    confirmation = {"type": "user.tool_confirmation", "tool_use_id": use["id"], "result": "allow"}
    await sessions.post(f"/v1/sessions/{session}/events", {"events": [confirmation]})
    await until((sessions.workspace(session) / "file").exists)
    await sessions.idle(session)
    assert sessions.process.entries("permission answered by another program") == before


async def listed(sessions: Sessions, session: str) -> list[dict[str, Any]]:
    """Return the session's log."""
    async with sessions.http.get(f"/v1/sessions/{session}/events?limit=100") as answer:
        events: list[dict[str, Any]] = (await answer.json())["data"]
        return events


async def first(intruder: aiohttp.ClientSession, path: str) -> dict[str, Any] | None:
    """Return the first entry of one of opencode's lists."""
    async with intruder.get(path) as answer:
        entries: list[dict[str, Any]] = await answer.json()
        return entries[0] if entries else None


async def is_busy(intruder: aiohttp.ClientSession, session: str) -> bool:
    """Return whether one of opencode's sessions works."""
    async with intruder.get("/session/status") as answer:
        return session in await answer.json()


async def none_in_flight(sessions: Sessions) -> bool:
    """Return whether the sidecar waits for no model."""
    lines = (await sessions.metrics()).splitlines()
    counts = [
        line for line in lines if line.startswith("opencode_sidecar_model_requests_in_flight")
    ]
    assert counts
    return all(float(line.split()[-1]) == 0 for line in counts)


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Let it do nothing meanwhile."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@contextmanager
def resumed(process: psutil.Process) -> Iterator[None]:
    """Let a process that does nothing go on at the end."""
    try:
        yield
    finally:
        process.resume()
