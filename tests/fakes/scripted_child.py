"""An opencode that does with each prompt what fate says, and the turns that run on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from pydantic import TypeAdapter

from sidecar.config import TurnSettings
from sidecar.errors import ChildUnavailableError
from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions.actor import SaveFiles
from sidecar.managed.sessions.engine import SessionEngine
from sidecar.managed.sessions.event_list import EventQuery
from sidecar.managed.sessions.table import insert_session
from sidecar.managed.turns.inputs import ChildLost
from sidecar.managed.turns.state import SessionRecord
from sidecar.opencode.custom_tools import CustomTools
from sidecar.store.interface import Store
from sidecar.tracing import PassingTracer
from sidecar.wire.opencode_events import ChildEvent
from sidecar.wire.sessions import ClientEvent
from tests.event_lists import list_events
from tests.turn_player import new_record
from tests.waiting import PATIENCE_SECONDS

EVENTS: TypeAdapter[ClientEvent] = TypeAdapter(ClientEvent)

_CALL = {"id": "prt_c", "type": "tool", "callID": "call_1", "tool": "custom_lookup"}
Fate = Literal["unreachable", "dies", "answers", "works on", "calls"]


class ScriptedChild:
    """Does with each prompt what fate says; stands for `ChildSessions` and the `ChildSession` it opens."""

    def __init__(self, *fates: Fate, has_taken: bool = False) -> None:
        self._fates = list(fates)
        self._has_taken = has_taken
        self.session_id = new_id("ses")
        self.prompt_wait_seconds = PATIENCE_SECONDS
        self.tell: Callable[[Any], None] = lambda _item: None
        self.prompts: list[str] = []
        self.reloads: list[bool] = []
        self.aborts = 0
        self.is_back = asyncio.Event()
        """Whether the boot after a loss is ready."""
        self.is_back.set()
        self.is_first_boot_ready = True
        self._taken: set[str] = set()

    async def has_turns(self, _boot: Any, **_excluded: Any) -> bool:
        return False

    async def prepare_directory(self, _record: SessionRecord) -> list[Any]:
        return []

    @asynccontextmanager
    async def open(
        self,
        _record: SessionRecord,
        sink: Any,
        *,
        wait_seconds: float,
        is_reloaded: bool,
        **_lost: Any,
    ) -> AsyncIterator[ScriptedChild]:
        assert 0 < wait_seconds <= self.prompt_wait_seconds
        self.reloads.append(is_reloaded)
        if is_reloaded or not self.is_first_boot_ready:
            await self.is_back.wait()
        self._sink = sink
        yield self

    async def prompt(self, *, message_id: str, **_rest: Any) -> None:
        self.prompts.append(message_id)
        fate = self._fates.pop(0)
        if fate not in {"unreachable", "dies"}:
            self._taken.add(message_id)
        if fate == "unreachable":
            raise ChildUnavailableError("opencode did not answer")
        self._echo(message_id)
        self._status("busy")
        if fate == "dies":
            self.tell(ChildLost("died"))
            return
        if fate == "works on":
            return
        if fate == "calls":
            self._call(message_id)
            return
        self.finish(message_id)

    def finish(self, message_id: str) -> None:
        """Answer a prompt and go idle."""
        self._answer(message_id)
        self._status("idle")

    async def abort(self, _record: SessionRecord | None = None) -> None:
        self.aborts += 1
        self._status("idle")

    async def forget(self, _record: SessionRecord) -> None:
        """Nothing is kept."""

    async def is_busy(self) -> bool:
        return False

    async def has_taken(self, message_id: str) -> bool:
        return self._has_taken or message_id in self._taken

    def _say(self, type_: str, **properties: Any) -> None:
        self._sink(ChildEvent(type_, properties, None, self.session_id, self.session_id))

    def _echo(self, message_id: str) -> None:
        self._say("message.updated", info={"id": message_id, "role": "user"})

    def _status(self, type_: str) -> None:
        self._say("session.status", status={"type": type_})

    def _call(self, message_id: str) -> None:
        """Call the client's tool, and say nothing more."""
        info = {"id": "msg_c", "role": "assistant", "parentID": message_id}
        self._say("message.updated", info=info)
        for part in (
            {"id": "prt_s", "type": "step-start"},
            {**_CALL, "state": {"status": "running", "input": {"word": "hey"}}},
        ):
            self._say("message.part.updated", part={"messageID": "msg_c", **part})

    def end_call(self) -> None:
        """Tell that the client's tool has answered."""
        state = {"status": "completed", "input": {"word": "hey"}, "output": "hey!"}
        for part in (
            {**_CALL, "state": state},
            {"id": "prt_e", "type": "step-finish", "reason": "tool-calls", "tokens": {"input": 1}},
        ):
            self._say("message.part.updated", part={"messageID": "msg_c", **part})

    def _answer(self, message_id: str) -> None:
        info = {"id": "msg_a", "role": "assistant", "parentID": message_id}
        self._say("message.updated", info=info)
        for part in (
            {"id": "prt_1", "type": "step-start"},
            {"id": "prt_2", "type": "text", "text": "here", "time": {"start": 1, "end": 2}},
            {"id": "prt_3", "type": "step-finish", "reason": "stop", "tokens": {"input": 1}},
        ):
            self._say("message.part.updated", part={"messageID": "msg_a", **part})


def make_engine(
    database: Store,
    child: ScriptedChild,
    *,
    save_files: SaveFiles | None = None,
    **settings: Any,
) -> SessionEngine:
    """Return the engine over that child."""
    as_child_sessions: Any = child
    engine = SessionEngine(
        database=database,
        save_files=save_files,
        log=EventLog(database=database),
        child_sessions=as_child_sessions,
        custom_tools=CustomTools(),
        modalities_of=lambda _model: None,
        settings=TurnSettings(**settings),
        tracer=PassingTracer(),
    )
    child.tell = lambda item: engine.tell(child.session_id, item)
    return engine


async def new_session(database: Store) -> str:
    """Store a session that does nothing; return its id."""
    record = new_record(id=new_id("sesn"), thread_id=new_id("sthr"), created_at=timestamps.now())
    await database.write(lambda connection: insert_session(connection, record))
    return record.id


async def send(engine: SessionEngine, session_id: str, *events: dict[str, Any]) -> None:
    """Send events as a client would."""
    await engine.send(session_id, [EVENTS.validate_python(event) for event in events])


async def history(database: Store, session_id: str) -> list[dict[str, Any]]:
    """Return the session's events."""
    return list((await list_events(database, session_id, EventQuery()))["data"])
