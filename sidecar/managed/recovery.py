"""After a restart: what an earlier process left open is settled from the log alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.managed.actor import SessionActor
from sidecar.managed.drafts import (
    INTERRUPTED_TEXT,
    Output,
    Usage,
    request_end_draft,
    tool_result_draft,
)
from sidecar.managed.event_log import Draft
from sidecar.managed.failures import Failure
from sidecar.managed.resume import (
    ANSWERS,
    answered_calls,
    logged_calls,
    resume_of,
    turn_events,
)
from sidecar.managed.turn_items import failed
from sidecar.store.database import Database


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
        opening = next((e for e in events if e["id"] == record.turn.user_event_id), None)
        if record.turn.is_prompted or opening is None:
            settled = Output(drafts=closing_drafts(events))
            await actor.end_turn(None, failed(Failure("unknown_error", reason)), settled)
            return
        actor.start_clock()
        if opening["type"] in ANSWERS:
            actor.launch([], resume_of(answered_calls(events)))
        else:
            actor.launch(opening["content"])
        return
    await actor.start_next()


def closing_drafts(
    events: Iterable[Mapping[str, Any]], text: str = INTERRUPTED_TEXT
) -> list[Draft]:
    """Return an end for each open model request and an error result for each open call."""
    events = list(events)
    spans: dict[str, None] = {}
    for event in events:
        if event["type"] == "span.model_request_start":
            spans[event["id"]] = None
        elif event["type"] == "span.model_request_end":
            spans.pop(event["model_request_start_id"], None)
    content = [{"type": "text", "text": text}]
    ends = [request_end_draft(span, is_error=None, usage=Usage()) for span in spans]
    results = [
        tool_result_draft(call.event_id, call.kind, content, is_error=True)
        for call in logged_calls(events).values()
        if not call.has_result
    ]
    return [*ends, *results]
