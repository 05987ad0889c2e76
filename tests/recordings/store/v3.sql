BEGIN TRANSACTION;
CREATE TABLE agent_versions (
    agent_id   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    model_ref  TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
) STRICT, WITHOUT ROWID;
INSERT INTO "agent_versions" VALUES('agent_01M8FVV4N778TA41FP1J4NCJRE',1,'2026-11-28T01:20:47.271356Z','litellm/openai/gpt-4o','{"name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
INSERT INTO "agent_versions" VALUES('agent_01M8FVVDZZDCWK9KB205AM235S',1,'2026-11-28T01:20:56.831852Z','litellm/openai/gpt-4o','{"name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
CREATE TABLE agents (
    id          TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    archived_at TEXT
) STRICT;
INSERT INTO "agents" VALUES('agent_01M8FVV4N778TA41FP1J4NCJRE',1,'2026-11-28T01:20:47.271356Z',NULL);
INSERT INTO "agents" VALUES('agent_01M8FVVDZZDCWK9KB205AM235S',1,'2026-11-28T01:20:56.831852Z',NULL);
CREATE TABLE child_events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    aggregate  TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    id         TEXT NOT NULL,
    type       TEXT NOT NULL,
    data       TEXT NOT NULL,
    PRIMARY KEY (session_id, aggregate, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE credentials (
    id          TEXT PRIMARY KEY,
    vault_id    TEXT NOT NULL REFERENCES vaults (id) ON DELETE CASCADE,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL,
    secret      BLOB
) STRICT;
INSERT INTO "credentials" VALUES('vcrd_01M8FVVHSD81KSSZ0HEZ6CWGS6','vlt_01M8FVVHRK3XDRX5Y8H0H3G4KR','2026-11-28T01:21:00.717622Z','2026-11-28T01:21:00.717622Z',NULL,'{"auth": {"type": "static_bearer", "mcp_server_url": "https://mcp.example/mcp"}, "display_name": null, "metadata": {}}',X'0141B936A7DC513630C47D29AA0B3A13889C844CA0E3DD09880F02331F6DC8B67B880F01E7835DDDAEC3D5');
CREATE TABLE environments (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "environments" VALUES('env_01M8FVV4PJ7VAJ7MWQ0PPG7BYE','2026-11-28T01:20:47.314769Z','2026-11-28T01:20:47.314769Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
INSERT INTO "environments" VALUES('env_01M8FVVE199FVMHFT0DPN6B93N','2026-11-28T01:20:56.873769Z','2026-11-28T01:20:56.873769Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
CREATE TABLE events (
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    processed_us INTEGER NOT NULL,
    body         TEXT NOT NULL, ends_turn INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',1,'sevt_01M8FVV4VF9RXSGY851EV90SAJ','user.message',1795828847479355,'{"id":"sevt_01M8FVV4VF9RXSGY851EV90SAJ","type":"user.message","processed_at":"2026-11-28T01:20:47.479355Z","content":[{"type":"text","text":"[[bash: echo recorded]] [[then]] [[say: done]]"}]}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',2,'sevt_01M8FVV4VQY1ECXX9F16M9EC4D','session.status_running',1795828847479356,'{"id":"sevt_01M8FVV4VQY1ECXX9F16M9EC4D","type":"session.status_running","processed_at":"2026-11-28T01:20:47.479356Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',3,'sevt_01M8FVV4VQ03J38GBFSB5PJEBC','session.thread_status_running',1795828847479357,'{"id":"sevt_01M8FVV4VQ03J38GBFSB5PJEBC","type":"session.thread_status_running","processed_at":"2026-11-28T01:20:47.479357Z","session_thread_id":"sthr_01M8FVV4RN598516VX2KT5WG8Y","agent_name":"finished"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',4,'sevt_01M8FVV8YVP06XD5ANMX73G2NC','span.model_request_start',1795828851685557,'{"id":"sevt_01M8FVV8YVP06XD5ANMX73G2NC","type":"span.model_request_start","processed_at":"2026-11-28T01:20:51.685557Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',5,'sevt_01M8FVVA32JKJPZ9HGX22ZRMPE','agent.tool_use',1795828852834498,'{"id":"sevt_01M8FVVA32JKJPZ9HGX22ZRMPE","type":"agent.tool_use","processed_at":"2026-11-28T01:20:52.834498Z","name":"bash","input":{"command":"echo recorded"},"evaluated_permission":"allow","evaluation":{"type":"always_allow"}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',6,'sevt_01M8FVVD5ZRP1NPWVQQXM7WEWJ','span.model_request_end',1795828855999009,'{"id":"sevt_01M8FVVD5ZRP1NPWVQQXM7WEWJ","type":"span.model_request_end","processed_at":"2026-11-28T01:20:55.999009Z","model_request_start_id":"sevt_01M8FVV8YVP06XD5ANMX73G2NC","is_error":false,"model_usage":{"input_tokens":95,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',7,'sevt_01M8FVVD5ZJKTQV5FQVZ6C13HS','agent.tool_result',1795828855999010,'{"id":"sevt_01M8FVVD5ZJKTQV5FQVZ6C13HS","type":"agent.tool_result","processed_at":"2026-11-28T01:20:55.999010Z","tool_use_id":"sevt_01M8FVVA32JKJPZ9HGX22ZRMPE","content":[{"type":"text","text":"recorded\n"}],"is_error":false,"output":"recorded\n"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',8,'sevt_01M8FVVDCP1HDSKHQB76BYGQEQ','span.model_request_start',1795828856232690,'{"id":"sevt_01M8FVVDCP1HDSKHQB76BYGQEQ","type":"span.model_request_start","processed_at":"2026-11-28T01:20:56.232690Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',9,'sevt_01M8FVVDZCZ0FBWBQR862QPFQQ','agent.message',1795828856812790,'{"id":"sevt_01M8FVVDZCZ0FBWBQR862QPFQQ","type":"agent.message","processed_at":"2026-11-28T01:20:56.812790Z","content":[{"type":"text","text":"done"}],"text":"done"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',10,'sevt_01M8FVVDZC1KJ8KD8EQFZH3FVG','span.model_request_end',1795828856812791,'{"id":"sevt_01M8FVVDZC1KJ8KD8EQFZH3FVG","type":"span.model_request_end","processed_at":"2026-11-28T01:20:56.812791Z","model_request_start_id":"sevt_01M8FVVDCP1HDSKHQB76BYGQEQ","is_error":false,"model_usage":{"input_tokens":117,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',11,'sevt_01M8FVVDZCGS3WDVKXTY26RVEQ','session.thread_status_idle',1795828856812792,'{"id":"sevt_01M8FVVDZCGS3WDVKXTY26RVEQ","type":"session.thread_status_idle","processed_at":"2026-11-28T01:20:56.812792Z","session_thread_id":"sthr_01M8FVV4RN598516VX2KT5WG8Y","agent_name":"finished","stop_reason":{"type":"end_turn"}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',12,'sevt_01M8FVVDZCFGPYXEQWVWGT2ZJV','session.usage',1795828856812793,'{"id":"sevt_01M8FVVDZCFGPYXEQWVWGT2ZJV","type":"session.usage","processed_at":"2026-11-28T01:20:56.812793Z","usage":{"input_tokens":212,"output_tokens":7,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":9.333473},"budget":null}',0);
INSERT INTO "events" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN',13,'sevt_01M8FVVDZCN9XBDFNVH7F33B8C','session.status_idle',1795828856812794,'{"id":"sevt_01M8FVVDZCN9XBDFNVH7F33B8C","type":"session.status_idle","processed_at":"2026-11-28T01:20:56.812794Z","stop_reason":{"type":"end_turn"}}',1);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',1,'sevt_01M8FVVE4CMQ09WE3CJA7EH35E','user.message',1795828856973154,'{"id":"sevt_01M8FVVE4CMQ09WE3CJA7EH35E","type":"user.message","processed_at":"2026-11-28T01:20:56.973154Z","content":[{"type":"text","text":"[[bash: echo waits]] [[then]] [[say: went on]]"}]}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',2,'sevt_01M8FVVE4DRY8AY6SCBXP0SE5G','session.status_running',1795828856973155,'{"id":"sevt_01M8FVVE4DRY8AY6SCBXP0SE5G","type":"session.status_running","processed_at":"2026-11-28T01:20:56.973155Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',3,'sevt_01M8FVVE4DXA2C278H9H4W50Q5','session.thread_status_running',1795828856973156,'{"id":"sevt_01M8FVVE4DXA2C278H9H4W50Q5","type":"session.thread_status_running","processed_at":"2026-11-28T01:20:56.973156Z","session_thread_id":"sthr_01M8FVVE2DZFNM7JW3V4XP7EYR","agent_name":"waiting"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',4,'sevt_01M8FVVGY6857FXMV4QFN4SDZP','span.model_request_start',1795828859855696,'{"id":"sevt_01M8FVVGY6857FXMV4QFN4SDZP","type":"span.model_request_start","processed_at":"2026-11-28T01:20:59.855696Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',5,'sevt_01M8FVVHKRHK1NPXKNZRNKVJ5J','agent.tool_use',1795828860687603,'{"id":"sevt_01M8FVVHKRHK1NPXKNZRNKVJ5J","type":"agent.tool_use","processed_at":"2026-11-28T01:21:00.687603Z","name":"bash","input":{"command":"echo waits"},"evaluated_permission":"ask","evaluation":{"type":"always_ask"}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',6,'sevt_01M8FVVHRFP0E3ADN66V445YK5','span.model_request_end',1795828860687604,'{"id":"sevt_01M8FVVHRFP0E3ADN66V445YK5","type":"span.model_request_end","processed_at":"2026-11-28T01:21:00.687604Z","model_request_start_id":"sevt_01M8FVVGY6857FXMV4QFN4SDZP","is_error":false,"model_usage":{"input_tokens":96,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',7,'sevt_01M8FVVHRFYFW1GW9DF7DMZCBW','session.thread_status_idle',1795828860687605,'{"id":"sevt_01M8FVVHRFYFW1GW9DF7DMZCBW","type":"session.thread_status_idle","processed_at":"2026-11-28T01:21:00.687605Z","session_thread_id":"sthr_01M8FVVE2DZFNM7JW3V4XP7EYR","agent_name":"waiting","stop_reason":{"type":"requires_action","event_ids":["sevt_01M8FVVHKRHK1NPXKNZRNKVJ5J"]}}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',8,'sevt_01M8FVVHRF2S9BS7BE75FTMYYY','session.usage',1795828860687606,'{"id":"sevt_01M8FVVHRF2S9BS7BE75FTMYYY","type":"session.usage","processed_at":"2026-11-28T01:21:00.687606Z","usage":{"input_tokens":96,"output_tokens":6,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":3.714407},"budget":null}',0);
INSERT INTO "events" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA',9,'sevt_01M8FVVHRFBX5GPGXC78JFE1F6','session.status_idle',1795828860687607,'{"id":"sevt_01M8FVVHRFBX5GPGXC78JFE1F6","type":"session.status_idle","processed_at":"2026-11-28T01:21:00.687607Z","stop_reason":{"type":"requires_action","event_ids":["sevt_01M8FVVHKRHK1NPXKNZRNKVJ5J"]}}',0);
CREATE TABLE key_check (
    sealed BLOB NOT NULL
) STRICT;
INSERT INTO "key_check" VALUES(X'0106343E6B9217A6D657E5A1ED66A4CC922782D1211FE861298F90F42DA25F0162DEDDA1BE3A1BD20A3B7D4646');
CREATE TABLE queued_events (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    position   INTEGER NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    type       TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (session_id, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE resource_uses (
    resource_id TEXT PRIMARY KEY,
    used_at     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "resource_uses" VALUES('agent_01M8FVV4N778TA41FP1J4NCJRE','2026-11-28T01:20:47.381490Z');
INSERT INTO "resource_uses" VALUES('agent_01M8FVVDZZDCWK9KB205AM235S','2026-11-28T01:20:56.909744Z');
INSERT INTO "resource_uses" VALUES('env_01M8FVV4PJ7VAJ7MWQ0PPG7BYE','2026-11-28T01:20:47.381490Z');
INSERT INTO "resource_uses" VALUES('env_01M8FVVE199FVMHFT0DPN6B93N','2026-11-28T01:20:56.909744Z');
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
INSERT INTO "sessions" VALUES('sesn_01M8FVV4RND14SM5KTCNGYXRCN','agent_01M8FVV4N778TA41FP1J4NCJRE',1,'env_01M8FVV4PJ7VAJ7MWQ0PPG7BYE','sthr_01M8FVV4RN598516VX2KT5WG8Y','litellm/openai/gpt-4o','idle','2026-11-28T01:20:47.381490Z','2026-11-28T01:20:56.812778Z',NULL,13,1795828856812794,'ses_de0426840ffeSp40gvxUI2qm6T','[212, 7, 0, 0]',9333473,NULL,'{"agent": {"type": "agent", "id": "agent_01M8FVV4N778TA41FP1J4NCJRE", "version": 1, "name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
INSERT INTO "sessions" VALUES('sesn_01M8FVVE2D1Q0XBQ60K9X9GCRA','agent_01M8FVVDZZDCWK9KB205AM235S',1,'env_01M8FVVE199FVMHFT0DPN6B93N','sthr_01M8FVVE2DZFNM7JW3V4XP7EYR','litellm/openai/gpt-4o','idle','2026-11-28T01:20:56.909744Z','2026-11-28T01:21:00.687546Z',NULL,9,1795828860687607,'ses_de0424227ffeghFe3qR1zTKIsK','[96, 6, 0, 0]',3714407,'{"user_event_id": "sevt_01M8FVVE4CMQ09WE3CJA7EH35E", "message_id": "msg_01M8FVVE4DRG5J0D7AZZCT8ERC", "is_repeated": false, "blocked": ["sevt_01M8FVVHKRHK1NPXKNZRNKVJ5J"]}','{"agent": {"type": "agent", "id": "agent_01M8FVVDZZDCWK9KB205AM235S", "version": 1, "name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
CREATE TABLE vaults (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "vaults" VALUES('vlt_01M8FVVHRK3XDRX5Y8H0H3G4KR','2026-11-28T01:21:00.691680Z','2026-11-28T01:21:00.691680Z',NULL,'{"display_name": "recorded", "metadata": {}}');
CREATE INDEX agents_by_creation ON agents (created_at, id);
CREATE INDEX environments_by_creation ON environments (created_at, id);
CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, agent_version);
CREATE INDEX sessions_by_environment ON sessions (environment_id);
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at, id);
CREATE INDEX session_resources_by_session ON session_resources (session_id, id);
CREATE INDEX events_ending_turns ON events (session_id, seq) WHERE ends_turn = 1;
COMMIT;
PRAGMA user_version=3;
