"""After a restart: what an earlier process left open is settled from the log alone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from sidecar.managed.actor import SessionActor
from sidecar.managed.drafts import (
    INTERRUPTED_TEXT,
    Usage,
    request_end_draft,
    tool_result_draft,
)
from sidecar.managed.event_log import Draft
from sidecar.managed.failures import Failure
from sidecar.managed.translate import Output
from sidecar.managed.turn import failed
from sidecar.store.database import Database

_TOOL_KINDS = {
    "agent.tool_use": "builtin",
    "agent.mcp_tool_use": "mcp",
    "agent.custom_tool_use": "custom",
}
_RESULT_FIELDS = ("tool_use_id", "mcp_tool_use_id", "custom_tool_use_id")
_RESULT_TYPES = frozenset(
    {"agent.tool_result", "agent.mcp_tool_result", "user.custom_tool_result", "user.tool_result"}
)


def unfinished_sessions(connection: sqlite3.Connection) -> list[str]:
    """Return the sessions that ran, or had something waiting, when the process ended."""
    rows = connection.execute(
        "SELECT id FROM sessions WHERE status IN ('running', 'rescheduling') "
        "UNION SELECT session_id FROM queued_events"
    )
    return [row[0] for row in rows]


async def recover(actor: SessionActor, database: Database, reason: str) -> None:
    """Bring one session to a state it can go on from. Needs the actor's lock.

    A turn whose prompt the child never saw is run now. Any other open turn is settled with an honest
    error. Queued messages follow.
    """
    record = actor.record
    if record.status in {"running", "rescheduling"} and record.turn is not None:
        events = await database.read(lambda connection: turn_events(connection, record.id))
        if not record.turn.is_prompted:
            opening = next(e for e in events if e["id"] == record.turn.user_event_id)
            actor.start_clock()
            actor.launch(opening["content"])
            return
        drafts = closing_drafts(events)
        await actor.end_turn(None, failed(Failure("unknown_error", reason)), Output(drafts=drafts))
        return
    await actor.start_next()


def turn_events(connection: sqlite3.Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the events since the last one that ended a turn for good."""
    rows = connection.execute(
        "SELECT body FROM events WHERE session_id = ?1 AND seq > coalesce(("
        "  SELECT max(seq) FROM events WHERE session_id = ?1 AND type = 'session.status_idle'"
        "  AND json_extract(body, '$.stop_reason.type') <> 'requires_action'), 0) ORDER BY seq",
        (session_id,),
    )
    return [json.loads(row[0]) for row in rows]


def closing_drafts(events: Iterable[dict[str, Any]], text: str = INTERRUPTED_TEXT) -> list[Draft]:
    """Return an end for each open model request and an error result for each open call."""
    spans: dict[str, None] = {}
    tools: dict[str, str] = {}
    for event in events:
        if event["type"] == "span.model_request_start":
            spans[event["id"]] = None
        elif event["type"] == "span.model_request_end":
            spans.pop(event["model_request_start_id"], None)
        elif event["type"] in _TOOL_KINDS:
            tools[event["id"]] = _TOOL_KINDS[event["type"]]
        elif event["type"] in _RESULT_TYPES:
            for field in _RESULT_FIELDS:
                tools.pop(event.get(field, ""), None)
    content = [{"type": "text", "text": text}]
    ends = [request_end_draft(span, is_error=None, usage=Usage()) for span in spans]
    results = [tool_result_draft(use, kind, content, is_error=True) for use, kind in tools.items()]
    return [*ends, *results]
