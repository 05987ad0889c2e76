BEGIN TRANSACTION;
CREATE TABLE agent_versions (
    agent_id   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    model_ref  TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
) STRICT, WITHOUT ROWID;
INSERT INTO "agent_versions" VALUES('agent_01M83QFY11A1Q86HDCWGAYS2JA',1,'2026-11-23T08:13:52.544964Z','litellm/openai/gpt-4o','{"name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
INSERT INTO "agent_versions" VALUES('agent_01M83QG3F2ATY8882AA3C1EXTD',1,'2026-11-23T08:13:58.114047Z','litellm/openai/gpt-4o','{"name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
CREATE TABLE agents (
    id          TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    archived_at TEXT
) STRICT;
INSERT INTO "agents" VALUES('agent_01M83QFY11A1Q86HDCWGAYS2JA',1,'2026-11-23T08:13:52.544964Z',NULL);
INSERT INTO "agents" VALUES('agent_01M83QG3F2ATY8882AA3C1EXTD',1,'2026-11-23T08:13:58.114047Z',NULL);
CREATE TABLE credentials (
    id          TEXT PRIMARY KEY,
    vault_id    TEXT NOT NULL REFERENCES vaults (id) ON DELETE CASCADE,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL,
    secret      BLOB
) STRICT;
INSERT INTO "credentials" VALUES('vcrd_01M83QG5AFQ70QK1W7MVNN5127','vlt_01M83QG5A2Y1NGD245HAZXXQK0','2026-11-23T08:14:00.015607Z','2026-11-23T08:14:00.015607Z',NULL,'{"auth": {"type": "static_bearer", "mcp_server_url": "https://mcp.example/mcp"}, "display_name": null, "metadata": {}}',X'01EB1C2E923FE3C093C187B7AE12B6E2F4C10CE51455EA7FE2B1E836BEF623F8BE4A7C87332A7FEC1523D6');
CREATE TABLE environments (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "environments" VALUES('env_01M83QFY1KZ1E2TKZ22QATPRAB','2026-11-23T08:13:52.563272Z','2026-11-23T08:13:52.563272Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
INSERT INTO "environments" VALUES('env_01M83QG3F426J17FDNEQ4DNA56','2026-11-23T08:13:58.116174Z','2026-11-23T08:13:58.116174Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
CREATE TABLE events (
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    processed_us INTEGER NOT NULL,
    body         TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',1,'sevt_01M83QFY4Y217VADECJ3E5J9J2','session.status_running',1795421632670957,'{"id":"sevt_01M83QFY4Y217VADECJ3E5J9J2","type":"session.status_running","processed_at":"2026-11-23T08:13:52.670957Z"}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',2,'sevt_01M83QFY4ZXVYZY49CS9Q9ZY53','session.thread_status_running',1795421632670958,'{"id":"sevt_01M83QFY4ZXVYZY49CS9Q9ZY53","type":"session.thread_status_running","processed_at":"2026-11-23T08:13:52.670958Z","session_thread_id":"sthr_01M83QFY4CWAWKM1T8P35MF8GN","agent_name":"finished"}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',3,'sevt_01M83QFY4WQN59JE68ERF0JXZF','user.message',1795421632670959,'{"id":"sevt_01M83QFY4WQN59JE68ERF0JXZF","type":"user.message","processed_at":"2026-11-23T08:13:52.670959Z","content":[{"type":"text","text":"[[bash: echo recorded]] [[then]] [[say: done]]"}]}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',4,'sevt_01M83QG0B0Z5A8ZXWRFQBSZG4N','span.model_request_start',1795421634912870,'{"id":"sevt_01M83QG0B0Z5A8ZXWRFQBSZG4N","type":"span.model_request_start","processed_at":"2026-11-23T08:13:54.912870Z"}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',5,'sevt_01M83QG14Z5EQW6TQ23680QVPN','agent.tool_use',1795421635743640,'{"id":"sevt_01M83QG14Z5EQW6TQ23680QVPN","type":"agent.tool_use","processed_at":"2026-11-23T08:13:55.743640Z","name":"bash","input":{"command":"echo recorded"},"evaluated_permission":"allow","evaluation":{"type":"always_allow"}}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',6,'sevt_01M83QG3195FH0S9PYVBZM7YMB','span.model_request_end',1795421637673063,'{"id":"sevt_01M83QG3195FH0S9PYVBZM7YMB","type":"span.model_request_end","processed_at":"2026-11-23T08:13:57.673063Z","model_request_start_id":"sevt_01M83QG0B0Z5A8ZXWRFQBSZG4N","is_error":false,"model_usage":{"input_tokens":95,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',7,'sevt_01M83QG319PHX5441JB35X8ES4','agent.tool_result',1795421637673064,'{"id":"sevt_01M83QG319PHX5441JB35X8ES4","type":"agent.tool_result","processed_at":"2026-11-23T08:13:57.673064Z","tool_use_id":"sevt_01M83QG14Z5EQW6TQ23680QVPN","content":[{"type":"text","text":"recorded\n"}],"is_error":false,"output":"recorded\n"}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',8,'sevt_01M83QG30EFDC81FGA8GQX4YW7','span.model_request_start',1795421637673065,'{"id":"sevt_01M83QG30EFDC81FGA8GQX4YW7","type":"span.model_request_start","processed_at":"2026-11-23T08:13:57.673065Z"}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',9,'sevt_01M83QG3E2A7DZR88XAS4P143K','agent.message',1795421638083197,'{"id":"sevt_01M83QG3E2A7DZR88XAS4P143K","type":"agent.message","processed_at":"2026-11-23T08:13:58.083197Z","content":[{"type":"text","text":"done"}],"text":"done"}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',10,'sevt_01M83QG3E3BZBM84TMD5Q81GAW','span.model_request_end',1795421638083198,'{"id":"sevt_01M83QG3E3BZBM84TMD5Q81GAW","type":"span.model_request_end","processed_at":"2026-11-23T08:13:58.083198Z","model_request_start_id":"sevt_01M83QG30EFDC81FGA8GQX4YW7","is_error":false,"model_usage":{"input_tokens":117,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',11,'sevt_01M83QG3EWR02DR5QQX6JE5M1G','session.thread_status_idle',1795421638108402,'{"id":"sevt_01M83QG3EWR02DR5QQX6JE5M1G","type":"session.thread_status_idle","processed_at":"2026-11-23T08:13:58.108402Z","session_thread_id":"sthr_01M83QFY4CWAWKM1T8P35MF8GN","agent_name":"finished","stop_reason":{"type":"end_turn"}}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',12,'sevt_01M83QG3EWGDY4Q7VYPC29XJZS','session.usage',1795421638108403,'{"id":"sevt_01M83QG3EWGDY4Q7VYPC29XJZS","type":"session.usage","processed_at":"2026-11-23T08:13:58.108403Z","usage":{"input_tokens":212,"output_tokens":7,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":5.437456},"budget":null}');
INSERT INTO "events" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH',13,'sevt_01M83QG3EWGWCHB8SJK48RY380','session.status_idle',1795421638108404,'{"id":"sevt_01M83QG3EWGWCHB8SJK48RY380","type":"session.status_idle","processed_at":"2026-11-23T08:13:58.108404Z","stop_reason":{"type":"end_turn"}}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',1,'sevt_01M83QG3FDGYBA7476KSN28P2N','session.status_running',1795421638125667,'{"id":"sevt_01M83QG3FDGYBA7476KSN28P2N","type":"session.status_running","processed_at":"2026-11-23T08:13:58.125667Z"}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',2,'sevt_01M83QG3FD5T2CRZK7FP7KX0H9','session.thread_status_running',1795421638125668,'{"id":"sevt_01M83QG3FD5T2CRZK7FP7KX0H9","type":"session.thread_status_running","processed_at":"2026-11-23T08:13:58.125668Z","session_thread_id":"sthr_01M83QG3F977XFZB4QG8R1H8YC","agent_name":"waiting"}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',3,'sevt_01M83QG3FD5B5KC7VA140MBC9P','user.message',1795421638125669,'{"id":"sevt_01M83QG3FD5B5KC7VA140MBC9P","type":"user.message","processed_at":"2026-11-23T08:13:58.125669Z","content":[{"type":"text","text":"[[bash: echo waits]] [[then]] [[say: went on]]"}]}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',4,'sevt_01M83QG4X45HXPT5K6TCT30GFN','span.model_request_start',1795421639588282,'{"id":"sevt_01M83QG4X45HXPT5K6TCT30GFN","type":"span.model_request_start","processed_at":"2026-11-23T08:13:59.588282Z"}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',5,'sevt_01M83QG5564XVAHP09FF22GCRG','agent.tool_use',1795421639996903,'{"id":"sevt_01M83QG5564XVAHP09FF22GCRG","type":"agent.tool_use","processed_at":"2026-11-23T08:13:59.996903Z","name":"bash","input":{"command":"echo waits"},"evaluated_permission":"ask","evaluation":{"type":"always_ask"}}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',6,'sevt_01M83QG59WHXTVFGCQSP7ZX6X0','span.model_request_end',1795421639996904,'{"id":"sevt_01M83QG59WHXTVFGCQSP7ZX6X0","type":"span.model_request_end","processed_at":"2026-11-23T08:13:59.996904Z","model_request_start_id":"sevt_01M83QG4X45HXPT5K6TCT30GFN","is_error":false,"model_usage":{"input_tokens":96,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',7,'sevt_01M83QG59X6MB07BDT67A0EZRB','session.thread_status_idle',1795421639996905,'{"id":"sevt_01M83QG59X6MB07BDT67A0EZRB","type":"session.thread_status_idle","processed_at":"2026-11-23T08:13:59.996905Z","session_thread_id":"sthr_01M83QG3F977XFZB4QG8R1H8YC","agent_name":"waiting","stop_reason":{"type":"requires_action","event_ids":["sevt_01M83QG5564XVAHP09FF22GCRG"]}}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',8,'sevt_01M83QG59XFZJHQWD9Q7WZN51F','session.usage',1795421639996906,'{"id":"sevt_01M83QG59XFZJHQWD9Q7WZN51F","type":"session.usage","processed_at":"2026-11-23T08:13:59.996906Z","usage":{"input_tokens":96,"output_tokens":6,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":1.871171},"budget":null}');
INSERT INTO "events" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV',9,'sevt_01M83QG59XE8JJ7K3RDXCN9YTQ','session.status_idle',1795421639996907,'{"id":"sevt_01M83QG59XE8JJ7K3RDXCN9YTQ","type":"session.status_idle","processed_at":"2026-11-23T08:13:59.996907Z","stop_reason":{"type":"requires_action","event_ids":["sevt_01M83QG5564XVAHP09FF22GCRG"]}}');
CREATE TABLE key_check (
    sealed BLOB NOT NULL
) STRICT;
INSERT INTO "key_check" VALUES(X'0136EC275E1ECCED28D6456E410946E74DFBB843DE4CD0942D28AE587272703E8AB01804B070761661D88B80B6');
CREATE TABLE queued_events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    type       TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (session_id, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE session_resources (
    id              TEXT PRIMARY KEY,
    session_id      TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    materialised_at TEXT,
    body            TEXT NOT NULL,
    secret          BLOB
) STRICT;
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
INSERT INTO "sessions" VALUES('sesn_01M83QFY4C45N78VXMZD4DV3HH','agent_01M83QFY11A1Q86HDCWGAYS2JA',1,'env_01M83QFY1KZ1E2TKZ22QATPRAB','sthr_01M83QFY4CWAWKM1T8P35MF8GN','litellm/openai/gpt-4o','idle','2026-11-23T08:13:52.652360Z','2026-11-23T08:13:58.108355Z',NULL,13,1795421638108404,'ses_df8880656ffeYfKEXsCHh5tcxM','[212, 7, 0, 0]',5437456,NULL,'{"agent": {"type": "agent", "id": "agent_01M83QFY11A1Q86HDCWGAYS2JA", "version": 1, "name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
INSERT INTO "sessions" VALUES('sesn_01M83QG3F9PDB2H6RY1W1H3EBV','agent_01M83QG3F2ATY8882AA3C1EXTD',1,'env_01M83QG3F426J17FDNEQ4DNA56','sthr_01M83QG3F977XFZB4QG8R1H8YC','litellm/openai/gpt-4o','idle','2026-11-23T08:13:58.121877Z','2026-11-23T08:13:59.996827Z',NULL,9,1795421639996907,'ses_df887f13dffevVyXyq226Sggid','[96, 6, 0, 0]',1871171,'{"user_event_id": "sevt_01M83QG3FD5B5KC7VA140MBC9P", "message_id": "msg_01M83QG3FD5G1QJ8T76H53WA54", "is_prompted": true, "blocked": ["sevt_01M83QG5564XVAHP09FF22GCRG"]}','{"agent": {"type": "agent", "id": "agent_01M83QG3F2ATY8882AA3C1EXTD", "version": 1, "name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
CREATE TABLE vaults (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "vaults" VALUES('vlt_01M83QG5A2Y1NGD245HAZXXQK0','2026-11-23T08:14:00.001948Z','2026-11-23T08:14:00.001948Z',NULL,'{"display_name": "recorded", "metadata": {}}');
CREATE INDEX agents_by_creation ON agents (created_at, id);
CREATE INDEX environments_by_creation ON environments (created_at, id);
CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, agent_version);
CREATE INDEX sessions_by_environment ON sessions (environment_id);
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at, id);
CREATE INDEX session_resources_by_session ON session_resources (session_id, id);
COMMIT;
PRAGMA user_version=1;
