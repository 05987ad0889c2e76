"""The schema, by version. A step is never edited after a release; a change is a new step."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sidecar.store.interface import SchemaTooNewError

_V1 = """
CREATE TABLE agents (
    id          TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    archived_at TEXT
) STRICT;
CREATE INDEX agents_by_creation ON agents (created_at, id);
CREATE TABLE agent_versions (
    agent_id   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    model_ref  TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE environments (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX environments_by_creation ON environments (created_at, id);

CREATE TABLE sessions (
    id                  TEXT PRIMARY KEY,
    agent_id            TEXT NOT NULL,
    agent_version       INTEGER NOT NULL,
    environment_id      TEXT NOT NULL,
    thread_id           TEXT NOT NULL,
    model_ref           TEXT NOT NULL,
    status              TEXT NOT NULL,
    created_at          TEXT NOT NULL,
    updated_at          TEXT NOT NULL,
    archived_at         TEXT,
    last_seq            INTEGER NOT NULL DEFAULT 0,
    last_processed_us   INTEGER NOT NULL DEFAULT 0,
    child_session_id    TEXT,
    usage               TEXT NOT NULL DEFAULT '[]',
    active_us           INTEGER NOT NULL DEFAULT 0,
    turn                TEXT,
    body                TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, agent_version);
CREATE INDEX sessions_by_environment ON sessions (environment_id);

CREATE TABLE events (
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    processed_us INTEGER NOT NULL,
    body         TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE queued_events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    type       TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (session_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE vaults (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
CREATE TABLE credentials (
    id          TEXT PRIMARY KEY,
    vault_id    TEXT NOT NULL REFERENCES vaults (id) ON DELETE CASCADE,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL,
    secret      BLOB
) STRICT;
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at, id);

CREATE TABLE session_resources (
    id              TEXT PRIMARY KEY,
    session_id      TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    materialised_at TEXT,
    body            TEXT NOT NULL,
    secret          BLOB
) STRICT;
CREATE INDEX session_resources_by_session ON session_resources (session_id, id);

CREATE TABLE key_check (
    sealed BLOB NOT NULL
) STRICT;
"""

_V2 = """
ALTER TABLE events ADD COLUMN ends_turn INTEGER NOT NULL DEFAULT 0;
UPDATE events SET ends_turn = 1 WHERE type = 'session.status_idle'
    AND json_extract(body, '$.stop_reason.type') <> 'requires_action';
CREATE INDEX events_ending_turns ON events (session_id, seq) WHERE ends_turn = 1;

CREATE TABLE child_events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    aggregate  TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    id         TEXT NOT NULL,
    type       TEXT NOT NULL,
    data       TEXT NOT NULL,
    PRIMARY KEY (session_id, aggregate, seq)
) STRICT, WITHOUT ROWID;
"""

_V3 = """
CREATE TABLE resource_uses (
    resource_id TEXT PRIMARY KEY,
    used_at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: Sequence[str] = (_V1, _V2, _V3)
"""`MIGRATIONS[n]` takes schema version n to n + 1; `PRAGMA user_version` holds the version."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema to the newest version; each step is one transaction, and undone if it fails.

    Raises SchemaTooNewError, and sqlite3.Error for a step that failed.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise SchemaTooNewError(
            f"the database has schema version {version}, this release knows {len(migrations)}: "
            "run the newer release, or restore the data dir from before the upgrade"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN;{script};PRAGMA user_version={number};COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
