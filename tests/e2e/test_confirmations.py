"""Calls that need the user's word: asked, answered, answered wrongly, never forgotten. The real opencode."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.app import RunningSidecar
from sidecar.demo_gateway import DemoGateway
from tests.event_rules import check_events
from tests.harness import (
    RUNTIME_KEY,
    make_settings,
    sidecar_for,
    text_of,
    types_of,
    user_message,
)
from tests.raw_client import EventReader, RawClient, plain

ASKING = {
    "type": "agent_toolset_20260401",
    "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
}
LOOKUP = {
    "type": "custom",
    "name": "lookup",
    "description": "Looks a word up.",
    "input_schema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


def allow(call: str) -> dict[str, Any]:
    return {"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"}


def deny(call: str, message: str | None = None) -> dict[str, Any]:
    said = {"deny_message": message} if message else {}
    return {"type": "user.tool_confirmation", "tool_use_id": call, "result": "deny", **said}


def custom_result(call: str, text: str) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "user.custom_tool_result", "custom_tool_use_id": call, "content": content}


@asynccontextmanager
async def live_client(sidecar: RunningSidecar) -> AsyncIterator[RawClient]:
    """A client whose streams are live only, as the SDKs' are: no replay of a turn that waits."""
    headers = {"x-api-key": RUNTIME_KEY, "x-stainless-lang": "python"}
    async with aiohttp.ClientSession(sidecar.url, headers=headers) as http:
        yield RawClient(http)


async def refusal(raw: RawClient, session: str, *events: dict[str, Any]) -> str:
    """Send events that must be refused with 400 and change nothing; return the message."""
    before = await raw.events(session)
    path = f"/v1/sessions/{session}/events"
    async with raw.http.post(path, json={"events": events}) as response:
        body = await response.json()
        assert response.status == 400, body
    assert await raw.events(session) == before
    assert body["error"]["type"] == "invalid_request_error"
    return str(body["error"]["message"])


async def ask(
    raw: RawClient, reader: EventReader, session: str, text: str, *, calls: int = 1
) -> list[str]:
    """Send a message whose turn stops for the user; return the ids of the calls that wait."""
    await raw.send(session, text)
    events = await reader.until("session.status_idle")
    reason = events[-1]["stop_reason"]
    assert reason["type"] == "requires_action", reason
    assert plain(events, "session.thread_status_idle")[0]["stop_reason"] == reason
    assert len(reason["event_ids"]) == calls
    assert await raw.status(session) == "idle"
    waiting: list[str] = reason["event_ids"]
    return waiting


async def test_an_allowed_call_runs_and_a_denied_one_does_not(raw: RawClient) -> None:
    """Allow: the result follows. Deny: an error result with the message, nothing ran, the model goes on."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        (call,) = await ask(raw, reader, session, "[[bash: echo first | tee -a f]]")
        use = plain(reader.seen, "agent.tool_use")[0]
        assert (use["id"], use["evaluated_permission"]) == (call, "ask")
        await raw.send_events(session, allow(call))
        allowed = await reader.until("session.status_idle")

        (call,) = await ask(raw, reader, session, "[[bash: echo second | tee -a f]]")
        await raw.send_events(session, deny(call, "keep out"))
        denied = await reader.until("session.status_idle")

        (call,) = await ask(raw, reader, session, "[[bash: cat f]]")
        await raw.send_events(session, allow(call))
        shown = await reader.until("session.status_idle")
    assert types_of(allowed)[:4] == [
        "user.tool_confirmation",
        "session.status_running",
        "session.thread_status_running",
        "agent.tool_result",
    ]
    assert plain(allowed, "agent.tool_result")[0]["content"][0]["text"] == "first\n"
    (result,) = plain(denied, "agent.tool_result")
    assert result["is_error"] is True
    assert result["content"][0]["text"] == "Call rejected by the user: keep out"
    assert denied[-1]["stop_reason"] == {"type": "end_turn"}
    assert plain(shown, "agent.tool_result")[0]["content"][0]["text"] == "first\n"
    check_events(await raw.events(session))


async def test_a_denial_without_a_message_also_goes_on(raw: RawClient) -> None:
    """The model hears of the denial and answers."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        (call,) = await ask(raw, reader, session, "[[bash: echo x]][[then]][[say: as you wish]]")
        await raw.send_events(session, deny(call))
        turn = await reader.until("session.status_idle")
    assert text_of(turn) == "as you wish"
    check_events(await raw.events(session))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "other order"])
