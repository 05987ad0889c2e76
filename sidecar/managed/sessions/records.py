"""The session's row: what is stored, how it is read, how the API shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.errors import NotFoundError
from sidecar.managed.common import timestamps
from sidecar.managed.turns.event_builders import Usage
from sidecar.store.interface import Connection, Row

Status = Literal["idle", "running", "rescheduling", "terminated"]


@dataclass(slots=True)
class Tally:
    """Tokens of a session so far."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    def add(self, usage: Usage) -> None:
        """Count one model request."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_creation_input_tokens += usage.cache_creation_input_tokens
        self.cache_read_input_tokens += usage.cache_read_input_tokens

    def stored(self) -> str:
        """Return the column's text."""
        return json.dumps(
            [
                self.input_tokens,
                self.output_tokens,
                self.cache_creation_input_tokens,
                self.cache_read_input_tokens,
            ]
        )

    def answer(self, active_us: int) -> dict[str, Any]:
        """Return the API's usage object. All cache writes count as the five-minute kind."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_input_tokens": self.cache_read_input_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_creation_input_tokens,
                "ephemeral_1h_input_tokens": 0,
            },
            "active_seconds": active_us / 1e6,
        }


@dataclass(slots=True)
class TurnRecord:
    """What must be known of an open turn after a crash.

    `message_id` is our id of the prompt in opencode. `is_repeated` says that it was sent a second time, so
    never again. `blocked` lists the events that wait for the client, in order.
    """

    user_event_id: str
    message_id: str
    is_repeated: bool = False
    blocked: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, text: str) -> TurnRecord:
        """Read the column's text. Earlier versions noted the first sending, and made no second."""
        stored = json.loads(text)
        if stored.pop("is_prompted", False):
            stored["is_repeated"] = True
        return cls(**stored)

    def stored(self) -> str:
        """Return the column's text."""
        return json.dumps(
            {
                "user_event_id": self.user_event_id,
                "message_id": self.message_id,
                "is_repeated": self.is_repeated,
                "blocked": self.blocked,
            }
        )


@dataclass(slots=True)
class SessionRecord:
    """One session. `body` holds agent, title, metadata, resources and vault_ids as answered."""

    id: str
    agent_id: str
    agent_version: int
    environment_id: str
    thread_id: str
    model_ref: str
    status: Status
    created_at: str
    updated_at: str
    archived_at: str | None
    last_seq: int
    last_processed_us: int
    child_session_id: str | None
    usage: Tally
    active_us: int
    turn: TurnRecord | None
    body: dict[str, Any]

    @classmethod
    def from_row(cls, row: Row) -> SessionRecord:
        """Read a row of `sessions`."""
        values: dict[str, Any] = dict(row)
        values["usage"] = Tally(*json.loads(row["usage"]))
        values["turn"] = TurnRecord.read(row["turn"]) if row["turn"] else None
        values["body"] = json.loads(row["body"])
        return cls(**values)

    @property
    def agent(self) -> dict[str, Any]:
        """The agent's snapshot."""
        snapshot: dict[str, Any] = self.body["agent"]
        return snapshot

    def answer(self) -> dict[str, Any]:
        """Return the API's session object."""
        created_us = timestamps.parse_rfc3339(self.created_at, field="created_at")
        ended_us = (
            timestamps.parse_rfc3339(self.updated_at, field="updated_at")
            if self.status == "terminated"
            else timestamps.now_us()
        )
        return {
            "id": self.id,
            "type": "session",
            "status": self.status,
            "agent": self.agent,
            "environment_id": self.environment_id,
            "title": self.body["title"],
            "metadata": self.body["metadata"],
            "resources": self.body["resources"],
            "vault_ids": self.body["vault_ids"],
            "outcome_evaluations": [],
            "stats": {
                "active_seconds": self.active_us / 1e6,
                "duration_seconds": max(0, ended_us - created_us) / 1e6,
            },
            "usage": self.usage.answer(self.active_us),
            "budget": None,
            "deployment_id": None,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
        }

    def thread(self) -> dict[str, Any]:
        """Return the primary thread, which has the session's state."""
        session = self.answer()
        agent = {key: value for key, value in self.agent.items() if key != "multiagent"}
        return {
            "id": self.thread_id,
            "type": "session_thread",
            "session_id": self.id,
            "parent_thread_id": None,
            "status": self.status,
            "agent": agent,
            "stats": session["stats"],
            "usage": session["usage"],
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "archived_at": self.archived_at,
        }


def select_session(connection: Connection, session_id: str) -> SessionRecord:
    """Return the session. Raises NotFoundError."""
    row = connection.execute("SELECT * FROM sessions WHERE id = ?", (session_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"session {session_id} does not exist")
    return SessionRecord.from_row(row)


def save_state(connection: Connection, record: SessionRecord) -> None:
    """Write the columns that a turn changes."""
    connection.execute(
        "UPDATE sessions SET status = ?, updated_at = ?, child_session_id = ?, usage = ?, "
        "active_us = ?, turn = ? WHERE id = ?",
        (
            record.status,
            record.updated_at,
            record.child_session_id,
            record.usage.stored(),
            record.active_us,
            record.turn.stored() if record.turn else None,
            record.id,
        ),
    )


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
            record.usage.stored(),
            json.dumps(record.body),
        ),
    )


def save_body(connection: Connection, record: SessionRecord) -> None:
    """Write what a client can change."""
    connection.execute(
        "UPDATE sessions SET body = ?, updated_at = ?, archived_at = ?, status = ? WHERE id = ?",
        (json.dumps(record.body), record.updated_at, record.archived_at, record.status, record.id),
    )


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """A client's event that waits for its turn."""

    position: int
    id: str
    type: str
    text: str
    """Its other fields, a JSON object: what is stored."""

    @property
    def fields(self) -> dict[str, Any]:
        """The other fields."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed

    def answer(self) -> dict[str, Any]:
        """Return the event as the list shows it: not processed yet."""
        return {"id": self.id, "type": self.type, "processed_at": None, **self.fields}


def select_queue(connection: Connection, session_id: str) -> list[QueuedEvent]:
    """Return what waits, in order."""
    rows = connection.execute(
        "SELECT position, id, type, body FROM queued_events WHERE session_id = ? ORDER BY position",
        (session_id,),
    )
    return [QueuedEvent(r["position"], r["id"], r["type"], r["body"]) for r in rows]
