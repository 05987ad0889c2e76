"""The event log: append, persist, publish, in that order.

Every session has one sequence. An event gets its number, its id and its `processed_at` (strictly
growing) here, is committed together with the session's new state, and only then wakes the readers. A
reader is a position in the log, not a queue: a slow one costs nothing and is never cut, since what it
has not read yet is on disk. A short tail of each session that has readers is kept in memory, so that
those who keep up never touch the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

from sidecar.aiokit import aside
from sidecar.cluster.ownership import Ownership, OwnershipLostError
from sidecar.errors import NotFoundError
from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.events.event import (
    LONG_CHARS,
    Draft,
    Event,
    Preview,
    from_row,
    long_frame,
    to_json,
)
from sidecar.managed.events.subscription import Subscription
from sidecar.store.interface import Connection, Store
from sidecar.wire.json_writing import json_size

_TAIL_LENGTH = 256
_TAIL_CHARS = 1_000_000
"""Events per session kept in memory for its readers, and the length of their texts together."""
_READ_BATCH = 500
_READ_CHARS = 256 * 1024
"""Events that one read fetches, and the length of their texts after which it stops."""


class _Tail:
    """The newest events of a session that has readers, bounded by number and size."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._chars = 0
        self._last_seq = 0

    def extend(self, events: Sequence[Event]) -> None:
        for event in events:
            self._events.append(event)
            self._chars += event.size
            self._last_seq = event.seq
        while self._events and (len(self._events) > _TAIL_LENGTH or self._chars > _TAIL_CHARS):
            self._chars -= self._events.popleft().size

    def after(self, seq: int) -> list[Event] | None:
        """Return the events with a higher number, None when some of them are only on disk."""
        if seq >= self._last_seq > 0:
            return []  # most often: only previews are new
        if not self._events or self._events[0].seq > seq + 1:
            return None
        return [event for event in self._events if event.seq > seq]


@dataclass(slots=True)
class Head:
    """The end of one session's sequence. Held by the session's actor, under its lock."""

    seq: int
    processed_us: int


class Companion(Protocol):
    """Something else that is stored with each commit of a session."""

    def take(self, session_id: str) -> Sequence[Any]:
        """Return what waits for the session's next commit."""

    def give_back(self, session_id: str, events: Sequence[Any]) -> None:
        """Keep it after all: the commit failed, or its outcome is unknown."""

    def insert(self, connection: Connection, session_id: str, events: Sequence[Any]) -> None:
        """Store it; storing it again changes nothing."""


