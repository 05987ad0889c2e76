"""The turns of all sessions: accepts events, starts turns, routes inputs, recovers, drains."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from sidecar.aiokit import Backoff, Callbacks, TaskOwner
from sidecar.cluster.ownership import OwnedElsewhereError, Ownership, OwnershipLostError
from sidecar.config import TurnSettings
from sidecar.errors import NotFoundError, OwnerUnavailableError
from sidecar.ids import new_id
from sidecar.managed.child.places import TurnPlaces
from sidecar.managed.child.sessions import ChildSessions
from sidecar.managed.child.worker import Prompt
from sidecar.managed.events.event import LONG_CHARS
from sidecar.managed.events.log import EventLog
from sidecar.managed.sessions import acceptance, recovery
from sidecar.managed.sessions.acceptance import ModalitiesOf
from sidecar.managed.sessions.actor import SaveFiles, SessionActor
from sidecar.managed.sessions.live import LiveSessions
from sidecar.managed.sessions.table import (
    StoredSession,
    select_accepted,
    select_session,
    select_stored,
    turn_events,
)
from sidecar.managed.sessions.turn_runner import TurnRunner
from sidecar.managed.sessions.turn_spans import TurnTraces
from sidecar.managed.turns.continuation import Continuation
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.inputs import Dismissed, Draining, Input, Stopping, Violation
from sidecar.managed.turns.machine import TurnMachine
from sidecar.managed.turns.state import AcceptedEvent, SessionRecord, TurnEnded
from sidecar.managed.turns.timing import Limits
from sidecar.model_requests import ModelRequestEnded, ModelRequestStarted
from sidecar.opencode.boot import Boot
from sidecar.opencode.custom_tools import CustomTools
from sidecar.store.interface import Connection, Store, StoreError
from sidecar.tracing import Tracer, set_current_traceparent
from sidecar.wire.json_writing import json_size
from sidecar.wire.opencode_events import ChildGap
from sidecar.wire.sessions import ClientEvent

_DRAIN_POLL_SECONDS = 0.1
_RECOVERY_TEXT = "the sidecar was restarted while the turn ran; the turn was cut"
_FILES_TEXT = "what it changed in files is lost with the pod that had them"

_log = structlog.get_logger(__name__)


class SessionEngine:
    """The owner of every turn. `live` has the sessions in memory, `places` bounds how many turns run."""

    def __init__(
        self,
        *,
        database: Store,
        ownership: Ownership | None = None,
        on_claimed: Callable[[SessionRecord], Awaitable[None]] | None = None,
        save_files: SaveFiles | None = None,
        log: EventLog,
        child_sessions: ChildSessions,
        custom_tools: CustomTools,
        modalities_of: ModalitiesOf,
        settings: TurnSettings,
        tracer: Tracer,
    ) -> None:
        self._database = database
        self._ownership = ownership or Ownership()
        self._on_claimed = on_claimed
        self._save_files = save_files
        self._log = log
        self._child_sessions = child_sessions
        self._custom_tools = custom_tools
        self._modalities_of = modalities_of
        self._settings = settings
        self._limits = Limits(
            watchdog_seconds=settings.watchdog_seconds,
            max_seconds=settings.max_seconds,
            retry_notice_seconds=settings.retry_notice_seconds,
            prompt_wait_seconds=child_sessions.prompt_wait_seconds,
            is_split=settings.split_messages,
        )
        self.places = TurnPlaces(max_running=settings.max_running, max_waiting=settings.max_waiting)
        self._traces = TurnTraces(tracer)
        self._tasks = TaskOwner("turns")
        self.live = LiveSessions(load=self._load, owns=self._ownership.owns, tasks=self._tasks)
        self._on_end = Callbacks[[TurnEnded]]("end of a turn")
        self._on_end.add(self._traces.end)
        self._is_draining = False
        self._ownership.on_lost(self._lost)

    def on_turn_end(self, callback: Callable[[TurnEnded], None]) -> None:
        """Call `callback` with the end of every turn from now on. It must not block."""
        self._on_end.add(callback)

    async def send(
        self,
        session_id: str,
        events: list[ClientEvent],
        *,
        request_id: str | None = None,
        is_repeated: bool = False,
    ) -> list[AcceptedEvent]:
        """Accept a batch of client events and empty the list, see `acceptance.accept`.

        `request_id` is stored with it; a batch that `is_repeated` and was accepted under that id before is
        answered again, and not processed twice.

        While an interrupt takes effect, return only when the end of that turn is stored, or after
        `interrupt_wait_seconds`: a client that sends the next message and then opens a stream must not
        be given the interrupted turn.
        """
        async with self.live.holding(session_id) as actor:
            if request_id is not None and is_repeated:
                again = await self._database.read(
                    lambda connection: select_accepted(connection, request_id)
                )
                if again is not None:
                    return again
            accepted = await self._accept(actor, events, request_id=request_id)
            interrupted = actor.interrupted_turn
        if interrupted is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.interrupt_wait_seconds):
                    await interrupted.done.wait()
        return accepted

    async def create(
        self,
        record: SessionRecord,
        insert: Callable[[Connection], None],
        events: Sequence[ClientEvent],
    ) -> None:
        """Store a new session with `insert` and accept its `initial_events`, all or nothing."""
        with self._ownership.creating(record.id):
            if not events:
                await self._database.write(insert)
                return
            actor = self._adopt(StoredSession(record, [], []))
            try:
                async with actor.hold():
                    await self._accept(actor, list(events), where="initial_events", before=insert)
            except BaseException:
                if actor.turn is None:
                    self.live.forget(record.id)
                raise

    async def dismiss(self, session_id: str, check: Callable[[SessionRecord], None]) -> None:
        """Let go of a turn that waits for the client: its call is over in the child, and stays in the row.

        `check` raises when the session must not be touched.
        """
        async with self.live.holding(session_id) as actor:
            check(actor.record)
            turn = actor.turn
            if turn is not None:
                turn.put(Dismissed())
                actor.detach(turn)
        if turn is not None:
            await turn.done.wait()

    async def _accept(
        self,
        actor: SessionActor,
        events: list[ClientEvent],
        *,
        where: str = "events",
        before: Callable[[Connection], None] | None = None,
        request_id: str | None = None,
    ) -> list[AcceptedEvent]:
        accepted = await acceptance.accept(
            actor,
            events,
            limits=self._settings,
            modalities_of=self._modalities_of,
            check_room=self.places.check,
            where=where,
            before=before,
            request_id=request_id,
        )
        self._traces.note_accepted(accepted)
        return accepted

    def running_sessions(self) -> list[str]:
        """Return the ids of the sessions with a running turn."""
        return self.live.running()

    def end_turn_for(self, session_id: str, failure: Failure) -> bool:
        """End the session's turn, also one that waits, with that failure; return whether there was one."""
        actor = self.live.peek(session_id)
        if actor is None or actor.turn is None:
            return False
        actor.turn.put(Violation(failure))
        return True

    def tell(self, child_session_id: str, item: Input) -> None:
        """Give the running turn of an opencode session an input."""
        actor = self.live.of_child(child_session_id)
        if actor is not None and actor.turn is not None:
            actor.turn.put(item)

    def model_request(self, event: ModelRequestStarted | ModelRequestEnded) -> None:
        """Report a model request to the turn that made it."""
        self.tell(event.child_session_id, event)

    async def is_busy(self, boot: Boot | None = None, *, with_waiting: bool = False) -> bool:
        """Return whether a boot of opencode (None: any) works on a turn, of ours or of its own API.

        Turns that wait for their client count if `with_waiting`.
        """
        if boot is None and self.live.prompted_count:
            return True
        return await self._child_sessions.has_turns(
            boot, is_excluded=self._is_nothing if with_waiting else self._is_waiting
        )

    @staticmethod
    def _is_nothing(_session_id: str) -> bool:
        return False

    def _is_waiting(self, session_id: str) -> bool:
        actor = self.live.peek(session_id)
        return actor is not None and actor.is_paused

    def traceparent_of(self, child_session_id: str) -> str | None:
        """Return the trace context of an opencode session's running turn."""
        actor = self.live.of_child(child_session_id)
        return self._traces.traceparent_of(actor.record.id) if actor is not None else None

    def gap(self, gap: ChildGap) -> None:
        """Events may have been missed: have each running turn read its state from opencode."""
        for actor in self.live:
            if actor.turn is not None:
                actor.turn.put(gap)

    async def recover(self) -> None:
        """Settle the turns that an earlier process left open, and begin what waits."""
        backoff = Backoff(first=1.0, longest=30.0)
        while True:
            try:
                unfinished = await self._database.read(self._ownership.unfinished)
            except StoreError as error:
                _log.warning("store failing at recovery", error=str(error))
                await asyncio.sleep(backoff.next_delay())
            else:
                break
        for session_id in unfinished:
            if not self._is_draining:
                recovering = self._recover(session_id, _RECOVERY_TEXT)
                self._tasks.start(f"recover {session_id}", recovering)

    async def run_recovery(self, interval_seconds: float) -> None:
        """Look for sessions of dead pods until cancelled."""
        while True:
            await self.recover()
            await asyncio.sleep(interval_seconds)

    async def release_idle(self) -> None:
        """Give up the sessions in which nothing runs: others may have them at once. Raises StoreError."""
        idle = self.live.unused()
        for session_id in idle:
            self.live.forget(session_id)
        await self._ownership.release(idle)
        for session_id in idle:
            self._log.detach(session_id)

    async def drain(self, seconds: float) -> None:
        """Start nothing new, let what opencode works on finish for `seconds`, settle the rest, stop."""
        self._is_draining = True
        self.places.close()
        for actor in self.live:
            if actor.turn is not None:
                actor.turn.put(Draining())
        ends_at = time.monotonic() + seconds
        while await self.is_busy():
            if time.monotonic() >= ends_at:
                _log.warning("turns cut by the drain bound", turns=self.live.prompted_count)
                break
            if self._ownership.is_shared:
                with contextlib.suppress(StoreError):  # the lease ends by itself
                    await self.release_idle()
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        turns = [actor.turn for actor in self.live if actor.turn is not None]
        for turn in turns:
            turn.put(Stopping())
        await asyncio.gather(*(turn.done.wait() for turn in turns))
        await self._tasks.close()

    async def _read_session(self, session_id: str) -> StoredSession:
        return await self._database.read(lambda connection: select_stored(connection, session_id))

    async def _load(self, session_id: str) -> SessionActor:
        await self._ownership.acquire(session_id)
        stored = await self._read_session(session_id)
        if self._on_claimed is not None:
            await self._on_claimed(stored.record)
        actor = self._adopt(stored)
        is_open = stored.record.status in {"running", "rescheduling"} or stored.queue
        if self._ownership.is_shared and is_open:
            # Its pod died in a turn, or before one: the pod that claims a session goes on with it.
            recovering = self._recover(session_id, _RECOVERY_TEXT)
            self._tasks.start(f"recover {session_id}", recovering)
        return actor

    async def record(self, session_id: str) -> SessionRecord:
        """Return the session's committed row, also when another pod owns it. Raises NotFoundError."""
        return await self._database.read(lambda connection: select_session(connection, session_id))

    def _lost(self, session_id: str) -> None:
        """Drop a session that another pod owns; its streams look for the new owner."""
        actor = self.live.peek(session_id)
        self.live.forget(session_id)
        self._log.detach(session_id)
        if actor is not None and actor.turn is not None:
            aborting = self._child_sessions.abort(actor.record)
            self._tasks.start(f"abort {session_id}", aborting)
            actor.turn.put(Stopping())

    def _adopt(self, stored: StoredSession) -> SessionActor:
        actor = SessionActor(
            stored=stored,
            log=self._log,
            read_session=self._read_session,
            read_turn=lambda session_id: self._database.read(
                lambda connection: turn_events(connection, session_id)
            ),
            start_turn=self._start_turn,
            may_start=lambda: not self._is_draining,
            bind_child=self.live.bind_child,
            on_turn_end=self._on_end,
            save_files=self._save_files,
        )
        self.live.add(actor)
        return actor

    def _start_turn(
        self,
        actor: SessionActor,
        content: Sequence[Mapping[str, Any]] | None,
        resume: Continuation | None,
        earlier: Failure | None,
        /,
    ) -> TurnRunner:
        if resume is not None:
            content = resume.content
        elif content is not None and json_size(content) > LONG_CHARS:
            content = None
        assert actor.record.turn is not None
        message_id = actor.record.turn.message_id
        machine = TurnMachine(
            plan=actor.plan,
            message_id=message_id,
            new_id=lambda: new_id("sevt"),
            limits=self._limits,
            continuation=resume,
            earlier=earlier,
            epoch_offset=time.time() - asyncio.get_running_loop().time(),
        )
        turn = TurnRunner(
            session=actor,
            machine=machine,
            child_sessions=self._child_sessions,
            custom_tools=self._custom_tools,
            prompt=Prompt(message_id, content, actor.system, read_content=actor.opening_content),
            place=self.places.place(),
        )
        self._traces.begin(actor.record.id, actor.record.turn.user_event_id, actor.record.model_ref)
        self._tasks.start(f"turn {actor.record.id}", self._run(turn, actor))
        return turn

    async def _run(self, turn: TurnRunner, actor: SessionActor) -> None:
        session_id = actor.record.id
        # What this task starts at its end, the next message in the queue, is of another request.
        set_current_traceparent(None)
        try:
            await turn.run()
        except OwnershipLostError:
            actor.detach(turn)
        except StoreError as error:
            _log.exception("the store failed in a turn", session=session_id, exc_info=error)
            actor.detach(turn)
            recovering = self._recover(session_id, "the sidecar's store failed")
            self._tasks.start(f"recover {session_id}", recovering)
        finally:
            turn.done.set()

    async def _recover(self, session_id: str, reason: str) -> None:
        """Settle a turn that has no task, trying again until the store can be used."""
        backoff = Backoff(first=1.0, longest=60.0)
        while True:
            try:
                async with self.live.holding(session_id) as actor:
                    if actor.turn is None:
                        has_files = self._ownership.has_files(session_id)
                        text = reason if has_files else f"{reason}, and {_FILES_TEXT}"
                        await recovery.recover(actor, self._database, text)
            except (OwnershipLostError, OwnedElsewhereError, OwnerUnavailableError):
                return  # another pod goes on with it
            except StoreError as error:
                _log.warning("store still failing", session=session_id, error=str(error))
                await asyncio.sleep(backoff.next_delay())
            except NotFoundError:
                return
            else:
                return
