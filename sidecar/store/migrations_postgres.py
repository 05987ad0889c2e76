"""The schema for PostgreSQL, by version. A step is never edited after a release; a change is a new step.

The tables are those of `migrations`, which is SQLite's, and what several pods need besides: who owns a
session, which pods live, opencode's own history. Text compares by bytes (`COLLATE "C"`), as in SQLite:
page cursors compare `(created_at, id)`, and a locale would order them otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

_V1 = """
CREATE TABLE agents (
    id          TEXT COLLATE "C" PRIMARY KEY,
    version     BIGINT NOT NULL,
    created_at  TEXT COLLATE "C" NOT NULL,
    archived_at TEXT COLLATE "C"
);
CREATE INDEX agents_by_creation ON agents (created_at, id);
CREATE TABLE agent_versions (
    agent_id   TEXT COLLATE "C" NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version    BIGINT NOT NULL,
    updated_at TEXT COLLATE "C" NOT NULL,
    model_ref  TEXT COLLATE "C" NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
);

CREATE TABLE environments (
    id          TEXT COLLATE "C" PRIMARY KEY,
    created_at  TEXT COLLATE "C" NOT NULL,
    updated_at  TEXT COLLATE "C" NOT NULL,
    archived_at TEXT COLLATE "C",
    body        TEXT NOT NULL
);
CREATE INDEX environments_by_creation ON environments (created_at, id);

CREATE TABLE sessions (
    id                  TEXT COLLATE "C" PRIMARY KEY,
    agent_id            TEXT COLLATE "C" NOT NULL,
    agent_version       BIGINT NOT NULL,
    environment_id      TEXT COLLATE "C" NOT NULL,
    thread_id           TEXT COLLATE "C" NOT NULL,
    model_ref           TEXT COLLATE "C" NOT NULL,
    status              TEXT COLLATE "C" NOT NULL,
    created_at          TEXT COLLATE "C" NOT NULL,
    updated_at          TEXT COLLATE "C" NOT NULL,
    archived_at         TEXT COLLATE "C",
    last_seq            BIGINT NOT NULL DEFAULT 0,
    last_processed_us   BIGINT NOT NULL DEFAULT 0,
    child_session_id    TEXT COLLATE "C",
    usage               TEXT NOT NULL DEFAULT '[]',
    active_us           BIGINT NOT NULL DEFAULT 0,
    turn                TEXT,
    body                TEXT NOT NULL,
    owner_boot          TEXT COLLATE "C",
    owner_epoch         BIGINT NOT NULL DEFAULT 0,
    home                TEXT COLLATE "C"
);
CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, agent_version);
CREATE INDEX sessions_by_environment ON sessions (environment_id);
CREATE INDEX sessions_by_owner ON sessions (owner_boot);
CREATE INDEX sessions_running ON sessions (id) WHERE status IN ('running', 'rescheduling');

CREATE TABLE events (
    session_id   TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq          BIGINT NOT NULL,
    id           TEXT COLLATE "C" NOT NULL UNIQUE,
    type         TEXT COLLATE "C" NOT NULL,
    processed_us BIGINT NOT NULL,
    body         TEXT NOT NULL,
    ends_turn    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, seq)
);
CREATE INDEX events_ending_turns ON events (session_id, seq) WHERE ends_turn = 1;

CREATE TABLE queued_events (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position   BIGINT NOT NULL,
    id         TEXT COLLATE "C" NOT NULL UNIQUE,
    type       TEXT COLLATE "C" NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (session_id, position)
);

CREATE TABLE vaults (
    id          TEXT COLLATE "C" PRIMARY KEY,
    created_at  TEXT COLLATE "C" NOT NULL,
    updated_at  TEXT COLLATE "C" NOT NULL,
    archived_at TEXT COLLATE "C",
    body        TEXT NOT NULL
);
CREATE TABLE credentials (
    id          TEXT COLLATE "C" PRIMARY KEY,
    vault_id    TEXT COLLATE "C" NOT NULL REFERENCES vaults (id) ON DELETE CASCADE,
    created_at  TEXT COLLATE "C" NOT NULL,
    updated_at  TEXT COLLATE "C" NOT NULL,
    archived_at TEXT COLLATE "C",
    body        TEXT NOT NULL,
    secret      BYTEA
);
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at, id);

CREATE TABLE session_resources (
    id              TEXT COLLATE "C" PRIMARY KEY,
    session_id      TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    materialised_at TEXT COLLATE "C",
    body            TEXT NOT NULL,
    secret          BYTEA
);
CREATE INDEX session_resources_by_session ON session_resources (session_id, id);

CREATE TABLE key_check (
    sealed BYTEA NOT NULL
);
CREATE UNIQUE INDEX key_check_is_one ON key_check ((true));

CREATE TABLE child_events (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    aggregate  TEXT COLLATE "C" NOT NULL,
    seq        BIGINT NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    type       TEXT COLLATE "C" NOT NULL,
    data       TEXT NOT NULL,
    PRIMARY KEY (session_id, aggregate, seq)
);

CREATE TABLE boots (
    boot_id     TEXT COLLATE "C" PRIMARY KEY,
    pod         TEXT NOT NULL,
    incarnation TEXT COLLATE "C" NOT NULL,
    address     TEXT NOT NULL,
    home        TEXT COLLATE "C" NOT NULL,
    started_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    expires_at  TIMESTAMPTZ NOT NULL,
    load        DOUBLE PRECISION NOT NULL DEFAULT 0,
    turns       BIGINT NOT NULL DEFAULT 0,
    is_draining BOOLEAN NOT NULL DEFAULT false
);

CREATE TABLE duties (
    name       TEXT COLLATE "C" PRIMARY KEY,
    boot_id    TEXT COLLATE "C" NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE requests (
    id         TEXT COLLATE "C" PRIMARY KEY,
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    event_ids  TEXT NOT NULL,
    stored_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX requests_by_session ON requests (session_id);
CREATE INDEX requests_by_age ON requests (stored_at);
"""

_V2 = """
CREATE TABLE resource_uses (
    resource_id TEXT COLLATE "C" PRIMARY KEY,
    used_at     TEXT COLLATE "C" NOT NULL
);
"""

# A row outlives its session until the archives are deleted, too, so it has no foreign key.
_V3 = """
CREATE TABLE archives (
    session_id    TEXT COLLATE "C" PRIMARY KEY,
    name          TEXT COLLATE "C",
    digest        TEXT COLLATE "C",
    size_bytes    BIGINT NOT NULL DEFAULT 0,
    content_bytes BIGINT NOT NULL DEFAULT 0,
    covers_seq    BIGINT NOT NULL DEFAULT 0,
    made_at       TEXT COLLATE "C"
);
"""

# Which of its transactions each connection committed last, see `postgres_link`.
_V4 = """
CREATE TABLE commits (
    link_id   TEXT COLLATE "C" PRIMARY KEY,
    number    BIGINT NOT NULL,
    stored_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
"""

MIGRATIONS: Sequence[str] = (_V1, _V2, _V3, _V4)
"""`MIGRATIONS[n]` takes schema version n to n + 1; the table `schema_version` holds the version."""
