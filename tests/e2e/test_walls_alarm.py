"""A permission request that is allowed by anything but the sidecar ends the turn, and is an alarm.

The attacker of this test has opencode's password, which no agent can read where it is confined.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest

from tests.confined import Sessions, confined, install
from tests.harness import until_idle, user_message
from tests.waiting import patience, until

ASK = [{"name": "write", "permission_policy": {"type": "always_ask"}}]


@pytest.fixture(scope="module")
async def sessions(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sessions]:
    """A sidecar."""
    installation = install(tmp_path_factory.mktemp("installation"), "own")
    async with confined(installation, tmp_path_factory.getbasetemp() / "alarm") as made:
        yield made


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
    await sessions.idle(session)
    async with patience():
        while "session.error" not in (
            types := [e["type"] for e in await listed(sessions, session)]
        ):
            await asyncio.sleep(0.1)
    assert types[-1] == "session.status_idle"
    (error,) = [e for e in await listed(sessions, session) if e["type"] == "session.error"]
    assert "allowed by something other than the client" in error["error"]["message"]
    alarm = await sessions.process.logged(
        "permission answered by another program", count=before + 1
    )
    assert alarm["permission"] == asked["id"]
    assert f"sidecar_permission_alarms_total {before + 1}.0" in await sessions.metrics()
    assert "fine" in await sessions.bash(session, "echo fine")


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
