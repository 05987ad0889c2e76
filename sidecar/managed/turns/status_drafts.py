"""The events that tell a session's status, each with its twin for the one thread."""

from __future__ import annotations

from typing import Any

from sidecar.managed.events.log import Draft
from sidecar.managed.sessions.records import SessionRecord


def running(record: SessionRecord) -> list[Draft]:
    """Make the pair that says the session works."""
    return [Draft("session.status_running"), _thread(record, "running")]


def rescheduled(record: SessionRecord) -> list[Draft]:
    """Make the pair that says it waits for another try."""
    return [Draft("session.status_rescheduled"), _thread(record, "rescheduled")]


def idle(record: SessionRecord, stop: dict[str, Any]) -> list[Draft]:
    """Make the three that say it stopped; the status is always the last event."""
    usage = record.usage.answer(record.active_us)
    return [
        _thread(record, "idle", **stop),
        Draft("session.usage", {"usage": usage, "budget": None}),
        Draft("session.status_idle", stop),
    ]


def terminated(record: SessionRecord) -> list[Draft]:
    """Make the two that say the session has ended for good."""
    return [_thread(record, "terminated"), Draft("session.status_terminated")]


def _thread(record: SessionRecord, state: str, **fields: Any) -> Draft:
    identity = {"session_thread_id": record.thread_id, "agent_name": record.agent["name"]}
    return Draft(f"session.thread_status_{state}", {**identity, **fields})
