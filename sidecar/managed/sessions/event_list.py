"""Reading a session's events: lists with filters and cursors."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from sidecar.aiokit import aside
from sidecar.errors import InvalidRequestError
from sidecar.managed.common.pagination import Order
from sidecar.managed.events.event import Event, from_row
from sidecar.managed.sessions.table import select_queue, select_session
from sidecar.store.interface import Connection, Store
from sidecar.wire.json_text import read_strictly, storable

_PIECE_CHARS = 256 * 1024
"""Size of a piece, about."""
_LARGE_CHARS = 64 * 1024
"""From here on an event is in memory once for all that read it."""
_READ_ROWS = 500
_HIGHEST_SEQ = 2**63 - 1

EVENT_TYPES = frozenset(
    {
        "user.message",
        "user.interrupt",
        "user.tool_confirmation",
        "user.custom_tool_result",
        "user.tool_result",
        "system.message",
        "agent.message",
        "agent.thinking",
        "agent.tool_use",
        "agent.tool_result",
        "agent.mcp_tool_use",
        "agent.mcp_tool_result",
        "agent.custom_tool_use",
        "agent.thread_context_compacted",
        "session.status_running",
        "session.status_idle",
        "session.status_rescheduled",
        "session.status_terminated",
        "session.thread_status_running",
        "session.thread_status_idle",
        "session.thread_status_rescheduled",
        "session.thread_status_terminated",
        "session.usage",
        "session.updated",
        "session.error",
        "span.model_request_start",
        "span.model_request_end",
        # Offered by the hosted API only: a filter by them is right, and finds nothing.
        "user.define_outcome",
        "agent.thread_message_received",
        "agent.thread_message_sent",
        "session.thread_created",
        "span.outcome_evaluation_start",
        "span.outcome_evaluation_ongoing",
        "span.outcome_evaluation_end",
        "workflow_run.created",
        "workflow_run.status_running",
        "workflow_run.status_idle",
        "workflow_run.status_ended",
        "workflow_run.error",
        "workflow_run.phase_started",
        "workflow_run.phase_ended",
    }
)
"""The types that the API knows; a filter by any other is a mistake worth telling."""

BOOKKEEPING = frozenset(
    type_
    for type_ in EVENT_TYPES
    if type_.startswith(("span.", "session.thread_status_")) or type_ == "session.usage"
)
"""Events about requests, tokens and the one thread: two fifths of a log. Clients other than the official SDKs
and did not ask for it pay for it and show none of it (LAP writes each event to its database at each list)."""


@dataclass(slots=True)
class EventQuery:
    """A list request. Date bounds are (operator, microseconds) pairs on `processed_at`."""

    limit: int | None = None
    order: Order = "asc"
    page: str | None = None
    types: Sequence[str] = ()
    hidden: frozenset[str] = frozenset()
    """Types that are left out, unless `types` names what is wanted."""
    bounds: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins: after these numbers in the log and in the queue, in the list's order."""

    seq: int | None
    position: int | None

    @classmethod
    def of_start(cls, order: Order) -> _Place:
        return cls(0, 0) if order == "asc" else cls(None, None)

    def encode(self, order: Order) -> str:
        raw = json.dumps([order, self.seq, self.position])
        return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, order: Order) -> _Place:
        """Read what `encode` wrote. Raises InvalidRequestError; also when the order differs."""
        try:
            padded = text + "=" * (-len(text) % 4)
            made_for, seq, position = read_strictly(base64.urlsafe_b64decode(padded))
        except (ValueError, TypeError, binascii.Error):
            made_for, seq, position = "", "", ""
        if not (_is_number(seq) and _is_number(position)):
            raise InvalidRequestError(
                "page: not a cursor of this list; use next_page of an earlier answer", field="page"
            )
        if made_for != order:
            raise InvalidRequestError(
                "page: the cursor was made with another order; keep the order", field="page"
            )
        return cls(seq, position)


def _is_number(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**63)


async def list_events(
    store: Store,
    session_id: str,
    query: EventQuery,
    *,
    share: Callable[[Event], Event],
    max_chars: int,
) -> AsyncIterator[bytes | memoryview]:
    """Yield the JSON document `{"data": [...], "next_page": ...}` in pieces, as it is read.

    The stored texts are passed on as they are. At any time one piece is in memory, about 256 KiB, or one
    large event, which `share` has all its readers hold together. A page ends at `query.limit`, or when its
    events have `max_chars` characters. Queued client events come last, with `processed_at` null. One that is
    processed between two pages is on both of them, with the same id. Raises NotFoundError and
    InvalidRequestError before the first piece.
    """
    reader = _Reader(session_id, query, max_chars=max_chars)
    opening, is_last = '{"data":[', False
    while not is_last:
        read, is_last = await store.read(reader.read)
        # Held while the pieces are written, which may take minutes: other readers find the large ones here.
        found = [item if isinstance(item, str) else share(item) for item in read]
        del read
        texts: list[str] = []
        for item in found:
            texts.append(opening)
            opening = ","
            if isinstance(item, str):
                texts.append(item)
            else:
                yield "".join(texts).encode()
                yield await aside(item.size, partial(_encoded, item))
                texts = []
        if is_last:
            start = opening if opening != "," else ""
            texts.append(f'{start}],"next_page":{json.dumps(reader.next_page)}}}')
        if texts:
            yield "".join(texts).encode()


