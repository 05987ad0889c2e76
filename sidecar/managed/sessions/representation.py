"""A session and its thread as the API shows them."""

from __future__ import annotations

from typing import Any

from sidecar.managed.agents.toolsets import shown_servers
from sidecar.managed.common import timestamps
from sidecar.managed.turns.event_builders import session_usage
from sidecar.managed.turns.state import SessionRecord
from sidecar.masking import masked_urls


def session_to_api(record: SessionRecord) -> dict[str, Any]:
    """Return the API's session object."""
    return {
        "id": record.id,
        "type": "session",
        "status": record.status,
        "agent": _agent(record),
        "environment_id": record.environment_id,
        "title": record.body["title"],
        "metadata": record.body["metadata"],
        "resources": [shown_resource(item) for item in record.body["resources"]],
        "vault_ids": record.body["vault_ids"],
        "outcome_evaluations": [],
        "stats": _stats(record),
        "usage": session_usage(record.usage, record.active_us),
        "budget": None,
        "deployment_id": None,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "archived_at": record.archived_at,
    }


def thread_to_api(record: SessionRecord) -> dict[str, Any]:
    """Return the primary thread, which has the session's state."""
    agent = {key: value for key, value in _agent(record).items() if key != "multiagent"}
    return {
        "id": record.thread_id,
        "type": "session_thread",
        "session_id": record.id,
        "parent_thread_id": None,
        "status": record.status,
        "agent": agent,
        "stats": _stats(record),
        "usage": session_usage(record.usage, record.active_us),
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "archived_at": record.archived_at,
    }


def shown_resource(resource: dict[str, Any]) -> dict[str, Any]:
    """Return a resource as it is answered: a URL that an older version stored may hold a secret."""
    return {**resource, "url": masked_urls(resource["url"])}


def _agent(record: SessionRecord) -> dict[str, Any]:
    return {**record.agent, "mcp_servers": shown_servers(record.agent["mcp_servers"])}


def _stats(record: SessionRecord) -> dict[str, float]:
    created_us = timestamps.parse_rfc3339(record.created_at, field="created_at")
    ended_us = (
        timestamps.parse_rfc3339(record.updated_at, field="updated_at")
        if record.status == "terminated"
        else timestamps.now_us()
    )
    return {
        "active_seconds": record.active_us / 1e6,
        "duration_seconds": max(0, ended_us - created_us) / 1e6,
    }
