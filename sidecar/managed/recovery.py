"""After a restart: what an earlier process left open is settled from the log alone."""

from __future__ import annotations

import sqlite3

from sidecar.managed.actor import SessionActor
from sidecar.managed.drafts import Output
from sidecar.managed.failures import Failure
from sidecar.managed.resume import (
    ANSWERS,
    answered_calls,
    closing_drafts,
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
