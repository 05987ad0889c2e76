"""Ageing out: LAP makes an agent and a session per conversation and deletes neither.

Deleted are sessions without activity for `SIDECAR_TURN_RETENTION_DAYS`, unless a turn runs or waits for
the client, and then agents, environments and vaults that no session refers to and that none has used for as
long. LAP makes an environment per session, and vaults with its own master key inside.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial

import structlog

from sidecar.cluster.ownership import Ownership
from sidecar.errors import SidecarError
from sidecar.managed.common import timestamps
from sidecar.managed.common.resource_uses import forget_uses
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
        ownership: Ownership | None = None,
        days: float,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._ownership = ownership or Ownership()
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

    async def sweep(self) -> dict[str, int]:
        """Delete what is due; return how many of each kind went, by table."""
        before = timestamps.rfc3339(timestamps.now_us() - round(self._days * _DAY_US))
        gone = {"sessions": await self._sweep_sessions(before)}
        if not await self._database.write(self._takes_duty):
            return gone  # another pod sweeps what belongs to all
        for table in _UNUSED:
            gone[table] = await self._database.write(partial(_delete_unused, table, before))
        gone["vaults"] = await self._sweep_vaults(before)
        await self._database.write(lambda connection: forget_uses(connection, before))
        if any(gone.values()):
            _log.info("aged out", **gone, before=before)
        return gone

    def _takes_duty(self, connection: Connection) -> bool:
        return self._ownership.takes_duty(connection, "retention", self._pause_seconds)

    async def _sweep_sessions(self, before: str) -> int:
        sessions = 0
        while due := await self._database.read(
            lambda connection: _old_sessions(connection, before, *self._ownership.may_delete())
        ):
            gone = 0
            for session_id in due:
                gone += await self._delete(session_id)
            sessions += gone
            if not gone:
                break
        return sessions

    async def _sweep_vaults(self, before: str) -> int:
        """Delete the vaults that are due. Which vaults a session has stands in its body only."""
        due = set(await self._database.read(lambda connection: _old_vaults(connection, before)))
        after = ""
        while due:
            used, after = await self._database.read(partial(_vaults_in_use, after))
            due -= used
            if not after:
                break
        if not due:
            return 0
        # One that was used since those reads is named in `resource_uses` by now.
        return await self._database.write(lambda c: _delete_vaults(c, sorted(due), before))

    async def _delete(self, session_id: str) -> bool:
        try:
            await self._sessions.delete(session_id)
        except SidecarError as error:
            # It came to life, or went, between the query and now.
            _log.debug("session kept", session=session_id, reason=error.message)
            return False
        return True


def _old_sessions(
    connection: Connection, before: str, condition: str, parameters: tuple[str, ...]
) -> list[str]:
    query = (
        "SELECT id FROM sessions WHERE updated_at < ? AND turn IS NULL "  # noqa: S608  # a constant
        "AND status NOT IN ('running', 'rescheduling') "
        f"AND id NOT IN (SELECT session_id FROM queued_events){condition} ORDER BY updated_at LIMIT ?"
    )
    rows = connection.execute(query, (before, *parameters, _BATCH))
    return [row[0] for row in rows]


_NOT_USED_SINCE = "id NOT IN (SELECT resource_id FROM resource_uses WHERE used_at >= ?)"
_UNUSED = {
    "agents": (
        "id IN (SELECT a.id FROM agents a JOIN agent_versions v ON v.agent_id = a.id "
        "AND v.version = a.version WHERE v.updated_at < ?) "
        "AND id NOT IN (SELECT agent_id FROM sessions)"
    ),
    "environments": "updated_at < ? AND id NOT IN (SELECT environment_id FROM sessions)",
}
"""What of a table no session refers to; the parameter is the age."""
_OLD_VAULTS = (
    "updated_at < ? AND id NOT IN (SELECT vault_id FROM credentials WHERE updated_at >= ?) "  # noqa: S608
    f"AND {_NOT_USED_SINCE}"
)


def _delete_unused(table: str, before: str, connection: Connection) -> int:
    cursor = connection.execute(
        f"DELETE FROM {table} WHERE {_UNUSED[table]} AND {_NOT_USED_SINCE}",  # noqa: S608  # constants
        (before, before),
    )
    return cursor.rowcount


def _old_vaults(connection: Connection, before: str) -> list[str]:
    rows = connection.execute(
        f"SELECT id FROM vaults WHERE {_OLD_VAULTS}",  # noqa: S608  # constants
        (before, before, before),
    )
    return [row["id"] for row in rows]


def _vaults_in_use(after: str, connection: Connection) -> tuple[set[str], str]:
    """Return the vaults of the next sessions after that id, and the last of these; empty at the end."""
    rows = connection.execute(
        "SELECT id, body FROM sessions WHERE id > ? ORDER BY id LIMIT ?", (after, _BATCH)
    ).fetchall()
    used = {vault for row in rows for vault in json.loads(row["body"])["vault_ids"]}
    return used, rows[-1]["id"] if len(rows) == _BATCH else ""


def _delete_vaults(connection: Connection, due: Sequence[str], before: str) -> int:
    """Delete those that are still due, with their credentials."""
    gone = 0
    connection.note_erasure()
    for vault_id in due:
        gone += connection.execute(
            f"DELETE FROM vaults WHERE id = ? AND {_OLD_VAULTS}",  # noqa: S608  # constants
            (vault_id, before, before, before),
        ).rowcount
    return gone
