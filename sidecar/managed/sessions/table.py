"""The SQL of sessions, of the events queued behind their turns, and of a turn's events in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from sidecar.errors import NotFoundError
from sidecar.managed.turns.state import (
    SYSTEM,
    AcceptedEvent,
    QueuedEvent,
    SessionRecord,
    TurnRecord,
)
from sidecar.model_requests import Usage
from sidecar.store.interface import Connection, Row

_OWNERSHIP = frozenset({"owner_boot", "owner_epoch", "home"})
"""Columns that only PostgreSQL has; they belong to `sidecar.cluster`."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """What the store has of a session that its actor works with."""

    record: SessionRecord
    queue: list[QueuedEvent]
    system_messages: list[str]
    turn_first_seq: int = 0
    """The event that opened the turn which is not over, 0 without one."""


def read_row(row: Row) -> SessionRecord:
    """Return a row of `sessions` as a record."""
    values: dict[str, Any] = {key: row[key] for key in row.keys() if key not in _OWNERSHIP}  # noqa: SIM118  # a row is not a dict
    values["usage"] = Usage(*json.loads(row["usage"]))
    values["turn"] = TurnRecord.read(row["turn"]) if row["turn"] else None
    values["body"] = json.loads(row["body"])
    return SessionRecord(**values)


def select_session(connection: Connection, session_id: str) -> SessionRecord:
    """Return the session. Raises NotFoundError."""
    row = connection.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"session {session_id} does not exist")
    return read_row(row)


def insert_session(connection: Connection, record: SessionRecord) -> None:
    """Write a new row."""
    connection.execute(
        "INSERT INTO sessions (id, agent_id, agent_version, environment_id, thread_id, model_ref, "
        "status, created_at, updated_at, usage, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.id,
            record.agent_id,
            record.agent_version,
            record.environment_id,
            record.thread_id,
            record.model_ref,
            record.status,
            record.created_at,
            record.updated_at,
            _usage_text(record.usage),
            json.dumps(record.body),
        ),
    )


def state_columns(record: SessionRecord) -> dict[str, Any]:
    """Return the columns that a turn changes, with their values."""
    return {
        "status": record.status,
        "updated_at": record.updated_at,
        "child_session_id": record.child_session_id,
        "usage": _usage_text(record.usage),
        "active_us": record.active_us,
        "turn": record.turn.stored() if record.turn else None,
    }


def save_body(connection: Connection, record: SessionRecord) -> None:
    """Write what a client can change."""
    connection.execute(
        "UPDATE sessions SET body = ?, updated_at = ?, archived_at = ?, status = ? WHERE id = ?",
        (json.dumps(record.body), record.updated_at, record.archived_at, record.status, record.id),
    )


def select_queue(connection: Connection, session_id: str) -> list[QueuedEvent]:
    """Return the queued events, in order."""
    rows = connection.execute(
        "SELECT position, id, type, body FROM queued_events WHERE session_id = ? ORDER BY position",
        (session_id,),
    )
    return [QueuedEvent(r["position"], r["id"], r["type"], r["body"]) for r in rows]


def select_stored(connection: Connection, session_id: str) -> StoredSession:
    """Return all of a session that its actor works with. Raises NotFoundError."""
    rows = connection.execute(
        "SELECT body FROM events WHERE session_id = ? AND type = ? ORDER BY seq",
        (session_id, SYSTEM),
    )
    systems = [system_text(json.loads(row["body"])) for row in rows]
    record = select_session(connection, session_id)
    first_seq = 0
    if record.turn is not None:
        opening = connection.execute(
            "SELECT seq FROM events WHERE id = ?", (record.turn.user_event_id,)
        ).fetchone()
        first_seq = opening["seq"] if opening is not None else 0
    return StoredSession(record, select_queue(connection, session_id), systems, first_seq)


def system_text(fields: Mapping[str, Any]) -> str:
    """Return the text of a `system.message`."""
    return "\n".join(block["text"] for block in fields["content"])


def insert_accepted(
    connection: Connection, request_id: str, session_id: str, event_ids: Sequence[str]
) -> None:
    """Note that a request of another pod was accepted as those events. PostgreSQL only."""
    connection.execute(
        "INSERT INTO requests (id, session_id, event_ids) VALUES (?, ?, ?)",
        (request_id, session_id, json.dumps(list(event_ids))),
    )


def select_accepted(connection: Connection, request_id: str) -> list[AcceptedEvent] | None:
    """Return the events that a request was accepted as, None when it was not. PostgreSQL only."""
    row = connection.execute(
        "SELECT session_id, event_ids FROM requests WHERE id = ?", (request_id,)
    ).fetchone()
    if row is None:
        return None
    order = json.loads(row["event_ids"])
    marks = ", ".join("?" * len(order))
    found = {
        event.id: AcceptedEvent(event.id, is_queued=True, text=event.as_json())
        for event in select_queue(connection, row["session_id"])
    }
    logged = f"SELECT id, body FROM events WHERE id IN ({marks})"  # noqa: S608  # marks
    for id_, text in connection.execute(logged, order):
        found[id_] = AcceptedEvent(id_, is_queued=False, text=text)
    return [found[id_] for id_ in order if id_ in found]


def turn_events(connection: Connection, session_id: str) -> list[dict[str, Any]]:
    """Return the events since the last one that ended a turn for good."""
    rows = connection.execute(
        "SELECT body FROM events WHERE session_id = ? AND seq > coalesce("
        "(SELECT max(seq) FROM events WHERE session_id = ? AND ends_turn = 1), 0) ORDER BY seq",
        (session_id, session_id),
    )
    return [json.loads(row[0]) for row in rows]


def _usage_text(usage: Usage) -> str:
    return json.dumps(astuple(usage))
