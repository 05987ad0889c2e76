"""Sessions put into the store directly, for cases that need a history and no turns."""

from __future__ import annotations

from sidecar.ids import new_id
from sidecar.managed.common import timestamps
from sidecar.managed.events.event import Draft
from sidecar.managed.sessions.table import insert_session
from sidecar.managed.turns.state import SessionRecord
from sidecar.model_requests import Usage
from sidecar.store.interface import Store

MESSAGE = Draft("agent.message", {"content": [{"type": "text", "text": "some words " * 20}]})
"""An event of a usual size."""


async def new_session(database: Store) -> str:
    """Store an idle session without events; return its id."""
    now = timestamps.now()
    record = SessionRecord(
        id=new_id("sesn"),
        agent_id=new_id("agent"),
        agent_version=1,
        environment_id=new_id("env"),
        thread_id=new_id("sthr"),
        model_ref="litellm/bench",
        status="idle",
        created_at=now,
        updated_at=now,
        archived_at=None,
        last_seq=0,
        last_processed_us=0,
        child_session_id=None,
        usage=Usage(),
        active_us=0,
        turn=None,
        body={"agent": {}, "title": None, "metadata": {}, "resources": [], "vault_ids": []},
    )
    await database.write(lambda connection: insert_session(connection, record))
    return record.id
