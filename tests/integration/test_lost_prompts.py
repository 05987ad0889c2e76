"""Prompts that the child loses: sent again when nothing came of them, and never when something did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.managed.turns import Turns
from sidecar.store.database import Database
from tests.fakes.fated_child import Fate, FatedChild, history, make_turns, send
from tests.harness import text_of, types_of, user_message
from tests.integration.test_turn_engine import new_session


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "db.sqlite", synchronous="NORMAL")
    await opened.open()
    yield opened
    await opened.close()


async def run_turn(database: Database, child: FatedChild) -> list[dict[str, Any]]:
    """Send one message and return the turn's events."""
    session_id = await new_session(database)
    turns = make_turns(database, child)
    await send(turns, session_id, user_message("go"))
    turn = (await turns.actor(session_id)).turn
    assert turn is not None
    await turn.done.wait()
    await turns.drain(0.1)
    return await history(database, session_id)


@pytest.mark.parametrize("fate", ["unreachable", "drops", "dies"])
async def test_a_prompt_that_came_to_nothing_is_sent_again(database: Database, fate: Fate) -> None:
    """Same message id, in a directory that was loaded anew; the client sees one clean turn."""
    child = FatedChild(fate, "answers")
    events = await run_turn(database, child)
    assert text_of(events) == "here"
    assert "session.error" not in types_of(events)
    assert types_of(events).count("session.status_idle") == 1
    assert len(child.prompts) == 2
    assert len(set(child.prompts)) == 1
    assert child.reloads == [False, True]


@pytest.mark.parametrize("fate", ["unreachable", "drops", "dies"])
async def test_it_is_sent_twice_at_most(database: Database, fate: Fate) -> None:
    """A child that loses it again may be dying of it: the turn ends with an error."""
    child = FatedChild(fate, fate)
    events = await run_turn(database, child)
    assert len(child.prompts) == 2
    assert types_of(events).count("session.error") == 1
    assert events[-1]["stop_reason"] == {"type": "retries_exhausted"}


async def test_a_prompt_that_was_worked_on_is_not_sent_again(database: Database) -> None:
    """Tools may have run: the turn is cut, with an error."""
    child = FatedChild("dies working")
    events = await run_turn(database, child)
    assert len(child.prompts) == 1
    assert types_of(events).count("session.error") == 1


async def test_a_prompt_that_was_taken_after_all_is_not_sent_again(database: Database) -> None:
    """The request failed and the prompt had arrived: opencode is stopped and the turn is cut."""
    child = FatedChild("unreachable", has_taken=True)
    events = await run_turn(database, child)
    assert len(child.prompts) == 1
    assert child.aborts == 1
    assert types_of(events).count("session.error") == 1


async def test_an_idle_of_the_turn_before_ends_nothing(database: Database) -> None:
    """After an abort opencode says idle twice; the second may come after the next prompt."""
    child = FatedChild("idle of before")
    events = await run_turn(database, child)
    assert text_of(events) == "here"
    assert len(child.prompts) == 1


async def lose_one(database: Database, child: FatedChild) -> tuple[str, Turns]:
    """Start a turn whose prompt is lost, and that waits for the next boot of the child."""
    child.is_back.clear()
    session_id, turns = await new_session(database), make_turns(database, child)
    await send(turns, session_id, user_message("go"))
    async with asyncio.timeout(5):
        while len(child.reloads) < 2:
            await asyncio.sleep(0.01)
    return session_id, turns


async def test_a_lost_prompt_that_is_interrupted_is_neither_sent_again_nor_left_running(
    database: Database,
) -> None:
    """Nobody knows whether it was taken: the child is told to stop whatever it does."""
    child = FatedChild("unreachable")
    session_id, turns = await lose_one(database, child)
    turn = (await turns.actor(session_id)).turn
    assert turn is not None
    await send(turns, session_id, {"type": "user.interrupt"})
    await turn.done.wait()
    await turns.drain(0.1)
    events = await history(database, session_id)
    assert events[-1]["stop_reason"] == {"type": "end_turn"}
    assert (len(child.prompts), child.aborts) == (1, 1)


async def test_a_lost_prompt_is_not_sent_by_the_next_start(database: Database) -> None:
    """It may have been taken, and its tools may have run: the turn is cut."""
    child = FatedChild("unreachable")
    session_id, turns = await lose_one(database, child)
    await turns.drain(0.1)
    assert child.aborts == 1

    again = FatedChild("answers")
    after = make_turns(database, again)
    await after.recover()
    async with asyncio.timeout(5):
        while "session.error" not in types_of(await history(database, session_id)):
            await asyncio.sleep(0.01)
    await after.drain(0.1)
    assert again.prompts == []


async def test_a_prompt_that_was_never_sent_is_sent_by_the_next_start(database: Database) -> None:
    """The sidecar is stopped while it waits for the child: nothing is lost."""
    child = FatedChild()
    child.is_back.clear()
    child.is_first_boot_ready = False
    session_id, turns = await new_session(database), make_turns(database, child)
    await send(turns, session_id, user_message("go"))
    async with asyncio.timeout(5):
        while not child.reloads:
            await asyncio.sleep(0.01)
    await turns.drain(0.1)
    assert child.prompts == []

    again = FatedChild("answers")
    after = make_turns(database, again)
    await after.recover()
    async with asyncio.timeout(5):
        while "session.status_idle" not in types_of(await history(database, session_id)):
            await asyncio.sleep(0.01)
    await after.drain(0.1)
    assert text_of(await history(database, session_id)) == "here"
