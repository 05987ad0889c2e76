"""Reading a session's events: lists with filters and cursors."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import InvalidRequestError
from sidecar.managed.common.pagination import Order
from sidecar.managed.sessions.table import select_queue, select_session
from sidecar.store.interface import Connection, Store
from sidecar.wire.json_text import read_strictly

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


@dataclass(slots=True)
class EventQuery:
    """A list request. Date bounds are (operator, microseconds) pairs on `processed_at`."""

    limit: int | None = None
    order: Order = "asc"
    page: str | None = None
    types: Sequence[str] = ()
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


async def list_events(database: Store, session_id: str, query: EventQuery) -> dict[str, Any]:
    """Return `{data, next_page}`; queued client events come last, with `processed_at` null.

    One that is processed between two pages is on both of them, with the same id. Raises NotFoundError,
    InvalidRequestError.
    """
    start = _Place.of_start(query.order)
    if query.page:
        start = _Place.decode(query.page, query.order)
    return await database.read(lambda connection: _select(connection, session_id, query, start))


def _select(
    connection: Connection, session_id: str, query: EventQuery, start: _Place
) -> dict[str, Any]:
    select_session(connection, session_id)
    wanted = None if query.limit is None else query.limit + 1
    parts = [_logged, _queued] if query.order == "asc" else [_queued, _logged]
    found: list[tuple[_Place, dict[str, Any]]] = []
    for part in parts:
        left = None if wanted is None else wanted - len(found)
        found += part(connection, session_id, query, found[-1][0] if found else start, left)
    page = found if query.limit is None else found[: query.limit]
    next_page = page[-1][0].encode(query.order) if len(found) > len(page) else None
    return {"data": [event for _, event in page], "next_page": next_page}


def _logged(
    connection: Connection,
    session_id: str,
    query: EventQuery,
    start: _Place,
    count: int | None,
) -> list[tuple[_Place, dict[str, Any]]]:
    conditions: list[str] = ["session_id = ?"]
    parameters: list[str | int] = [session_id]
    ascending = query.order == "asc"
    if start.seq is not None:
        conditions.append("seq > ?" if ascending else "seq < ?")
        parameters.append(start.seq)
    if query.types:
        conditions.append(f"type IN ({','.join('?' * len(query.types))})")
        parameters += query.types
    for operator, microseconds in query.bounds:
        conditions.append(f"processed_us {operator} ?")
        parameters.append(microseconds)
    rows = connection.execute(
        f"SELECT seq, body FROM events WHERE {' AND '.join(conditions)} "  # noqa: S608  # constants
        f"ORDER BY seq {'ASC' if ascending else 'DESC'}{'' if count is None else f' LIMIT {count}'}",
        parameters,
    )
    # In descending order the queue was before the log: it is behind us.
    position = start.position if ascending else 0
    return [(_Place(row["seq"], position), json.loads(row["body"])) for row in rows]


def _queued(
    connection: Connection,
    session_id: str,
    query: EventQuery,
    start: _Place,
    count: int | None,
) -> list[tuple[_Place, dict[str, Any]]]:
    if query.bounds:
        return []  # they have no time yet
    events = select_queue(connection, session_id)
    if query.order == "desc":
        events.reverse()
    found = []
    for event in events:
        is_behind = start.position is not None and (
            event.position <= start.position
            if query.order == "asc"
            else event.position >= start.position
        )
        if not is_behind and (not query.types or event.type in query.types):
            found.append((_Place(start.seq, event.position), event.to_api()))
    return found[:count]
