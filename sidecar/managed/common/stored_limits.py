"""How many agents, environments, vaults and sessions are stored: each kind has a bound.

Archived ones count: they are stored, and are read at every list that asks for them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from sidecar.config import StorageSettings
from sidecar.errors import TooManyStoredError
from sidecar.store.interface import Connection, Store, StoreError

_REFRESH_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Limit:
    count: int
    setting: str
    owner_column: str = ""
    """The bound is on the rows of one owner, which this column names."""


class StoredLimits:
    """The bounds, and what was counted lately. Without `settings` there is none."""

    def __init__(self, settings: StorageSettings | None = None) -> None:
        self._limits: Mapping[str, _Limit] = {}
        if settings is not None:
            self._limits = {
                "agents": _Limit(settings.max_agents, "SIDECAR_STORAGE_MAX_AGENTS"),
                "agent_versions": _Limit(
                    settings.max_agent_versions, "SIDECAR_STORAGE_MAX_AGENT_VERSIONS", "agent_id"
                ),
                "environments": _Limit(
                    settings.max_environments, "SIDECAR_STORAGE_MAX_ENVIRONMENTS"
                ),
                "vaults": _Limit(settings.max_vaults, "SIDECAR_STORAGE_MAX_VAULTS"),
                "credentials": _Limit(
                    settings.max_vault_credentials,
                    "SIDECAR_STORAGE_MAX_VAULT_CREDENTIALS",
                    "vault_id",
                ),
                "sessions": _Limit(settings.max_sessions, "SIDECAR_STORAGE_MAX_SESSIONS"),
            }
        self.counts: dict[str, int] = {}
        """Rows by table, as counted last."""
        self.refused: Counter[str] = Counter()
        """Resources that found no room, by table."""

    def check(self, connection: Connection, table: str, *, owner_id: str | None = None) -> None:
        """Raise TooManyStoredError when there is no room for one more. Call it in the job that stores it."""
        limit = self._limits.get(table)
        if limit is None:
            return
        condition = f" WHERE {limit.owner_column} = ?" if limit.owner_column else ""
        parameters = (owner_id,) if limit.owner_column else ()
        count = _count(connection, f"{table}{condition}", parameters)
        if not limit.owner_column:
            self.counts[table] = count
        if count < limit.count:
            return
        self.refused[table] += 1
        kind = table.replace("_", " ")
        of_one = f" of {owner_id}" if limit.owner_column else ""
        raise TooManyStoredError(
            f"{count} {kind}{of_one} are stored, archived ones included, as many as this server keeps; "
            f"delete some, or raise {limit.setting}"
        )

    async def run(self, database: Store) -> None:
        """Count what is stored now and then, for the metrics, until cancelled."""
        tables = [table for table, limit in self._limits.items() if not limit.owner_column]

        def count(connection: Connection) -> dict[str, int]:
            return {table: _count(connection, table) for table in tables}

        while True:
            try:
                self.counts |= await database.read(count)
            except StoreError as error:
                _log.debug("nothing counted, the store fails", error=str(error))
            await asyncio.sleep(_REFRESH_SECONDS)


def _count(connection: Connection, rows: str, parameters: tuple[str | None, ...] = ()) -> int:
    found = connection.execute(f"SELECT count(*) FROM {rows}", parameters)  # noqa: S608  # our names
    return int(found.fetchone()[0])
