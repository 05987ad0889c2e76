"""Turns that wait for a place in opencode: in order, interruptible, and refused when too many wait."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.errors import OverloadedError
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.store.interface import Store
from tests.event_rules import check_events
from tests.fakes.scripted_child import ScriptedChild, history, make_engine, new_session, send
from tests.harness import text_of, types_of, user_message
from tests.waiting import PATIENCE_SECONDS, patience, until


async def _until_idle(engine: SessionEngine, session_id: str) -> None:
    turn = (await engine.live.actor(session_id)).turn
    if turn is not None:
        async with patience():
            await turn.done.wait()


async def _one_runs_one_waits(
    database: Store, child: ScriptedChild, **settings: int
) -> tuple[SessionEngine, str, str]:
    engine = make_engine(database, child, max_running=1, **settings)
    first, second = await new_session(database), await new_session(database)
    await send(engine, first, user_message("go"))
    await until(lambda: len(child.prompts) == 1)
    await send(engine, second, user_message("go"))
    await until(lambda: engine.places.waiting == 1)
    return engine, first, second


async def test_a_turn_without_a_place_waits_and_then_runs(database: Store) -> None:
    """opencode is asked for nothing meanwhile, not even to load its directory."""
    child = ScriptedChild("works on", "answers")
    engine, first, second = await _one_runs_one_waits(database, child)
    assert (len(child.prompts), len(child.reloads)) == (1, 1)
    assert (engine.live.busy_count, engine.live.prompted_count) == (2, 1)
    assert types_of(await history(database, second))[:2] == [
        "user.message",
        "session.status_running",
    ]
    child.finish(child.prompts[0])
    await _until_idle(engine, first)
    await _until_idle(engine, second)
    await engine.drain(0.1)
    for session_id in (first, second):
        events = await history(database, session_id)
        check_events(events)
        assert text_of(events) == "here"
    assert (engine.places.taken, engine.places.waiting) == (0, 0)


async def test_an_interrupt_ends_a_turn_that_waits(database: Store) -> None:
    """It is never sent, and nothing of it stays in the line."""
    child = ScriptedChild("works on")
    engine, first, second = await _one_runs_one_waits(database, child)
    await send(engine, second, {"type": "user.interrupt"})
    await _until_idle(engine, second)
    events = await history(database, second)
    check_events(events)
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert engine.places.waiting == 0
    child.finish(child.prompts[0])
    await _until_idle(engine, first)
    await engine.drain(0.1)
    assert len(child.prompts) == 1


async def test_a_turn_that_waits_survives_a_stop(database: Store) -> None:
    """The drain does not wait for it, and the next start runs it."""
    child = ScriptedChild("works on")
    engine, first, second = await _one_runs_one_waits(database, child)
    draining = asyncio.create_task(engine.drain(PATIENCE_SECONDS))
    child.finish(child.prompts[0])
    await draining
    assert "session.status_idle" not in types_of(await history(database, second))
    again = make_engine(database, ScriptedChild("answers"), max_running=1)
    await again.recover()

    async def is_over() -> bool:
        return "session.status_idle" in types_of(await history(database, second))

    await until(is_over)
    await again.drain(0.1)
    check_events(await history(database, first))
    check_events(await history(database, second))
    assert text_of(await history(database, second)) == "here"


async def test_when_too_many_wait_a_message_is_refused_whole(database: Store) -> None:
    """Nothing of it is stored; what waits behind a running turn of its own session is still taken."""
    child = ScriptedChild("works on", "answers", "answers", "answers")
    engine, first, second = await _one_runs_one_waits(database, child, max_waiting=1)
    third = await new_session(database)
    with pytest.raises(OverloadedError) as caught:
        await send(engine, third, user_message("go"))
    assert (caught.value.status, caught.value.type) == (529, "overloaded_error")
    assert await history(database, third) == []
    await send(engine, first, user_message("and then"))
    child.finish(child.prompts[0])
    for session_id in (first, second, first):
        await _until_idle(engine, session_id)
    await send(engine, third, user_message("go"))
    await _until_idle(engine, third)
    await engine.drain(0.1)
    assert text_of(await history(database, first)) == "herehere"
    assert text_of(await history(database, third)) == "here"
