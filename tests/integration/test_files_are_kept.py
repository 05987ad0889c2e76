"""Files are kept before a pause or an end is shown; only the turn itself waits for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.managed.sessions.engine import SessionEngine
from sidecar.store.interface import Store
from tests.fakes.scripted_child import ScriptedChild, history, make_engine, new_session, send
from tests.harness import types_of, user_message
from tests.stores import ENGINES, open_store
from tests.waiting import patience, until


class Files:
    """Keeps files when it is allowed to."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.begun = self.ended = 0

    async def save(self, _session_id: str, _last_seq: int) -> None:
        """Take until it may end."""
        self.begun += 1
        await self.may_end.wait()
        self.ended += 1


@pytest.fixture(params=ENGINES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(request, tmp_path) as opened:
        yield opened


class Turn:
    """A turn whose model has called the client's tool, and whose files are just being kept."""

    def __init__(self, database: Store, engine: SessionEngine, child: ScriptedChild) -> None:
        self.database = database
        self.engine = engine
        self.child = child
        self.files = Files()
        self.session_id = ""

    async def events(self) -> list[dict[str, Any]]:
        """Return what is in the log."""
        return await history(self.database, self.session_id)

    async def answer(self) -> None:
        """Answer the call as the client does."""
        (call,) = [e for e in await self.events() if e["type"] == "agent.custom_tool_use"]
        answer = {"type": "user.custom_tool_result", "custom_tool_use_id": call["id"]}
        await send(self.engine, self.session_id, answer)

    async def types(self, last: str) -> list[str]:
        """Wait for the last event; return the types of all."""

        async def is_there() -> bool:
            return types_of(await self.events())[-1] == last

        await until(is_there)
        return types_of(await self.events())


@pytest.fixture
async def turn(database: Store) -> Turn:
    child, files = ScriptedChild("calls"), Files()
    engine = make_engine(database, child, save_files=files.save)
    made = Turn(database, engine, child)
    made.files, made.session_id = files, await new_session(database)
    await send(engine, made.session_id, user_message("go"))
    await until(lambda: files.begun)
    return made


async def test_a_pause_is_shown_when_the_files_are_kept(turn: Turn) -> None:
    """Not before: what a client saw can be had on another pod. The call itself is shown at once."""
    types = types_of(await turn.events())
    assert "agent.custom_tool_use" in types
    assert "session.status_idle" not in types
    turn.files.may_end.set()
    await turn.types("session.status_idle")
    assert (await turn.events())[-1]["stop_reason"]["type"] == "requires_action"
    assert turn.files.ended == 1


async def test_an_answer_in_the_meantime_is_taken_at_once(turn: Turn) -> None:
    """It is stored while the files are being kept, and no pause is shown that is over."""
    async with patience():
        await turn.answer()
    assert types_of(await turn.events())[-1] == "user.custom_tool_result"
    assert turn.files.ended == 0
    turn.files.may_end.set()
    await until(lambda: turn.files.ended)
    (prompt,) = turn.child.prompts
    turn.child.end_call()
    turn.child.finish(prompt)
    types = await turn.types("session.status_idle")
    assert types.count("session.status_idle") == 1
    assert (await turn.events())[-1]["stop_reason"]["type"] == "end_turn"


async def test_an_interrupt_in_the_meantime_is_taken_at_once(turn: Turn) -> None:
    """The turn ends once, and did not pause before."""
    async with patience():
        await send(turn.engine, turn.session_id, {"type": "user.interrupt"})
    assert turn.files.ended == 0
    turn.files.may_end.set()
    types = await turn.types("session.status_idle")
    assert types.count("session.status_idle") == 1
    assert (await turn.events())[-1]["stop_reason"]["type"] == "end_turn"
    assert turn.child.aborts


async def test_a_stop_in_the_meantime_leaves_a_turn_that_waits(turn: Turn) -> None:
    """Another pod finds a call to be answered, not a turn to be cut."""
    with capture_logs() as logs:
        draining = asyncio.create_task(turn.engine.drain(0.0))
        await until(lambda: "turns cut by the drain bound" in {entry["event"] for entry in logs})
    turn.files.may_end.set()
    async with patience():
        await draining
    assert (await turn.events())[-1]["stop_reason"]["type"] == "requires_action"
    assert (await turn.engine.record(turn.session_id)).is_waiting
