"""Turns of opencode's own API when the child, or the sidecar, is to end: they are waited for like ours."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.harness import RUNTIME_KEY, http_client, make_settings, sidecar_for
from tests.ports import free_port
from tests.raw_client import RawClient
from tests.waiting import PATIENCE_SECONDS, patience, until

ASKING = {
    "type": "agent_toolset_20260401",
    "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
}
NEVER = 3600.0
"""A bound that lies behind the test's own end: what waited for it would fail."""
WORK = "[[bash: sleep 3]] [[then]] [[say: it was done]]"


def prompt(text: str) -> dict[str, Any]:
    return {
        "parts": [{"type": "text", "text": text}],
        "model": {"providerID": "litellm", "modelID": "openai/gpt-4o"},
    }


async def new_session(
    http: aiohttp.ClientSession, query: dict[str, str] | None = None, **body: Any
) -> str:
    async with http.post("/session", json=body, params=query) as answer:
        return str((await answer.json())["id"])


async def works(sidecar: RunningSidecar) -> None:
    """Wait until opencode is at it."""
    await until(lambda: sidecar.instances.has_turns(None, but=lambda _: False))


async def test_a_replaced_opencode_finishes_a_native_turn(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """The turn that `prompt_async` began ends whole in the process that it began in; its permission is
    answered there, and the events of both processes are in one stream."""
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        supervisor = sidecar.supervisor
        session, permission = await asks(http)
        async with http.get("/global/event") as stream:
            old = supervisor.current
            supervisor.request_restart("test")
            await until(lambda: supervisor.current is not old)
            assert supervisor.retiring is old
            assert [waiting["id"] for waiting in await permissions(http)] == [permission]
            elsewhere = str(settings.storage.workspaces_dir / "elsewhere")
            other = await new_session(http, query={"directory": elsewhere})
            path = f"/session/{other}/message"
            async with http.post(path, json=prompt("[[say: in the next]]")) as answer:
                assert "in the next" in await answer.text()
            boot = sidecar.instances.boot_of(Path(elsewhere).resolve())
            assert boot is supervisor.current
            reply = f"/permission/{permission}/reply"
            async with http.post(reply, json={"reply": "once"}) as answer:
                assert answer.status == 200
            async with patience():
                seen: set[str] = set()
                async for line in stream.content:
                    if b"session.idle" in line:
                        seen |= {name for name in (session, other) if name.encode() in line}
                    if seen == {session, other}:
                        break
        async with http.get(f"/session/{session}/message") as answer:
            assert "it was done" in json.dumps(await answer.json())
        await until(lambda: supervisor.retiring is None)


async def test_a_planned_restart_waits_for_a_native_turn(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """On a port that is set it happens when the turn that `prompt_async` began has ended, whole."""
    async with (
        sidecar_for(make_settings(tmp_path, gateway.url, child={"port": free_port()})) as sidecar,
        http_client(sidecar.url) as http,
    ):
        session = await new_session(http)
        path = f"/session/{session}/prompt_async"
        async with http.post(path, json=prompt(WORK)) as answer:
            assert answer.status == 204
        await works(sidecar)
        sidecar.supervisor.request_restart("test")
        await until(lambda: sidecar.supervisor.boot > 1)
        await sidecar.supervisor.wait_ready(PATIENCE_SECONDS)
        async with http.get(f"/session/{session}/message") as answer:
            assert "it was done" in json.dumps(await answer.json())


async def test_the_drain_waits_for_a_native_turn(gateway: DemoGateway, tmp_path: Path) -> None:
    """Its request gets the whole answer, and the sidecar ends after it, long before the drain's bound."""
    settings = make_settings(tmp_path, gateway.url, child={"drain_seconds": NEVER})
    async with aiohttp.ClientSession(headers={"x-api-key": RUNTIME_KEY}) as client:

        async def ask() -> tuple[int, str]:
            url = f"{sidecar.url}/session/{session}/message"
            async with client.post(url, json=prompt(WORK)) as answer:
                return answer.status, await answer.text()

        async with sidecar_for(settings) as sidecar:
            async with http_client(sidecar.url) as http:
                session = await new_session(http)
            asking = asyncio.create_task(ask())
            await works(sidecar)
        status, text = await asking
    assert status == 200
    assert "it was done" in text


async def asks(http: aiohttp.ClientSession) -> tuple[str, str]:
    """Begin a turn that asks whether it may; return the session's id and the request's."""
    rule = {"permission": "bash", "pattern": "*", "action": "ask"}
    session = await new_session(http, permission=[rule])
    text = "[[bash: echo hello]] [[then]] [[say: it was done]]"
    async with http.post(f"/session/{session}/prompt_async", json=prompt(text)) as answer:
        assert answer.status == 204
    waiting = await until(lambda: permissions(http))
    return session, str(waiting[0]["id"])


async def permissions(http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    async with http.get("/permission") as answer:
        assert answer.status == 200
        return list(await answer.json())


async def test_a_native_turn_can_be_answered_while_new_ones_are_held(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """The restart waits for the turn, the turn for its client: whose answer is no new turn."""
    child = {"restart_patience_seconds": 0.1, "port": free_port(), "prompt_wait_seconds": NEVER}
    settings = make_settings(tmp_path, gateway.url, child=child)
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        _, permission = await asks(http)
        sidecar.supervisor.request_restart("test")
        await until(lambda: sidecar.supervisor._restart.is_holding)
        async with patience():
            assert [waiting["id"] for waiting in await permissions(http)] == [permission]
            path = f"/permission/{permission}/reply"
            async with http.post(path, json={"reply": "once"}) as answer:
                assert answer.status == 200
        assert sidecar.supervisor.boot == 1
        await until(lambda: sidecar.supervisor.boot > 1)


async def test_a_native_turn_can_be_answered_while_the_sidecar_drains(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """It ends by its own end, not by the drain's."""
    settings = make_settings(tmp_path, gateway.url)
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        session, permission = await asks(http)
        sidecar.supervisor.drain()
        async with http.post(f"/session/{session}/message", json=prompt("hi")) as answer:
            assert answer.status == 503
        path = f"/permission/{permission}/reply"
        async with http.post(path, json={"reply": "once"}) as answer:
            assert answer.status == 200

        async def is_over() -> bool:
            return not await sidecar.instances.has_turns(None, but=lambda _: False)

        await until(is_over)
        async with http.get(f"/session/{session}/message") as answer:
            assert "it was done" in json.dumps(await answer.json())


async def test_a_turn_that_waits_for_its_client_holds_up_nothing(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """opencode is busy with it, for as long as its client likes: the drain does not wait."""
    settings = make_settings(tmp_path, gateway.url, child={"drain_seconds": NEVER})
    async with sidecar_for(settings) as sidecar, http_client(sidecar.url) as http:
        raw = RawClient(http)
        session = await raw.new_session(tools=[ASKING])
        async with raw.stream(session) as reader:
            await raw.send(session, "[[bash: echo hello]]")
            await reader.until("session.status_idle")
        assert await sidecar.instances.has_turns(None, but=lambda _: False)
