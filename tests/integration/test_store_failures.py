"""The store fails for a while, as under another program's lock: nothing accepted is lost or run twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from structlog.testing import capture_logs

from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.turns.state import TurnEnded
from sidecar.model_requests import ModelRequestStarted
from sidecar.store.interface import Connection, Store, StoreError
from tests.fakes.scripted_child import ScriptedChild, history, make_engine, new_session, send
from tests.harness import text_of, types_of, user_message
from tests.stores import ENGINES, open_store
from tests.waiting import PATIENCE_SECONDS, until

T = TypeVar("T")


class FlakyStore:
    """A store that answers nothing while `is_failing`, and takes nothing while `is_full`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_failing = False
        self.is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, job: Callable[[Connection], T]) -> T:
        """Write, or raise what a locked database raises."""
        self._check()
        if self.is_full:
            raise StoreError("database or disk is full")
        return await self._store.write(job)

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Read, likewise."""
        self._check()
        return await self._store.read(job)

    def _check(self) -> None:
        if self.is_failing:
            raise StoreError("database is locked")


@pytest.fixture(params=ENGINES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FlakyStore]:
    async with open_store(request, tmp_path) as opened:
        yield FlakyStore(opened)


async def until_idle(database: Store, session_id: str, count: int) -> list[dict[str, Any]]:
    """Wait for that many turns to end; return the session's events."""

    async def ended() -> list[dict[str, Any]]:
        events = await history(database, session_id)
        return events if types_of(events).count("session.status_idle") == count else []

    return await until(ended)


async def started(engine: SessionEngine, session_id: str, child: ScriptedChild) -> None:
    """Wait until the child has the prompt."""
    await until(lambda: child.prompts)


async def test_a_send_that_cannot_be_stored_leaves_the_running_turn_its_session(
    database: FlakyStore,
) -> None:
    """The refused message is gone, the turn ends once, and what is sent later is processed in order."""
    child = ScriptedChild("works on", "answers")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, user_message("first"))
    await started(engine, session_id, child)

    database.is_failing = True
    with pytest.raises(StoreError):
        await send(engine, session_id, user_message("refused"))
    database.is_failing = False
    await send(engine, session_id, user_message("second"))
    child.finish(child.prompts[0])
    events = await until_idle(database, session_id, 2)
    await engine.drain(0.1)

    said = [e["content"][0]["text"] for e in events if e["type"] == "user.message"]
    assert said == ["first", "second"]
    assert text_of(events) == "herehere"
    assert "session.error" not in types_of(events)


async def test_a_turn_whose_end_cannot_be_stored_ends_when_it_can(database: FlakyStore) -> None:
    """It has exactly one end, an error; a message that waits is processed after it."""
    child = ScriptedChild("works on", "answers")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, user_message("first"))
    await started(engine, session_id, child)
    await send(engine, session_id, user_message("second"))
    turn = (await engine.live.actor(session_id)).turn
    assert turn is not None

    database.is_failing = True
    child.finish(child.prompts[0])
    await turn.done.wait()
    with pytest.raises(StoreError):
        await send(engine, session_id, user_message("refused"))
    database.is_failing = False
    events = await until_idle(database, session_id, 2)
    await engine.drain(0.1)

    assert types_of(events).count("session.error") == 1
    assert text_of(events) == "here"
    said = [e["content"][0]["text"] for e in events if e["type"] == "user.message"]
    assert said == ["first", "second"]


async def test_a_turn_is_not_begun_again_while_the_disk_is_full(database: FlakyStore) -> None:
    """Its work can be read, not written: the child is left alone until the error can be stored."""
    child = ScriptedChild("works on")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, user_message("first"))
    await started(engine, session_id, child)
    database.is_full = True
    with capture_logs() as logs:
        child.tell(ModelRequestStarted("req_1"))
        await until(lambda: any(line["event"] == "store still failing" for line in logs))
    assert child.reloads == [False]
    database.is_full = False
    events = await until_idle(database, session_id, 1)
    await engine.drain(0.1)
    (error,) = (e["error"] for e in events if e["type"] == "session.error")
    assert "the sidecar's store failed" in error["message"]
    assert len(child.prompts) == 1


