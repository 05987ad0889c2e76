"""One live session: its lock, its row, its queue, and the commits that keep log and row in step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from sidecar.aiokit import aside
from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.events.event import Draft, Event, Preview
from sidecar.managed.events.log import EventLog, Head
from sidecar.managed.events.replay_policy import ReplayPolicy
from sidecar.managed.sessions.table import StoredSession, save_body, state_columns, system_text
from sidecar.managed.sessions.turn_runner import TurnRunner
from sidecar.managed.turns.continuation import (
    Continuation,
    answered_calls,
    closing_drafts,
    continuation_of,
    logged_calls,
)
from sidecar.managed.turns.event_builders import Output
from sidecar.managed.turns.failures import Failure
from sidecar.managed.turns.outcome import Outcome
from sidecar.managed.turns.state import (
    CURRENT_RULES,
    INTERRUPT,
    RULES,
    STALE,
    SYSTEM,
    QueuedEvent,
    TurnEnded,
    TurnOutcome,
)
from sidecar.managed.turns.tool_calls import LoggedCall
from sidecar.managed.turns.tool_plan import ToolPlan
from sidecar.model_requests import Usage
from sidecar.store.interface import Connection, StoreError


class StartTurn(Protocol):
    """Starts the task of a turn; the owner of all turns provides it."""

    def __call__(
        self,
        actor: SessionActor,
        content: Sequence[Mapping[str, Any]] | None,
        resume: Continuation | None,
        earlier: Failure | None,
        /,
    ) -> TurnRunner: ...


SaveFiles = Callable[[str, int], Awaitable[None]]
"""Keeps the files of (a session, the number of its last event) where other pods find them."""


class SessionActor:
    """Serialises everything that changes one session: a change needs the lock, see `hold`.

    Changes are made in memory and then committed. When a commit fails memory is ahead of the store, and
    the next holder begins by reading the store again.
    """

    def __init__(
        self,
        *,
        stored: StoredSession,
        log: EventLog,
        read_session: Callable[[str], Awaitable[StoredSession]],
        read_turn: Callable[[str], Awaitable[list[dict[str, Any]]]],
        start_turn: StartTurn,
        may_start: Callable[[], bool],
        bind_child: Callable[[str, SessionActor], None],
        on_turn_end: Callable[[TurnEnded], None],
        save_files: SaveFiles | None = None,
    ) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._is_stale = False
        self._take(stored)
        self.turn: TurnRunner | None = None
        self.replay_policy = ReplayPolicy()
        if stored.turn_first_seq:
            self.replay_policy.turn_began(stored.turn_first_seq)
        self._log = log
        self._read_session = read_session
        self._read_turn = read_turn
        self._start_turn = start_turn
        self.may_start = may_start
        self._bind_child = bind_child
        self._on_turn_end = on_turn_end
        self._save_files = save_files
        self._active_before_us = self.record.active_us

    def _take(self, stored: StoredSession) -> None:
        was_running_since_us = getattr(getattr(self, "record", None), "running_since_us", None)
        self.record = stored.record
        self.record.running_since_us = was_running_since_us
        self.queue = list(stored.queue)
        self._system_messages = list(stored.system_messages)
        self.plan = ToolPlan(self.record.agent["tools"], self.record.agent["mcp_servers"])
        self._head = Head(self.record.last_seq, self.record.last_processed_us)
        self._stored_child_session_id = self.record.child_session_id

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold the session's lock. Raises StoreError while the store cannot be read after a failure."""
        async with self._lock:
            if self._is_stale:
                self._take(await self._read_session(self.record.id))
                self._is_stale = False
            self._holder = asyncio.current_task()
            try:
                yield
            except StoreError:
                self._is_stale = True
                raise
            finally:
                self._holder = None

    @property
    def is_held(self) -> bool:
        """Whether the lock is held."""
        return self._lock.locked()

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs (one that waits for the client does not count)."""
        return self.turn is not None and not self.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether a turn waits for the client, with or without a live task."""
        return self.record.is_waiting

    @property
    def interrupted_turn(self) -> TurnRunner | None:
        """The live turn that a queued interrupt is about to end."""
        return self.turn if any(event.type == INTERRUPT for event in self.queue) else None

    @property
    def last_seq(self) -> int:
        """The number of the newest event."""
        return self._head.seq

    # -- commits (lock) ---------------------------------------------------------------------------

    async def commit(
        self,
        drafts: Sequence[Draft],
        *,
        used: Sequence[Usage] = (),
        before: Callable[[Connection], None] | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> list[Event]:
        """Append the drafts and store the row's state in one transaction."""
        self._assert_held()
        self._count(used)
        self.record.updated_at = timestamps.now()
        child_session_id = self.record.child_session_id
        events = await self._log.append(
            self.record.id,
            self._head,
            drafts,
            columns=state_columns(self.record),
            before=before,
            also=also,
        )
        self._stored_child_session_id = child_session_id
        return events

    def _assert_held(self) -> None:
        assert self._holder is asyncio.current_task(), "a change of a session needs its lock"

    def _count(self, used: Sequence[Usage]) -> None:
        for usage in used:
            self.record.usage += usage

    def preview(self, previews: Sequence[Preview]) -> None:
        """Show previews to the readers that asked for them."""
        if previews:
            self._log.preview(self.record.id, previews)

    @property
    def keeps_files(self) -> bool:
        """Whether the session's files are copied to where other pods find them."""
        return self._save_files is not None

    async def save_files(self) -> None:
        """Copy the session's files, in a bounded time. Raises StoreError."""
        if self._save_files is not None:
            await self._save_files(self.record.id, self._head.seq)

    async def note_prompt(self, child_session_id: str, *, is_repeated: bool) -> None:
        """The prompt is about to be sent to that session of the child.

        Two things are stored before: which session of opencode is to be asked about the prompt after a crash,
        and that it is not sent a third time. A first prompt in a session of opencode that is stored already,
        as most are, needs no commit.
        """
        self._assert_held()
        self.record.child_session_id = child_session_id
        self.record.body.pop(STALE, None)
        self.record.body[RULES] = CURRENT_RULES
        self._bind_child(child_session_id, self)
        if is_repeated:
            self.record.note_repeated()
        if is_repeated or child_session_id != self._stored_child_session_id:
            await self.commit([])

    async def wait(self, out: Output, event_ids: Sequence[str]) -> None:
        """The turn waits for the client: idle, with the list of what it waits for."""
        self._assert_held()
        self._count(out.used)
        await self.commit([*out.drafts, *self.record.wait(event_ids, timestamps.now_us())])

    async def end_turn(
        self,
        turn: TurnRunner | None,
        outcome: Outcome,
        out: Output,
        *,
        is_interrupted: bool = False,
    ) -> None:
        """Write the turn's one terminal event, then begin the next queued message."""
        self._assert_held()
        if self.turn is not turn:
            return
        self.turn = None
        self.replay_policy.turn_finished()
        self._count(out.used)
        interrupts = self.take_interrupts()
        echoes = [Draft(event.type, event.fields, event.id) for event in interrupts]
        drafts = [*out.drafts, *echoes, *self.record.end(outcome, timestamps.now_us())]
        await self.commit(drafts, also=_delete_queued(self.record.id, interrupts))
        if outcome.is_terminal:
            self._log.close_readers(self.record.id)
        self._on_turn_end(self._ended(outcome, is_interrupted=is_interrupted or bool(interrupts)))
        await self.start_next()

    def _ended(self, outcome: Outcome, *, is_interrupted: bool) -> TurnEnded:
        active_seconds = (self.record.active_us - self._active_before_us) / 1_000_000
        if outcome.failure is not None:
            return TurnEnded(self.record.id, "failed", outcome.failure.type, active_seconds)
        is_refused = outcome.stop_reason["type"] == "refusal"
        how: TurnOutcome = "refused" if is_refused else "completed"
        how = "interrupted" if is_interrupted else how
        return TurnEnded(self.record.id, how, "", active_seconds)

    async def start_next(self) -> None:
        """Begin the next queued message, if any."""
        if self.turn is not None or not self.may_start():
            return
        if self.record.turn is not None or self.record.status == "terminated":
            return
        place = next((n for n, event in enumerate(self.queue) if event.type != INTERRUPT), None)
        if place is None:
            return
        # Read before anything changes: a cancelled caller must leave memory and store as they are.
        first = self.queue[place]
        fields = await aside(len(first.text), lambda: first.fields)
        taken = [self.queue.pop(place)]
        drafts = self.begin(first.id, fields)
        while place < len(self.queue) and self.queue[place].type == SYSTEM:
            taken.append(self.queue.pop(place))
            self.add_system(taken[-1].fields)
            drafts.append(Draft(SYSTEM, taken[-1].fields, taken[-1].id))
        await self.commit(drafts, also=_delete_queued(self.record.id, taken))
        self.launch(fields["content"])

    def begin(self, event_id: str, fields: Mapping[str, Any]) -> list[Draft]:
        """Set the row to running and return the events that open a turn, the message first.

        LAP's page opens an answer at the first `session.status_running`; one that is followed by the
        question stays empty and waits.
        """
        self._assert_held()
        self._active_before_us = self.record.active_us
        self.replay_policy.turn_began(self._head.seq + 1)
        running = self.record.begin(event_id, new_id("msg"), timestamps.now_us())
        return [Draft("user.message", fields, event_id), *running]

    def begin_again(self, event_id: str) -> None:
        """Set the row to a turn that goes on, after a restart, with the client's answer of that id."""
        self._assert_held()
        self.record.begin_again(event_id, new_id("msg"))

    def launch(
        self,
        content: Sequence[Mapping[str, Any]] | None,
        resume: Continuation | None = None,
        *,
        earlier: Failure | None = None,
    ) -> None:
        """Start the task of the turn that `begin` opened, once that is committed.

        Content that is not given is read from the log whenever it is sent, see `opening_content`. With
        `earlier` its prompt may have been sent before; if it was taken, the turn ends with that.
        """
        self.turn = self._start_turn(self, content, resume, earlier)

    async def opening_content(self) -> Sequence[Mapping[str, Any]]:
        """Return the content of the message that opened the turn, from the log."""
        assert self.record.turn is not None
        opening_id = self.record.turn.user_event_id
        events = await self._read_turn(self.record.id)
        content: list[dict[str, Any]] = next(e for e in events if e["id"] == opening_id)["content"]
        return content

    # -- what waits for the client ------------------------------------------------------------------

    async def waiting_calls(self) -> dict[str, LoggedCall]:
        """Return the calls that wait for the client, by event id."""
        if self.turn is not None:
            return self.turn.waiting_calls()
        if not self.is_paused:
            return {}
        assert self.record.turn is not None
        calls = logged_calls(await self._read_turn(self.record.id))
        return {event_id: calls[event_id] for event_id in self.record.turn.blocked}

    async def resume(self) -> None:
        """Go on with a turn that lost its task and whose calls are all answered now."""
        events = await self._read_turn(self.record.id)
        self.launch([], continuation_of(answered_calls(events)))

    async def interrupt_waiting(self) -> None:
        """End a turn that waits without a live task: there is nothing to abort."""
        out = Output(drafts=closing_drafts(await self._read_turn(self.record.id)))
        await self.end_turn(None, Outcome(), out, is_interrupted=True)

    async def terminate(self) -> None:
        """Archive the session, and end what waits in it. There must be no live turn."""
        was_waiting = self.record.turn is not None
        events = await self._read_turn(self.record.id) if was_waiting else []
        terminated = self.record.terminate(timestamps.now(), timestamps.now_us())
        drafts = [*closing_drafts(events), *terminated]
        await self.commit(drafts, also=lambda connection: save_body(connection, self.record))
        self._log.close_readers(self.record.id)
        if was_waiting:
            self.replay_policy.turn_finished()
            self._on_turn_end(self._ended(Outcome(), is_interrupted=True))

    # -- the system prompt --------------------------------------------------------------------------

    def add_system(self, fields: Mapping[str, Any]) -> None:
        """Take a `system.message` into account from the next prompt on."""
        self._system_messages.append(system_text(fields))

    @property
    def system(self) -> str | None:
        """The agent's system prompt and every system message so far; opencode forgets it each time."""
        texts = [self.record.agent["system"], *self._system_messages]
        return "\n\n".join(text for text in texts if text) or None

    def detach(self, turn: TurnRunner) -> None:
        """The turn's task ends and the turn does not; what there is to do about it stays in the row."""
        if self.turn is turn:
            self.turn = None

    def take_interrupts(self) -> list[QueuedEvent]:
        """Remove and return the interrupts that this end of turn answers."""
        taken = [event for event in self.queue if event.type == INTERRUPT]
        self.queue = [event for event in self.queue if event.type != INTERRUPT]
        return taken


def _delete_queued(session_id: str, events: Sequence[QueuedEvent]) -> Callable[[Connection], None]:
    def delete(connection: Connection) -> None:
        connection.executemany(
            "DELETE FROM queued_events WHERE session_id = ? AND id = ?",
            [(session_id, event.id) for event in events],
        )

    return delete
