BEGIN TRANSACTION;
CREATE TABLE agent_versions (
    agent_id   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    model_ref  TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
) STRICT, WITHOUT ROWID;
INSERT INTO "agent_versions" VALUES('agent_01M8FTEQQF1VBBZQR15R8C6RPX',1,'2026-11-28T00:56:32.239827Z','litellm/openai/gpt-4o','{"name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
INSERT INTO "agent_versions" VALUES('agent_01M8FTEYZZ3BC7X0892MAX6Y2G',1,'2026-11-28T00:56:39.679632Z','litellm/openai/gpt-4o','{"name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
CREATE TABLE agents (
    id          TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    archived_at TEXT
) STRICT;
INSERT INTO "agents" VALUES('agent_01M8FTEQQF1VBBZQR15R8C6RPX',1,'2026-11-28T00:56:32.239827Z',NULL);
INSERT INTO "agents" VALUES('agent_01M8FTEYZZ3BC7X0892MAX6Y2G',1,'2026-11-28T00:56:39.679632Z',NULL);
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
INSERT INTO "credentials" VALUES('vcrd_01M8FTF1D3XBSE1PY5XKJ5CD3T','vlt_01M8FTF1CGVXR7FJBD4P36F4KN','2026-11-28T00:56:42.147948Z','2026-11-28T00:56:42.147948Z',NULL,'{"auth": {"type": "static_bearer", "mcp_server_url": "https://mcp.example/mcp"}, "display_name": null, "metadata": {}}',X'015D549E89F766CBC7498C50BAACEB29ABCD80E0B28F9E9C3DF6777270AD5BA000680EBF321DA1AE933E5E');
CREATE TABLE environments (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "environments" VALUES('env_01M8FTEQQSTC7RZTXMRXF82R0K','2026-11-28T00:56:32.249568Z','2026-11-28T00:56:32.249568Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
INSERT INTO "environments" VALUES('env_01M8FTEZ0V5KG4HTVRXM94WAMQ','2026-11-28T00:56:39.707189Z','2026-11-28T00:56:39.707189Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
CREATE TABLE events (
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    processed_us INTEGER NOT NULL,
    body         TEXT NOT NULL, ends_turn INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',1,'sevt_01M8FTEQTP66ZS0K40XXE7NECP','session.status_running',1795827392342320,'{"id":"sevt_01M8FTEQTP66ZS0K40XXE7NECP","type":"session.status_running","processed_at":"2026-11-28T00:56:32.342320Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',2,'sevt_01M8FTEQTPJTBF7V1XZP6JSHJJ','session.thread_status_running',1795827392342321,'{"id":"sevt_01M8FTEQTPJTBF7V1XZP6JSHJJ","type":"session.thread_status_running","processed_at":"2026-11-28T00:56:32.342321Z","session_thread_id":"sthr_01M8FTEQSTQSS9AWYCE9W0HSS9","agent_name":"finished"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',3,'sevt_01M8FTEQTB8VJFXEP86FRRA355','user.message',1795827392342322,'{"id":"sevt_01M8FTEQTB8VJFXEP86FRRA355","type":"user.message","processed_at":"2026-11-28T00:56:32.342322Z","content":[{"type":"text","text":"[[bash: echo recorded]] [[then]] [[say: done]]"}]}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',4,'sevt_01M8FTETVV91QCJEAK5N1N4DZT','span.model_request_start',1795827395474018,'{"id":"sevt_01M8FTETVV91QCJEAK5N1N4DZT","type":"span.model_request_start","processed_at":"2026-11-28T00:56:35.474018Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',5,'sevt_01M8FTEVM6BD6ZST5PZGG8HVNE','agent.tool_use',1795827396230366,'{"id":"sevt_01M8FTEVM6BD6ZST5PZGG8HVNE","type":"agent.tool_use","processed_at":"2026-11-28T00:56:36.230366Z","name":"bash","input":{"command":"echo recorded"},"evaluated_permission":"allow","evaluation":{"type":"always_allow"}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',6,'sevt_01M8FTEY5J73DRC0CHPRTHX7E2','span.model_request_end',1795827398834002,'{"id":"sevt_01M8FTEY5J73DRC0CHPRTHX7E2","type":"span.model_request_end","processed_at":"2026-11-28T00:56:38.834002Z","model_request_start_id":"sevt_01M8FTETVV91QCJEAK5N1N4DZT","is_error":false,"model_usage":{"input_tokens":95,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',7,'sevt_01M8FTEY5JN3406A94K9EWMQ7T','agent.tool_result',1795827398834003,'{"id":"sevt_01M8FTEY5JN3406A94K9EWMQ7T","type":"agent.tool_result","processed_at":"2026-11-28T00:56:38.834003Z","tool_use_id":"sevt_01M8FTEVM6BD6ZST5PZGG8HVNE","content":[{"type":"text","text":"recorded\n"}],"is_error":false,"output":"recorded\n"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',8,'sevt_01M8FTEYARTNJS042X4RZ3F391','span.model_request_start',1795827399034817,'{"id":"sevt_01M8FTEYARTNJS042X4RZ3F391","type":"span.model_request_start","processed_at":"2026-11-28T00:56:39.034817Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',9,'sevt_01M8FTEYYREDAHMXB4M67S1ECF','agent.message',1795827399641155,'{"id":"sevt_01M8FTEYYREDAHMXB4M67S1ECF","type":"agent.message","processed_at":"2026-11-28T00:56:39.641155Z","content":[{"type":"text","text":"done"}],"text":"done"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',10,'sevt_01M8FTEYYSPR6RV944GG0H9RK2','span.model_request_end',1795827399641156,'{"id":"sevt_01M8FTEYYSPR6RV944GG0H9RK2","type":"span.model_request_end","processed_at":"2026-11-28T00:56:39.641156Z","model_request_start_id":"sevt_01M8FTEYARTNJS042X4RZ3F391","is_error":false,"model_usage":{"input_tokens":117,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',11,'sevt_01M8FTEYYS7S6MM2455A6B5CR0','session.thread_status_idle',1795827399641157,'{"id":"sevt_01M8FTEYYS7S6MM2455A6B5CR0","type":"session.thread_status_idle","processed_at":"2026-11-28T00:56:39.641157Z","session_thread_id":"sthr_01M8FTEQSTQSS9AWYCE9W0HSS9","agent_name":"finished","stop_reason":{"type":"end_turn"}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',12,'sevt_01M8FTEYYSR4CWM3C7SHHZY11Z','session.usage',1795827399641158,'{"id":"sevt_01M8FTEYYSR4CWM3C7SHHZY11Z","type":"session.usage","processed_at":"2026-11-28T00:56:39.641158Z","usage":{"input_tokens":212,"output_tokens":7,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":7.298859},"budget":null}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR',13,'sevt_01M8FTEYYSDJARS60YJNYX3FVS','session.status_idle',1795827399641159,'{"id":"sevt_01M8FTEYYSDJARS60YJNYX3FVS","type":"session.status_idle","processed_at":"2026-11-28T00:56:39.641159Z","stop_reason":{"type":"end_turn"}}',1);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',1,'sevt_01M8FTEZ2QCMD6B6BKATQ17QNR','session.status_running',1795827399767981,'{"id":"sevt_01M8FTEZ2QCMD6B6BKATQ17QNR","type":"session.status_running","processed_at":"2026-11-28T00:56:39.767981Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',2,'sevt_01M8FTEZ2R1K3908WPEZVRSVR1','session.thread_status_running',1795827399767982,'{"id":"sevt_01M8FTEZ2R1K3908WPEZVRSVR1","type":"session.thread_status_running","processed_at":"2026-11-28T00:56:39.767982Z","session_thread_id":"sthr_01M8FTEZ1W513TDGC4FJ947T31","agent_name":"waiting"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',3,'sevt_01M8FTEZ2Q9DPDS4X76SYHH99Z','user.message',1795827399767983,'{"id":"sevt_01M8FTEZ2Q9DPDS4X76SYHH99Z","type":"user.message","processed_at":"2026-11-28T00:56:39.767983Z","content":[{"type":"text","text":"[[bash: echo waits]] [[then]] [[say: went on]]"}]}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',4,'sevt_01M8FTF0PPM2B9FQYHCXATBXNW','span.model_request_start',1795827401454428,'{"id":"sevt_01M8FTF0PPM2B9FQYHCXATBXNW","type":"span.model_request_start","processed_at":"2026-11-28T00:56:41.454428Z"}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',5,'sevt_01M8FTF17EZVDJV8MY8B76BC8T','agent.tool_use',1795827402118030,'{"id":"sevt_01M8FTF17EZVDJV8MY8B76BC8T","type":"agent.tool_use","processed_at":"2026-11-28T00:56:42.118030Z","name":"bash","input":{"command":"echo waits"},"evaluated_permission":"ask","evaluation":{"type":"always_ask"}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',6,'sevt_01M8FTF1C6Q2MRSTCJD10BXP1Q','span.model_request_end',1795827402118031,'{"id":"sevt_01M8FTF1C6Q2MRSTCJD10BXP1Q","type":"span.model_request_end","processed_at":"2026-11-28T00:56:42.118031Z","model_request_start_id":"sevt_01M8FTF0PPM2B9FQYHCXATBXNW","is_error":false,"model_usage":{"input_tokens":96,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',7,'sevt_01M8FTF1C6EKTPK1NJMEGMHVG4','session.thread_status_idle',1795827402118032,'{"id":"sevt_01M8FTF1C6EKTPK1NJMEGMHVG4","type":"session.thread_status_idle","processed_at":"2026-11-28T00:56:42.118032Z","session_thread_id":"sthr_01M8FTEZ1W513TDGC4FJ947T31","agent_name":"waiting","stop_reason":{"type":"requires_action","event_ids":["sevt_01M8FTF17EZVDJV8MY8B76BC8T"]}}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',8,'sevt_01M8FTF1C6QD9WGMN74MXYN6XT','session.usage',1795827402118033,'{"id":"sevt_01M8FTF1C6QD9WGMN74MXYN6XT","type":"session.usage","processed_at":"2026-11-28T00:56:42.118033Z","usage":{"input_tokens":96,"output_tokens":6,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":2.350005},"budget":null}',0);
INSERT INTO "events" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H',9,'sevt_01M8FTF1C6TB2VPVQNQM2R0WC1','session.status_idle',1795827402118034,'{"id":"sevt_01M8FTF1C6TB2VPVQNQM2R0WC1","type":"session.status_idle","processed_at":"2026-11-28T00:56:42.118034Z","stop_reason":{"type":"requires_action","event_ids":["sevt_01M8FTF17EZVDJV8MY8B76BC8T"]}}',0);
CREATE TABLE key_check (
    sealed BLOB NOT NULL
) STRICT;
INSERT INTO "key_check" VALUES(X'011B5740827DE434BF2AB971944AA75BEBE40D903193D942B424CA5B572153226355B496EF0618A6BB35D77E38');
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
INSERT INTO "sessions" VALUES('sesn_01M8FTEQST76GRCQQXQJFYEABR','agent_01M8FTEQQF1VBBZQR15R8C6RPX',1,'env_01M8FTEQQSTC7RZTXMRXF82R0K','sthr_01M8FTEQSTQSS9AWYCE9W0HSS9','litellm/openai/gpt-4o','idle','2026-11-28T00:56:32.314963Z','2026-11-28T00:56:39.641136Z',NULL,13,1795827399641159,'ses_de0589c8bffeo1TmrThod7T7lx','[212, 7, 0, 0]',7298859,NULL,'{"agent": {"type": "agent", "id": "agent_01M8FTEQQF1VBBZQR15R8C6RPX", "version": 1, "name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
INSERT INTO "sessions" VALUES('sesn_01M8FTEZ1WFM3P2C7G1JVM3V9H','agent_01M8FTEYZZ3BC7X0892MAX6Y2G',1,'env_01M8FTEZ0V5KG4HTVRXM94WAMQ','sthr_01M8FTEZ1W513TDGC4FJ947T31','litellm/openai/gpt-4o','idle','2026-11-28T00:56:39.740209Z','2026-11-28T00:56:42.117970Z',NULL,9,1795827402118034,'ses_de05881afffe23OLAFOzigHV6v','[96, 6, 0, 0]',2350005,'{"user_event_id": "sevt_01M8FTEZ2Q9DPDS4X76SYHH99Z", "message_id": "msg_01M8FTEZ2Q3FKMS2YXQ75NMBWV", "is_repeated": false, "blocked": ["sevt_01M8FTF17EZVDJV8MY8B76BC8T"]}','{"agent": {"type": "agent", "id": "agent_01M8FTEYZZ3BC7X0892MAX6Y2G", "version": 1, "name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
CREATE TABLE vaults (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "vaults" VALUES('vlt_01M8FTF1CGVXR7FJBD4P36F4KN','2026-11-28T00:56:42.128755Z','2026-11-28T00:56:42.128755Z',NULL,'{"display_name": "recorded", "metadata": {}}');
CREATE INDEX agents_by_creation ON agents (created_at, id);
CREATE INDEX environments_by_creation ON environments (created_at, id);
CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, agent_version);
CREATE INDEX sessions_by_environment ON sessions (environment_id);
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at, id);
CREATE INDEX session_resources_by_session ON session_resources (session_id, id);
CREATE INDEX events_ending_turns ON events (session_id, seq) WHERE ends_turn = 1;
COMMIT;
PRAGMA user_version=2;