async def test_an_archive_that_cannot_be_stored_did_not_happen(database: FlakyStore) -> None:
    """The session goes on as before."""
    child = ScriptedChild("answers")
    engine, session_id = make_engine(database, child), await new_session(database)
    actor = await engine.live.actor(session_id)
    database.is_failing = True
    with pytest.raises(StoreError):
        async with engine.live.holding(session_id):
            await actor.terminate()
    database.is_failing = False
    await send(engine, session_id, user_message("still here?"))
    events = await until_idle(database, session_id, 1)
    await engine.drain(0.1)
    assert text_of(events) == "here"


async def test_recovery_waits_for_the_store_and_one_session_does_not_stop_the_others(
    database: FlakyStore,
) -> None:
    """Sessions that an earlier process left running are settled one by one, as soon as it is possible."""
    before = make_engine(database, ScriptedChild("works on", "works on", "works on"))
    sessions = [await new_session(database) for _ in range(3)]
    for session_id in sessions:
        await send(before, session_id, user_message("cut"))
    for session_id in sessions:
        turn = (await before.live.actor(session_id)).turn
        assert turn is not None
        await until(lambda: not turn.is_preparing)  # noqa: B023  # called at once
    await before._tasks.close()  # as SIGKILL would: nothing is settled

    after = make_engine(database, ScriptedChild())
    database.is_failing = True
    with capture_logs() as logs:
        recovering = asyncio.create_task(after.recover())
        await until(lambda: any(line["event"] == "store failing at recovery" for line in logs))
    database.is_failing = False
    await recovering
    await database.write(lambda c: c.execute("DELETE FROM sessions WHERE id = ?", sessions[:1]))
    for session_id in sessions[1:]:
        events = await until_idle(database, session_id, 1)
        assert types_of(events).count("session.error") == 1
    await after.drain(0.1)


async def test_a_message_never_overtakes_those_that_wait(database: FlakyStore) -> None:
    """What arrives while the sidecar drains goes behind what is queued; the next start keeps the order."""
    child = ScriptedChild("works on")
    engine, session_id = make_engine(database, child), await new_session(database)
    await send(engine, session_id, user_message("first"))
    await started(engine, session_id, child)
    await send(engine, session_id, user_message("second"))
    draining = asyncio.create_task(engine.drain(PATIENCE_SECONDS))
    actor = await engine.live.actor(session_id)
    await until(lambda: not actor.may_start())
    child.finish(child.prompts[0])
    await until_idle(database, session_id, 1)
    await send(engine, session_id, user_message("third"))
    await draining
    assert len(child.prompts) == 1

    again = ScriptedChild("answers", "answers")
    after = make_engine(database, again)
    await after.recover()
    events = await until_idle(database, session_id, 3)
    await after.drain(1)
    said = [e["content"][0]["text"] for e in events if e["type"] == "user.message"]
    assert said == ["first", "second", "third"]


async def test_an_observer_that_raises_at_the_end_of_a_turn_does_not_stop_the_next(
    database: FlakyStore,
) -> None:
    """A metric with a bug is logged; the queued message is processed."""
    child = ScriptedChild("works on", "answers")
    engine, session_id = make_engine(database, child), await new_session(database)

    def broken(_ended: TurnEnded) -> None:
        raise RuntimeError("a metric with a bug")

    engine.on_turn_end(broken)
    await send(engine, session_id, user_message("first"))
    await started(engine, session_id, child)
    await send(engine, session_id, user_message("second"))
    child.finish(child.prompts[0])
    events = await until_idle(database, session_id, 2)
    await engine.drain(0.1)
    assert text_of(events) == "herehere"


async def test_a_row_is_changed_under_its_lock_only(database: FlakyStore) -> None:
    """By the task that holds it: neither without it, nor while another task does."""
    engine, session_id = make_engine(database, ScriptedChild()), await new_session(database)
    actor = await engine.live.actor(session_id)
    with pytest.raises(AssertionError, match="needs its lock"):
        await actor.commit([])
    async with actor.hold():
        other = asyncio.create_task(actor.commit([]))
        with pytest.raises(AssertionError, match="needs its lock"):
            await other
        await actor.commit([])
    await engine.drain(0.1)
