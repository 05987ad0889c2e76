"""Prompts that the child loses: sent again when nothing came of them, and never when something did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from sidecar.config import TurnSettings
from sidecar.errors import ChildUnavailableError
from sidecar.ids import new_id
from sidecar.managed.custom_tools import CustomTools
from sidecar.managed.event_log import EventLog
from sidecar.managed.history import EventQuery, list_events
from sidecar.managed.records import SessionRecord
from sidecar.managed.turn_items import ChildLost, RequestStarted
from sidecar.managed.turns import Turns
from sidecar.opencode.events import ChildEvent
from sidecar.store.database import Database
from sidecar.tracing import PassingTracer
from tests.harness import text_of, types_of, user_message
from tests.integration.test_turn_engine import EVENTS, new_session

Fate = Literal["unreachable", "drops", "dies", "dies working", "answers", "idle of before"]


class FakeChild:
    """Does with each prompt what fate says; stands for `ChildSessions` and the `ChildSession` it opens."""

    def __init__(self, *fates: Fate, has_taken: bool = False) -> None:
        self._fates = list(fates)
        self._has_taken = has_taken
        self.session_id = new_id("ses")
        self.prompt_wait_seconds = 5.0
        self.tell: Callable[[Any], None] = lambda _item: None
        self.prompts: list[str] = []
        self.reloads: list[bool] = []
        self.aborts = 0

    async def prepare_directory(self, _record: SessionRecord) -> list[Any]:
        return []

    @asynccontextmanager
    async def open(
        self, _record: SessionRecord, sink: Any, *, wait_seconds: float, is_reloaded: bool
    ) -> AsyncIterator[FakeChild]:
        assert 0 < wait_seconds <= self.prompt_wait_seconds
        self.reloads.append(is_reloaded)
        self._sink = sink
        yield self

    async def prompt(self, *, message_id: str, **_rest: Any) -> None:
        self.prompts.append(message_id)
        fate = self._fates.pop(0)
        if fate == "unreachable":
            raise ChildUnavailableError("opencode did not answer")
        if fate == "idle of before":
            self._echo(message_id)
            self._status("idle")
            fate = "answers"
        self._echo(message_id)
        self._status("busy")
        if fate == "dies working":
            self.tell(RequestStarted("req_1"))
        if fate in {"dies", "dies working"}:
            self.tell(ChildLost("died"))
            return
        if fate == "answers":
            self._answer(message_id)
        self._status("idle")

    async def abort(self) -> None:
        self.aborts += 1

    async def is_busy(self) -> bool:
        return False

    async def has_taken(self, _message_id: str) -> bool:
        return self._has_taken

    def _say(self, type_: str, **properties: Any) -> None:
        self._sink(ChildEvent(type_, properties, None, self.session_id, self.session_id))

    def _echo(self, message_id: str) -> None:
        self._say("message.updated", info={"id": message_id, "role": "user"})

    def _status(self, type_: str) -> None:
        self._say("session.status", status={"type": type_})

    def _answer(self, message_id: str) -> None:
        info = {"id": "msg_a", "role": "assistant", "parentID": message_id}
        self._say("message.updated", info=info)
        for part in (
            {"id": "prt_1", "type": "step-start"},
            {"id": "prt_2", "type": "text", "text": "here", "time": {"start": 1, "end": 2}},
            {"id": "prt_3", "type": "step-finish", "reason": "stop", "tokens": {"input": 1}},
        ):
            self._say("message.part.updated", part={"messageID": "msg_a", **part})


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database(tmp_path / "db.sqlite", synchronous="NORMAL")
    await opened.open()
    yield opened
    await opened.close()


async def run_turn(database: Database, child: FakeChild) -> list[dict[str, Any]]:
    """Send one message and return the turn's events."""
    session_id = await new_session(database)
    as_child_sessions: Any = child
    turns = Turns(
        database=database,
        log=EventLog(database=database),
        child_sessions=as_child_sessions,
        custom_tools=CustomTools(),
        modalities_of=lambda _model: None,
        settings=TurnSettings(),
        tracer=PassingTracer(),
    )
    child.tell = lambda item: turns.tell(child.session_id, item)
    actor = await turns.actor(session_id)
    await turns.send(session_id, [EVENTS.validate_python(user_message("go"))])
    assert actor.turn is not None
    await actor.turn.done.wait()
    await turns.drain(0.1)
    listed = await list_events(database, session_id, EventQuery())
    return list(listed["data"])


@pytest.mark.parametrize("fate", ["unreachable", "drops", "dies"])
async def test_a_prompt_that_came_to_nothing_is_sent_again(database: Database, fate: Fate) -> None:
    """Same message id, in a directory that was loaded anew; the client sees one clean turn."""
    child = FakeChild(fate, "answers")
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
    child = FakeChild(fate, fate)
    events = await run_turn(database, child)
    assert len(child.prompts) == 2
    assert types_of(events).count("session.error") == 1
    assert events[-1]["stop_reason"] == {"type": "retries_exhausted"}


async def test_a_prompt_that_was_worked_on_is_not_sent_again(database: Database) -> None:
    """Tools may have run: the turn is cut, with an error."""
    child = FakeChild("dies working")
    events = await run_turn(database, child)
    assert len(child.prompts) == 1
    assert types_of(events).count("session.error") == 1


async def test_a_prompt_that_was_taken_after_all_is_not_sent_again(database: Database) -> None:
    """The request failed and the prompt had arrived: opencode is stopped and the turn is cut."""
    child = FakeChild("unreachable", has_taken=True)
    events = await run_turn(database, child)
    assert len(child.prompts) == 1
    assert child.aborts == 1
    assert types_of(events).count("session.error") == 1


async def test_an_idle_of_the_turn_before_ends_nothing(database: Database) -> None:
    """After an abort opencode says idle twice; the second may come after the next prompt."""
    child = FakeChild("idle of before")
    events = await run_turn(database, child)
    assert text_of(events) == "here"
    assert len(child.prompts) == 1