@pytest.mark.parametrize("answers", [(allow, deny), (deny, allow)], ids=["allow", "deny"])
async def test_two_calls_answered_one_by_one(
    raw: RawClient, order: tuple[int, int], answers: tuple[Any, Any]
) -> None:
    """After the first answer the session is idle again and names the other call only."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        calls = await ask(raw, reader, session, "[[bash: echo one]][[bash: echo two]]", calls=2)
        first, second = (calls[number] for number in order)
        await raw.send_events(session, answers[0](first))
        events = await reader.until("session.status_idle")
        assert events[-1]["stop_reason"] == {"type": "requires_action", "event_ids": [second]}
        await raw.send_events(session, answers[1](second))
        events += await reader.until("session.status_idle")
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    results = {e["tool_use_id"]: e["is_error"] for e in plain(events, "agent.tool_result")}
    assert results == {first: answers[0] is deny, second: answers[1] is deny}
    check_events(await raw.events(session))


async def test_two_calls_answered_in_one_request(raw: RawClient) -> None:
    """Both confirmations may share one POST; each call gets its own answer."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        calls = await ask(raw, reader, session, "[[bash: echo one]][[bash: echo two]]", calls=2)
        answers = await raw.send_events(session, deny(calls[0], "no"), allow(calls[1]))
        events = await reader.until("session.status_idle")
    assert [e["id"] for e in plain(events, "user.tool_confirmation")] == [e["id"] for e in answers]
    results = {e["tool_use_id"]: e["is_error"] for e in plain(events, "agent.tool_result")}
    assert results == {calls[0]: True, calls[1]: False}
    check_events(await raw.events(session))