class EventLog:
    """Append and read. `append` must be called by one writer per session at a time."""

    def __init__(
        self,
        *,
        database: Store,
        ownership: Ownership | None = None,
        companion: Companion | None = None,
    ) -> None:
        self._companion = companion
        self._database = database
        self._ownership = ownership or Ownership()
        self._readers: dict[str, set[Subscription]] = {}
        self._tails: dict[str, _Tail] = {}
        self._in_use: WeakValueDictionary[str, Event] = WeakValueDictionary()
        """Events that a reader holds, by id: readers of the same large event share one copy."""
        self.events_appended = 0
        self.appends = 0
        self.append_seconds = 0.0
        """Time that appends waited for their commit, all together."""

    async def append(
        self,
        session_id: str,
        head: Head,
        drafts: Sequence[Draft],
        *,
        columns: Mapping[str, Any] | None = None,
        before: Callable[[Connection], None] | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> list[Event]:
        """Number, persist and publish the drafts, and write `columns` of the session's row.

        `before` and `also` run in the same transaction.

        `head` moves with the commit. Raises StoreError, and then nothing happened; OwnershipLostError
        when another process owns the session by now. Long drafts are empty afterwards. A caller that is
        cancelled leaves a gap in the numbers at worst, never the same number twice.
        """
        condition, parameters = self._ownership.guard(session_id)
        size = sum(json_size(draft.fields) for draft in drafts)
        start = Head(head.seq, max(timestamps.now_us() - 1, head.processed_us))
        events = await aside(size, lambda: list(_number(drafts, start)))
        if size > LONG_CHARS:
            for draft in drafts:
                draft.let_go()
        others = self._companion.take(session_id) if self._companion is not None else ()
        end = Head(start.seq + len(drafts), start.processed_us + len(drafts)) if drafts else head
        numbers = Head(end.seq, end.processed_us)
        row = {"last_seq": end.seq, "last_processed_us": end.processed_us, **(columns or {})}
        changes = ", ".join(f"{name} = ?" for name in row)
        update = f"UPDATE sessions SET {changes} WHERE id = ?{condition}"  # noqa: S608  # our names

        def write(connection: Connection) -> None:
            if before is not None:
                before(connection)
            # First: it locks the row, and checks the owner's epoch.
            if events or columns or condition:
                changed = connection.execute(update, (*row.values(), session_id, *parameters))
                if changed.rowcount != 1 and condition:
                    raise OwnershipLostError(f"session {session_id} is another pod's")
            if events:
                connection.executemany(
                    "INSERT INTO events (session_id, seq, id, type, processed_us, body, ends_turn) "
                    "VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?)",
                    [
                        (
                            *(session_id, e.seq, e.id, e.type, e.processed_us),
                            connection.text(e.column),
                            int(e.ends_turn),
                        )
                        for e in events
                    ],
                )
            if also is not None:
                also(connection)
            if self._companion is not None:
                self._companion.insert(connection, session_id, others)

        began = time.perf_counter()
        kept = head.seq, head.processed_us
        head.seq, head.processed_us = numbers.seq, numbers.processed_us
        try:
            await self._database.write(write)
        except asyncio.CancelledError:
            # The commit may still happen: its numbers are spent, and readers must look on disk for it.
            self._tails.pop(session_id, None)
            self._give_back(session_id, others)
            raise
        except Exception as error:
            head.seq, head.processed_us = kept
            self._give_back(session_id, others)
            if isinstance(error, OwnershipLostError):
                self._ownership.lose(session_id)
            raise
        self.append_seconds += time.perf_counter() - began
        self.appends += 1
        self.events_appended += len(events)
        if events:
            self._publish(session_id, events)
        return events

    def _give_back(self, session_id: str, others: Sequence[Any]) -> None:
        if self._companion is not None:
            self._companion.give_back(session_id, others)

    def preview(self, session_id: str, previews: Sequence[Preview]) -> None:
        """Show preview frames to the readers that asked for them."""
        for reader in self._readers.get(session_id, ()):
            for preview in previews:
                reader.preview(preview)

    @contextmanager
    def subscribe(
        self,
        session_id: str,
        *,
        after: int,
        previews: frozenset[str] = frozenset(),
        hidden: frozenset[str] = frozenset(),
    ) -> Iterator[Subscription]:
        """Read everything with a sequence number above `after`, now and later, but the `hidden` types."""
        reader = Subscription(
            lambda after: self.events_after(session_id, after),
            after=after,
            previews=previews,
            hidden=hidden,
        )
        self._readers.setdefault(session_id, set()).add(reader)
        try:
            yield reader
        finally:
            readers = self._readers[session_id]
            readers.discard(reader)
            if not readers:
                del self._readers[session_id]
                self._tails.pop(session_id, None)

    def reader_count(self, session_id: str | None = None) -> int:
        """Return how many streams are open, of one session or of all."""
        if session_id is not None:
            return len(self._readers.get(session_id, ()))
        return sum(map(len, self._readers.values()))

    def positions(self) -> Iterator[tuple[str, int]]:
        """Yield (session, number of the last event it was given) of every open stream."""
        for session_id, readers in self._readers.items():
            for reader in readers:
                yield session_id, reader.position

    def close_readers(self, session_id: str, last: bytes | None = None) -> None:
        """End the session's streams after what is in the log; `last` is a frame that is not stored."""
        for reader in self._readers.get(session_id, ()):
            reader.close(last)

    async def last_seq(self, session_id: str) -> int:
        """Return the number of the session's last stored event. Raises NotFoundError."""
        query = "SELECT last_seq FROM sessions WHERE id = ?"
        row = await self._database.read(lambda c: c.execute(query, (session_id,)).fetchone())
        if row is None:
            raise NotFoundError(f"session {session_id} does not exist")
        return int(row[0])

    def detach(self, session_id: str) -> None:
        """Another process writes the session from now on: end our streams, keep nothing of it."""
        self._tails.pop(session_id, None)
        self.close_readers(session_id)

    def close(self) -> None:
        """End all streams."""
        for session_id in list(self._readers):
            self.close_readers(session_id)

    async def events_after(self, session_id: str, after: int) -> AsyncIterator[Event]:
        """Yield persisted events with a higher number, from memory when they are all there."""
        tail = self._tails.get(session_id)
        if tail is not None and (recent := tail.after(after)) is not None:
            for event in recent:
                yield event
            return
        while True:
            batch, is_last = await self._database.read(_select_after(session_id, after))
            shared = [self.share(event) for event in batch]
            del batch  # the copies that were not needed
            for event in shared:
                yield event
            if is_last:
                return
            after = shared[-1].seq

    def share(self, event: Event) -> Event:
        """Return the same event as another reader holds it, if one does: large ones are in memory once."""
        return self._in_use.setdefault(event.id, event)

    def _publish(self, session_id: str, events: Sequence[Event]) -> None:
        readers = self._readers.get(session_id)
        if not readers:
            return
        tail = self._tails.setdefault(session_id, _Tail())
        tail.extend(events)
        for reader in readers:
            reader.notify()


def _select_after(session_id: str, after: int) -> Callable[[Connection], tuple[list[Event], bool]]:
    """Return the job that reads the next events; its second result says that these were the last."""

    def select(connection: Connection) -> tuple[list[Event], bool]:
        rows = connection.execute(
            "SELECT seq, id, type, processed_us, body FROM events "
            "WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (session_id, after, _READ_BATCH),
        )
        found, chars = [], 0
        for row in rows:
            found.append(from_row(*row))
            chars += found[-1].size
            if chars >= _READ_CHARS:
                return found, False
        return found, len(found) < _READ_BATCH

    return select


def _number(drafts: Sequence[Draft], head: Head) -> Iterator[Event]:
    """Yield the events that follow `head` in the sequence."""
    seq, processed_us = head.seq, head.processed_us
    for draft in drafts:
        seq, processed_us = seq + 1, processed_us + 1
        event_id = draft.id or new_id("sevt")
        body = {
            "id": event_id,
            "type": draft.type,
            "processed_at": timestamps.rfc3339(processed_us),
            **draft.fields,
        }
        text = frame = None
        if json_size(draft.fields) > LONG_CHARS:
            frame = long_frame(draft.type, body)
        else:
            text = to_json(body)
        yield Event(seq, event_id, draft.type, processed_us, text, draft.ends_turn, frame)
