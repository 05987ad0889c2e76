"""Ageing out: LAP makes an agent and a session per conversation and deletes neither.

Deleted are sessions without activity for `SIDECAR_TURN_RETENTION_DAYS`, unless a turn runs or waits for
the client, and then agents of that age that no session refers to. Environments and vaults stay: there
are few, and clients keep their ids.
"""

from __future__ import annotations

import asyncio

import structlog

from sidecar.errors import SidecarError
from sidecar.managed.common import timestamps
from sidecar.managed.sessions.service import Sessions
from sidecar.store.interface import Connection, Store, StoreError

_PAUSE_SECONDS = 3600.0
_FIRST_PAUSE_SECONDS = 60.0
"""After the start, so that a burst of deletions does not meet the burst of reconnecting clients."""
_BATCH = 200
_DAY_US = 86_400 * 1_000_000

_log = structlog.get_logger(__name__)


class Retention:
    """Deletes what is old and unused. `run` is to be run as a task."""

    def __init__(
        self,
        *,
        database: Store,
        sessions: Sessions,
        days: float,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._days = days
        self._first_pause_seconds = first_pause_seconds
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Sweep every hour until cancelled; with 0 days never."""
        if not self._days:
            return
        await asyncio.sleep(self._first_pause_seconds)
        while True:
            try:
                await self.sweep()
            except StoreError as error:  # locked or full: the next time it may not be
                _log.warning("nothing aged out, the store fails", error=str(error))
            await asyncio.sleep(self._pause_seconds)

    async def sweep(self) -> tuple[int, int]:
        """Delete what is due; return how many sessions and agents went."""
        before = timestamps.rfc3339(timestamps.now_us() - round(self._days * _DAY_US))
        sessions = 0
        while due := await self._database.read(
            lambda connection: _old_sessions(connection, before)
        ):
            gone = 0
            for session_id in due:
                gone += await self._delete(session_id)
            sessions += gone
            if not gone:
                break
        agents = await self._database.write(lambda connection: _delete_agents(connection, before))
        if sessions or agents:
            _log.info("aged out", sessions=sessions, agents=agents, before=before)
        return sessions, agents

    async def _delete(self, session_id: str) -> bool:
        try:
            await self._sessions.delete(session_id)
        except SidecarError as error:
            # It came to life, or went, between the query and now.
            _log.debug("session kept", session=session_id, reason=error.message)
            return False
        return True


def _old_sessions(connection: Connection, before: str) -> list[str]:
    rows = connection.execute(
        "SELECT id FROM sessions WHERE updated_at < ? AND turn IS NULL "
        "AND status NOT IN ('running', 'rescheduling') "
        "AND id NOT IN (SELECT session_id FROM queued_events) ORDER BY updated_at LIMIT ?",
        (before, _BATCH),
    )
    return [row[0] for row in rows]


def _delete_agents(connection: Connection, before: str) -> int:
    cursor = connection.execute(
        "DELETE FROM agents WHERE id IN (SELECT a.id FROM agents a JOIN agent_versions v "
        "ON v.agent_id = a.id AND v.version = a.version WHERE v.updated_at < ?) "
        "AND id NOT IN (SELECT agent_id FROM sessions)",
        (before,),
    )
    return cursor.rowcount
