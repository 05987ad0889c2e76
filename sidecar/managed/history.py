"""Reading a session's events: lists with filters and cursors."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.errors import InvalidRequestError
from sidecar.managed.pages import Order
from sidecar.managed.records import select_queue, select_session
from sidecar.store.database import Database

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


async def list_events(database: Database, session_id: str, query: EventQuery) -> dict[str, Any]:
    """Return `{data, next_page}`; queued client events come last, with `processed_at` null.

    Raises NotFoundError, InvalidRequestError.
    """
    after = _decode(query.page, query.order) if query.page else None
    return await database.read(lambda connection: _select(connection, session_id, query, after))


def _select(
    connection: sqlite3.Connection, session_id: str, query: EventQuery, after: int | None
) -> dict[str, Any]:
    select_session(connection, session_id)
    conditions, parameters = ["session_id = ?"], [session_id]
    ascending = query.order == "asc"
    if after is not None:
        conditions.append("seq > ?" if ascending else "seq < ?")
        parameters.append(str(after))
    if query.types:
        conditions.append(f"type IN ({','.join('?' * len(query.types))})")
        parameters += query.types
    for operator, microseconds in query.bounds:
        conditions.append(f"processed_us {operator} ?")
        parameters.append(str(microseconds))
    limit = -1 if query.limit is None else query.limit + 1
    rows = connection.execute(
        f"SELECT seq, body FROM events WHERE {' AND '.join(conditions)} "  # noqa: S608  # constants
        f"ORDER BY seq {'ASC' if ascending else 'DESC'} LIMIT {limit}",
        parameters,
    ).fetchall()
    more = query.limit is not None and len(rows) > query.limit
    rows = rows[: query.limit]
    data = [json.loads(row["body"]) for row in rows]
    if not query.bounds:
        data = _with_queued(
            connection, session_id, query, data, is_first=after is None, is_last=not more
        )
    next_page = _encode(rows[-1]["seq"], query.order) if more else None
    return {"data": data, "next_page": next_page}


def _with_queued(
    connection: sqlite3.Connection,
    session_id: str,
    query: EventQuery,
    data: list[dict[str, Any]],
    *,
    is_first: bool,
    is_last: bool,
) -> list[dict[str, Any]]:
    queued = [
        event.answer()
        for event in select_queue(connection, session_id)
        if not query.types or event.type in query.types
    ]
    if query.order == "asc":
        return [*data, *queued] if is_last else data
    return [*reversed(queued), *data] if is_first else data


def _encode(seq: int, order: Order) -> str:
    return base64.urlsafe_b64encode(f"{order}:{seq}".encode()).decode().rstrip("=")


def _decode(page: str, order: Order) -> int:
    try:
        text = base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)).decode()
        made_for, seq = text.split(":")
        number = int(seq)
    except (ValueError, binascii.Error) as error:
        raise InvalidRequestError(
            "page: not a cursor of this list; use next_page of an earlier answer", field="page"
        ) from error
    if made_for != order:
        raise InvalidRequestError(
            f"page: the cursor was made with order={made_for}; keep the order", field="page"
        )
    return number
