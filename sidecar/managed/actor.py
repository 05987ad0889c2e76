"""One live session: its lock, its row, its queue, and the commits that keep log and row in step."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sidecar.ids import new_id
from sidecar.managed import clock
from sidecar.managed.attendance import Attendance
from sidecar.managed.drafts import Usage
from sidecar.managed.event_log import Draft, Event, EventLog, Head, Preview
from sidecar.managed.records import QueuedEvent, SessionRecord, TurnRecord, save_state
from sidecar.managed.tools import ToolPlan
from sidecar.managed.translate import Output
from sidecar.managed.turn import Outcome, Turn

INTERRUPT = "user.interrupt"


class StartTurn(Protocol):
    """Starts the task of a turn; the owner of all turns provides it."""

    def __call__(self, actor: SessionActor, content: Sequence[dict[str, Any]], /) -> Turn: ...


class SessionActor:
    """Serialises everything that changes one session. Methods with `lock` in their doc need it held."""

    def __init__(
        self,
        *,
        record: SessionRecord,
        queue: Sequence[QueuedEvent],
        log: EventLog,
        start_turn: StartTurn,
        may_start: Callable[[], bool],
        bind_child: Callable[[str, SessionActor], None],
    ) -> None:
        self.lock = asyncio.Lock()
        self.record = record
        self.queue = list(queue)
        self.turn: Turn | None = None
        self.turn_first_seq = record.last_seq + 1
        self.attendance = Attendance()
        self.are_rules_stale = False
        self.plan = ToolPlan(record.agent["tools"], record.agent["mcp_servers"])
        self._log = log
        self._head = Head(record.last_seq, record.last_processed_us)
        self._start_turn = start_turn
        self._may_start = may_start
        self._bind_child = bind_child
        self._running_since_us: int | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a turn runs (one that waits for the client does not count)."""
        return self.turn is not None and not self.turn.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether a turn waits for the client, with or without a live task."""
        return bool(self.record.turn and self.record.turn.blocked)

    @property
    def last_seq(self) -> int:
        """The number of the newest event."""
        return self._head.seq

    @staticmethod
    def wall_clock() -> float:
        """Seconds since the epoch, as opencode's `next` counts them."""
        return time.time()

    # -- drafts -----------------------------------------------------------------------------------

    def thread_draft(self, state: str, **fields: Any) -> Draft:
        """Make the primary thread's twin of a session status event."""
        identity = {
            "session_thread_id": self.record.thread_id,
            "agent_name": self.record.agent["name"],
        }
        return Draft(f"session.thread_status_{state}", {**identity, **fields})

    def running_drafts(self) -> list[Draft]:
        """Make the pair that says the session works."""
        return [Draft("session.status_running"), self.thread_draft("running")]

    def idle_drafts(self, stop: dict[str, Any]) -> list[Draft]:
        """Make the three that say it stopped; the status is always the last event."""
        usage = self.record.usage.answer(self.record.active_us)
        return [
            self.thread_draft("idle", **stop),
            Draft("session.usage", {"usage": usage, "budget": None}),
            Draft("session.status_idle", stop),
        ]

    # -- commits (lock) ---------------------------------------------------------------------------

    async def commit(
        self,
        drafts: Sequence[Draft],
        *,
        used: Sequence[Usage] = (),
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> list[Event]:
        """Append the drafts and store the row's state in one transaction. Needs the lock."""
        for usage in used:
            self.record.usage.add(usage)
        self.record.updated_at = clock.now()

        def write(connection: sqlite3.Connection) -> None:
            save_state(connection, self.record)
            if also is not None:
                also(connection)

        return await self._log.append(self.record.id, self._head, drafts, also=write)

    def preview(self, previews: Sequence[Preview]) -> None:
        """Show previews to the readers that asked for them."""
        if previews:
            self._log.preview(self.record.id, previews)

    async def mark_prompted(self, child_session_id: str) -> None:
        """From here on the child may have seen the prompt: it is never sent again on its own."""
        async with self.lock:
            self.record.child_session_id = child_session_id
            self._bind_child(child_session_id, self)
            if self.record.turn is not None:
                self.record.turn.is_prompted = True
            await self.commit([])

    async def pause(self, out: Output, waiting: list[str]) -> None:
        """The turn waits for the client: idle, with the list of what it waits for. Needs the lock."""
        assert self.record.turn is not None
        self.record.turn.blocked = waiting
        self.record.status = "idle"
        self.stop_clock()
        for usage in out.used:
            self.record.usage.add(usage)
        stop = {"stop_reason": {"type": "requires_action", "event_ids": waiting}}
        await self.commit([*out.drafts, *self.idle_drafts(stop)])

    async def end_turn(self, turn: Turn | None, outcome: Outcome, out: Output) -> None:
        """Write the turn's one terminal, then begin what waits. Needs the lock."""
        if self.turn is not turn:
            return
        self.turn = None
        self.record.turn = None
        self.record.status = "idle"
        self.attendance.turn_finished()
        self.stop_clock()
        for usage in out.used:
            self.record.usage.add(usage)
        stop: dict[str, Any] = {"stop_reason": dict(outcome.stop_reason)}
        if outcome.stop_details is not None:
            stop["stop_details"] = dict(outcome.stop_details)
        interrupts = self.take_interrupts()
        echoes = [Draft(event.type, event.fields, event.id) for event in interrupts]
        errors = [outcome.failure.draft()] if outcome.failure else []
        drafts = [*out.drafts, *echoes, *errors, *self.idle_drafts(stop)]
        await self.commit(drafts, also=_delete_queued(self.record.id, interrupts))
        await self.start_next()

    async def start_next(self) -> None:
        """Begin the next queued message, if any. Needs the lock."""
        if self.turn is not None or not self.queue or not self._may_start():
            return
        if self.record.turn is not None or self.record.status == "terminated":
            return
        message = next((event for event in self.queue if event.type != INTERRUPT), None)
        if message is None:
            return
        self.queue.remove(message)
        await self.commit(
            self.begin(message.id, message.fields), also=_delete_queued(self.record.id, [message])
        )
        self.launch(message.fields["content"])

    def begin(self, event_id: str, fields: Any) -> list[Draft]:
        """Set the row to running and make the events that open a turn. Needs the lock."""
        self.record.turn = TurnRecord(event_id, new_id("msg"))
        self.record.status = "running"
        self.start_clock()
        self.turn_first_seq = self._head.seq + 1
        self.attendance.turn_began(self.turn_first_seq)
        return [*self.running_drafts(), Draft("user.message", fields, event_id)]

    def launch(self, content: Sequence[dict[str, Any]]) -> None:
        """Start the task of the turn that `begin` opened, once that is committed. Needs the lock."""
        self.turn = self._start_turn(self, content)

    def detach(self, turn: Turn) -> None:
        """The task of a turn that waits for the client ends; what it waits for stays in the row."""
        if self.turn is turn:
            self.turn = None

    def take_interrupts(self) -> list[QueuedEvent]:
        """Remove and return the interrupts that this end of turn answers."""
        taken = [event for event in self.queue if event.type == INTERRUPT]
        self.queue = [event for event in self.queue if event.type != INTERRUPT]
        return taken

    # -- active time --------------------------------------------------------------------------------

    def start_clock(self) -> None:
        """Active time counts from now."""
        self._running_since_us = clock.now_us()

    def stop_clock(self) -> None:
        """Add the active time since `start_clock`."""
        if self._running_since_us is not None:
            self.record.active_us += max(0, clock.now_us() - self._running_since_us)
            self._running_since_us = None


def _delete_queued(
    session_id: str, events: Sequence[QueuedEvent]
) -> Callable[[sqlite3.Connection], None]:
    def delete(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "DELETE FROM queued_events WHERE session_id = ? AND id = ?",
            [(session_id, event.id) for event in events],
        )

    return delete