def _encoded(event: Event) -> memoryview:
    return event.encoded


class _Reader:
    """Reads one page in as many jobs as it has pieces; between them it is a place in the list.

    Events move from the queue to the log meanwhile, never back. The queue is therefore always read in one
    job together with the log's end that is next to it: the last part of the log when ascending, the first
    when descending. So none is missed, and none is seen twice.
    """

    def __init__(self, session_id: str, query: EventQuery, *, max_chars: int) -> None:
        self._session_id = session_id
        self._query = query
        self._max_chars = max_chars
        self._place = _Place.of_start(query.order)
        if query.page:
            self._place = _Place.decode(query.page, query.order)
        self._count = 0
        self._chars = 0
        self.next_page: str | None = None

    def read(self, connection: Connection) -> tuple[list[str | Event], bool]:
        """Return what comes next, and whether the page ends with it; otherwise at least one event follows.

        It is the events as they are answered, or an `Event` where it is large.
        """
        select_session(connection, self._session_id)
        found: list[str | Event] = []
        chars, was_logged = 0, False
        for place, item, is_logged in self._rest(connection):
            if self._is_full():
                self.next_page = self._place.encode(self._query.order)
                break
            if was_logged and is_logged and chars >= _PIECE_CHARS:
                return found, False
            size = len(item) if isinstance(item, str) else item.size
            self._place = place
            self._count += 1
            self._chars += size
            chars += size
            found.append(item)
            was_logged = is_logged
        return found, True

    def _is_full(self) -> bool:
        if self._count == 0:
            return False
        limit = self._query.limit
        return (limit is not None and self._count >= limit) or self._chars >= self._max_chars

    def _rest(self, connection: Connection) -> Iterator[tuple[_Place, str | Event, bool]]:
        """Yield (place, event, whether it is of the log) from here on, in the list's order."""
        is_logged = self._query.order == "asc"
        for part in (is_logged, not is_logged):
            select = self._logged if part else self._queued
            for place, item in select(connection):
                yield place, item, part

    def _logged(self, connection: Connection) -> Iterator[tuple[_Place, str | Event]]:
        query, is_ascending = self._query, self._query.order == "asc"
        conditions: list[str] = ["session_id = ?", f"seq {'>' if is_ascending else '<'} ?"]
        filters: list[str | int] = []
        if query.types:
            conditions.append(f"type IN ({','.join('?' * len(query.types))})")
            filters += query.types
        elif query.hidden:
            conditions.append(f"type NOT IN ({','.join('?' * len(query.hidden))})")
            filters += sorted(query.hidden)
        for operator, microseconds in query.bounds:
            conditions.append(f"processed_us {operator} ?")
            filters.append(microseconds)
        select = (
            f"SELECT seq, id, type, processed_us, body FROM events WHERE {' AND '.join(conditions)} "  # noqa: S608  # constants
            f"ORDER BY seq {'ASC' if is_ascending else 'DESC'} LIMIT {_READ_ROWS}"
        )
        # In descending order the queue was before the log: it is behind us.
        position = self._place.position if is_ascending else 0
        seq, count = self._place.seq, _READ_ROWS
        while count == _READ_ROWS:
            count = 0
            after = _HIGHEST_SEQ if seq is None else seq
            for row in connection.execute(select, (self._session_id, after, *filters)):
                seq, count = row["seq"], count + 1
                is_large = len(row["body"]) > _LARGE_CHARS
                yield _Place(seq, position), from_row(*row) if is_large else storable(row["body"])

    def _queued(self, connection: Connection) -> Iterator[tuple[_Place, str | Event]]:
        query, start = self._query, self._place
        if query.bounds:
            return  # they have no time yet
        events = select_queue(connection, self._session_id)
        if query.order == "desc":
            events.reverse()
        for event in events:
            is_behind = start.position is not None and (
                event.position <= start.position
                if query.order == "asc"
                else event.position >= start.position
            )
            if not is_behind and (not query.types or event.type in query.types):
                yield _Place(start.seq, event.position), event.as_json()