async def test_an_interrupt_while_the_session_waits(raw: RawClient) -> None:
    """The open call is closed with an error, the model is not asked again, the next message runs."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        (call,) = await ask(raw, reader, session, "[[bash: echo never]]")
        await raw.interrupt(session)
        events = await reader.until("session.status_idle")
        assert "already" in await refusal(raw, session, allow(call))
        await raw.send(session, "[[say: next]]")
        after = await reader.until("session.status_idle")
    assert types_of(events) == [
        "agent.tool_result",
        "user.interrupt",
        "session.thread_status_idle",
        "session.usage",
        "session.status_idle",
    ]
    assert events[0]["is_error"] is True
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert text_of(after) == "next"
    check_events(await raw.events(session))


async def test_a_message_sent_while_the_session_waits_runs_afterwards(raw: RawClient) -> None:
    """It is queued, without a time, and begins its own turn when the calls were answered."""
    session = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader:
        (call,) = await ask(raw, reader, session, "[[bash: echo x]][[then]][[say: done]]")
        (queued,) = await raw.send(session, "[[say: and now this]]")
        assert queued["processed_at"] is None
        await raw.send_events(session, allow(call))
        first = await reader.until("session.status_idle")
        second = await reader.until("session.status_idle")
    assert (text_of(first), text_of(second)) == ("done", "and now this")
    assert plain(second, "user.message")[0]["id"] == queued["id"]
    check_events(await raw.events(session))


async def test_wrong_answers_are_refused_and_change_nothing(raw: RawClient) -> None:
    """Twice, of another session, of no call, of the wrong kind, twice in one batch: 400, all or nothing."""
    session = await raw.new_session(tools=[ASKING, LOOKUP])
    other = await raw.new_session(tools=[ASKING])
    async with raw.stream(session) as reader, raw.stream(other) as others:
        text = '[[bash: echo x]][[tool: lookup {"word": "a"}]]'
        shell, lookup = await ask(raw, reader, session, text, calls=2)
        (foreign,) = await ask(raw, others, other, "[[bash: echo y]]")

        assert "tool_use_id" in await refusal(raw, session, allow(foreign))
        assert "tool_use_id" in await refusal(raw, session, allow("sevt_unknown"))
        assert "user.custom_tool_result" in await refusal(raw, session, allow(lookup))
        assert "user.tool_confirmation" in await refusal(raw, session, custom_result(shell, "x"))
        await refusal(raw, session, allow(shell), allow(shell))
        await refusal(raw, session, allow(shell), allow(foreign))
        await refusal(raw, session, {**allow(shell), "deny_message": "but allowed"})
        result = {"type": "user.tool_result", "tool_use_id": shell, "content": []}
        assert "self_hosted" in await refusal(raw, session, result)

        await raw.send_events(session, allow(shell), custom_result(lookup, "found"))
        await reader.until("session.status_idle")
        assert "answered already" in await refusal(raw, session, allow(shell))
        assert "answered already" in await refusal(raw, session, custom_result(lookup, "again"))
        await raw.send_events(other, allow(foreign))
        await others.until("session.status_idle")
    check_events(await raw.events(session))
    check_events(await raw.events(other))


async def _open_all(raw: RawClient) -> dict[str, tuple[str, list[str]]]:
    """Open sessions that wait for: an allowance, a denial, a custom result, two answers of either kind."""
    texts = {
        "allow": ("[[bash: echo ran | tee -a f]]", 1),
        "deny": ("[[bash: echo ran > f]]", 1),
        "custom": ('[[tool: lookup {"word": "quince"}]]', 1),
        "both": ('[[bash: echo half]][[tool: lookup {"word": "fig"}]]', 2),
        "mixed": ("[[bash: echo never]][[bash: echo yes]]", 2),
    }

    async def open_one(text: str, calls: int) -> tuple[str, list[str]]:
        session = await raw.new_session(tools=[ASKING, LOOKUP])
        async with raw.stream(session) as reader:
            return session, await ask(raw, reader, session, text, calls=calls)

    opened = await asyncio.gather(*(open_one(*case) for case in texts.values()))
    return dict(zip(texts, opened, strict=True))


async def _answer_all(
    raw: RawClient, waiting: dict[str, tuple[str, list[str]]], gateway: DemoGateway
) -> None:
    """Answer them after a restart and check that each turn ends as it would have without one."""
    for session, calls in waiting.values():
        assert await raw.status(session) == "idle"
        last = (await raw.events(session))[-1]
        assert last["stop_reason"] == {"type": "requires_action", "event_ids": calls}

    async def answer(name: str, *answers: dict[str, Any]) -> list[dict[str, Any]]:
        session, _ = waiting[name]
        async with raw.stream(session) as reader:
            await raw.send_events(session, *answers)
            events = await reader.until("session.status_idle")
            while events[-1]["stop_reason"]["type"] == "requires_action":
                (left,) = events[-1]["stop_reason"]["event_ids"]
                await raw.send_events(session, allow(left))
                events += await reader.until("session.status_idle")
        assert events[-1]["stop_reason"] == {"type": "end_turn"}, plain(events, "session.error")
        check_events(await raw.events(session))
        return events

    (one,) = waiting["allow"][1]
    allowed = await answer("allow", allow(one))
    assert not plain(allowed, "agent.tool_use"), "the call keeps the id under which it was asked"
    (result,) = plain(allowed, "agent.tool_result")
    assert (result["tool_use_id"], result["is_error"]) == (one, False)
    assert result["content"][0]["text"] == "ran\n", "it really ran, and once"

    (two,) = waiting["deny"][1]
    denied = await answer("deny", deny(two, "not today"))
    (result,) = plain(denied, "agent.tool_result")
    assert (result["tool_use_id"], result["is_error"]) == (two, True)
    assert "not today" in result["content"][0]["text"]
    assert text_of(denied)

    (three,) = waiting["custom"][1]
    told = await answer("custom", custom_result(three, "a fruit of autumn"))
    assert "a fruit of autumn" in text_of(told), "the model was told"
    assert not plain(told, "agent.custom_tool_use")

    shell, lookup = waiting["both"][1]
    both = await answer("both", custom_result(lookup, "also a fruit"))
    (result,) = plain(both, "agent.tool_result")
    assert (result["tool_use_id"], result["content"][0]["text"]) == (shell, "half\n")
    assert any("also a fruit" in str(r.body) for r in gateway.requests), "the model was told"

    no, yes = waiting["mixed"][1]
    mixed = await answer("mixed", deny(no))
    results = {e["tool_use_id"]: e["content"][0]["text"] for e in plain(mixed, "agent.tool_result")}
    assert results.keys() == {no, yes}
    assert results[yes] == "yes\n"


async def test_waiting_calls_survive_a_restart_of_the_sidecar(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """Stopped and started on the same data dir: everything waits on, answers and interrupts still count."""
    settings = make_settings(tmp_path, gateway.url, child={"drain_seconds": 1.0})
    async with sidecar_for(settings) as sidecar, live_client(sidecar) as raw:
        waiting = await _open_all(raw)
        interrupted = await raw.new_session(tools=[ASKING])
        async with raw.stream(interrupted) as reader:
            await ask(raw, reader, interrupted, "[[bash: echo never]]")
            await raw.send(interrupted, "[[say: queued before the restart]]")
    async with sidecar_for(settings) as sidecar, live_client(sidecar) as raw:
        await _answer_all(raw, waiting, gateway)
        async with raw.stream(interrupted) as reader:
            await raw.send_events(
                interrupted, {"type": "user.interrupt"}, user_message("[[say: after]]")
            )
            events = await reader.until("session.status_idle", count=3)
        assert plain(events, "agent.tool_result")[0]["is_error"] is True
        assert [e["content"][0]["text"] for e in plain(events, "agent.message")] == [
            "queued before the restart",
            "after",
        ]
        check_events(await raw.events(interrupted))


async def test_waiting_calls_survive_the_death_of_the_child(
    gateway: DemoGateway, tmp_path: Path
) -> None:
    """SIGKILL of opencode while sessions wait is no event for their clients; the answers still count."""
    settings = make_settings(
        tmp_path, gateway.url, child={"drain_seconds": 1.0, "restart_first_delay_seconds": 0.1}
    )
    async with sidecar_for(settings) as sidecar, live_client(sidecar) as raw:
        waiting = await _open_all(raw)
        assert sidecar.supervisor.pid is not None
        boot = sidecar.supervisor.boot
        is_noticed = asyncio.Event()
        sidecar.supervisor.on_state_change(lambda _state, _boot: is_noticed.set())
        os.kill(sidecar.supervisor.pid, signal.SIGKILL)
        await is_noticed.wait()
        await _answer_all(raw, waiting, gateway)
        assert sidecar.supervisor.boot == boot + 1
