"""Brings PostgreSQL's schema to the version of this release."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psycopg

from sidecar.store.interface import SchemaTooNewError, StoreError
from sidecar.store.migrations_postgres import MIGRATIONS
from sidecar.store.postgres_link import Raw, first_value

_MIGRATION_LOCK = 0x0C0DE51D
"""The advisory lock under which one pod migrates while the others wait."""


def migrate(raw: Raw, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema to the newest version; each step is one transaction, and undone if it fails.

    Pods that start together do it one after the other. Raises SchemaTooNewError, StoreError for a
    database that takes no writes, and psycopg.Error for a step that failed.
    """
    if first_value(raw.execute("SHOW transaction_read_only")) == "on":
        raise StoreError(
            "the database is read-only (a standby, or a role without the right to write)"
        )
    raw.execute("SET statement_timeout = 0; SET lock_timeout = 0")
    raw.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
    try:
        version = _schema_version(raw)
        if version > len(migrations):
            raise SchemaTooNewError(
                f"the database has schema version {version}, this release knows {len(migrations)}: "
                "run the newer release, or restore the database from before the upgrade"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            with raw.transaction():
                if number == 1:
                    raw.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
                    raw.execute("INSERT INTO schema_version VALUES (0)")
                raw.execute(script)
                raw.execute("UPDATE schema_version SET version = %s", (number,))
    finally:
        with contextlib.suppress(psycopg.Error):
            raw.execute("SELECT pg_advisory_unlock(%s)", (_MIGRATION_LOCK,))


def _schema_version(raw: Raw) -> int:
    if first_value(raw.execute("SELECT to_regclass('schema_version')")) is None:
        return 0
    return int(first_value(raw.execute("SELECT version FROM schema_version")))
