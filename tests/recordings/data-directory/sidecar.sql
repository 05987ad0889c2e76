BEGIN TRANSACTION;
CREATE TABLE agent_versions (
    agent_id   TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    model_ref  TEXT NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (agent_id, version)
) STRICT, WITHOUT ROWID;
INSERT INTO "agent_versions" VALUES('agent_01M8G864RY25RGD32PAZ9XRTFV',1,'2026-11-28T04:56:30.750839Z','litellm/openai/gpt-4o','{"name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
INSERT INTO "agent_versions" VALUES('agent_01M8G86FKFXNMY6PWS0HRGBE7D',1,'2026-11-28T04:56:41.839111Z','litellm/openai/gpt-4o','{"name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}, "metadata": {}}');
CREATE TABLE agents (
    id          TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    archived_at TEXT
) STRICT;
INSERT INTO "agents" VALUES('agent_01M8G864RY25RGD32PAZ9XRTFV',1,'2026-11-28T04:56:30.750839Z',NULL);
INSERT INTO "agents" VALUES('agent_01M8G86FKFXNMY6PWS0HRGBE7D',1,'2026-11-28T04:56:41.839111Z',NULL);
CREATE TABLE credentials (
    id          TEXT PRIMARY KEY,
    vault_id    TEXT NOT NULL REFERENCES vaults (id) ON DELETE CASCADE,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL,
    secret      BLOB
) STRICT;
INSERT INTO "credentials" VALUES('vcrd_01M8G86JV8XE0ERA1527578VP0','vlt_01M8G86JSQ9FJ8G1WTXMW8NEF2','2026-11-28T04:56:45.160959Z','2026-11-28T04:56:45.160959Z',NULL,'{"auth": {"type": "static_bearer", "mcp_server_url": "https://mcp.example/mcp"}, "display_name": null, "metadata": {}}',X'012903832D95E20077200609788E089BA27F8171AF523EB0FCF848BD575B1962E89D49A0F18EE9294D1532');
CREATE TABLE environments (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "environments" VALUES('env_01M8G864V95PXP1VYY6PC8RNNT','2026-11-28T04:56:30.825222Z','2026-11-28T04:56:30.825222Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
INSERT INTO "environments" VALUES('env_01M8G86FKYNA8R1HGXV5T6CDER','2026-11-28T04:56:41.854886Z','2026-11-28T04:56:41.854886Z',NULL,'{"name": "place", "description": null, "config": {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": {"apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}}, "metadata": {}, "scope": null}');
CREATE TABLE events (
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    processed_us INTEGER NOT NULL,
    body         TEXT NOT NULL,
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',1,'sevt_01M8G86521BCMR9B3YYRE5M3FJ','session.status_running',1795841791041503,'{"id":"sevt_01M8G86521BCMR9B3YYRE5M3FJ","type":"session.status_running","processed_at":"2026-11-28T04:56:31.041503Z"}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',2,'sevt_01M8G86521QDVB15519J0QBM05','session.thread_status_running',1795841791041504,'{"id":"sevt_01M8G86521QDVB15519J0QBM05","type":"session.thread_status_running","processed_at":"2026-11-28T04:56:31.041504Z","session_thread_id":"sthr_01M8G864YXKFMKH93KGB1920TW","agent_name":"finished"}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',3,'sevt_01M8G8650R39S3714DJJRVVN85','user.message',1795841791041505,'{"id":"sevt_01M8G8650R39S3714DJJRVVN85","type":"user.message","processed_at":"2026-11-28T04:56:31.041505Z","content":[{"type":"text","text":"[[bash: echo recorded]] [[then]] [[say: done]]"}]}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',4,'sevt_01M8G86AZJEY69AGSX6P5HGDT0','span.model_request_start',1795841797139755,'{"id":"sevt_01M8G86AZJEY69AGSX6P5HGDT0","type":"span.model_request_start","processed_at":"2026-11-28T04:56:37.139755Z"}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',5,'sevt_01M8G86BZ9T3T2HHSQG9Q3S4KW','agent.tool_use',1795841798121802,'{"id":"sevt_01M8G86BZ9T3T2HHSQG9Q3S4KW","type":"agent.tool_use","processed_at":"2026-11-28T04:56:38.121802Z","name":"bash","input":{"command":"echo recorded"},"evaluated_permission":"allow","evaluation":{"type":"always_allow"}}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',6,'sevt_01M8G86F59Z2GX6H0B8QCJXQDF','span.model_request_end',1795841801385410,'{"id":"sevt_01M8G86F59Z2GX6H0B8QCJXQDF","type":"span.model_request_end","processed_at":"2026-11-28T04:56:41.385410Z","model_request_start_id":"sevt_01M8G86AZJEY69AGSX6P5HGDT0","is_error":false,"model_usage":{"input_tokens":95,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',7,'sevt_01M8G86F59JZ6QT48H49PV0QK5','agent.tool_result',1795841801385411,'{"id":"sevt_01M8G86F59JZ6QT48H49PV0QK5","type":"agent.tool_result","processed_at":"2026-11-28T04:56:41.385411Z","tool_use_id":"sevt_01M8G86BZ9T3T2HHSQG9Q3S4KW","content":[{"type":"text","text":"recorded\n"}],"is_error":false,"output":"recorded\n"}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',8,'sevt_01M8G86F3B3G5A1N5BYKTN2XFF','span.model_request_start',1795841801385412,'{"id":"sevt_01M8G86F3B3G5A1N5BYKTN2XFF","type":"span.model_request_start","processed_at":"2026-11-28T04:56:41.385412Z"}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',9,'sevt_01M8G86FJSM8JJWBD9CPVCRTYV','agent.message',1795841801818024,'{"id":"sevt_01M8G86FJSM8JJWBD9CPVCRTYV","type":"agent.message","processed_at":"2026-11-28T04:56:41.818024Z","content":[{"type":"text","text":"done"}],"text":"done"}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',10,'sevt_01M8G86FJTXB37KRJR6EEXJV40','span.model_request_end',1795841801818025,'{"id":"sevt_01M8G86FJTXB37KRJR6EEXJV40","type":"span.model_request_end","processed_at":"2026-11-28T04:56:41.818025Z","model_request_start_id":"sevt_01M8G86F3B3G5A1N5BYKTN2XFF","is_error":false,"model_usage":{"input_tokens":117,"output_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',11,'sevt_01M8G86FJTTD2VPN8CBTADR54E','session.thread_status_idle',1795841801818026,'{"id":"sevt_01M8G86FJTTD2VPN8CBTADR54E","type":"session.thread_status_idle","processed_at":"2026-11-28T04:56:41.818026Z","session_thread_id":"sthr_01M8G864YXKFMKH93KGB1920TW","agent_name":"finished","stop_reason":{"type":"end_turn"}}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',12,'sevt_01M8G86FJTT1N31Z7KXDKV13R3','session.usage',1795841801818027,'{"id":"sevt_01M8G86FJTT1N31Z7KXDKV13R3","type":"session.usage","processed_at":"2026-11-28T04:56:41.818027Z","usage":{"input_tokens":212,"output_tokens":7,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":10.776605},"budget":null}');
INSERT INTO "events" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ',13,'sevt_01M8G86FJTZ90Y87Y59QCG34FB','session.status_idle',1795841801818028,'{"id":"sevt_01M8G86FJTZ90Y87Y59QCG34FB","type":"session.status_idle","processed_at":"2026-11-28T04:56:41.818028Z","stop_reason":{"type":"end_turn"}}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',1,'sevt_01M8G86FP08BBH9S8J6DX9DBCC','session.status_running',1795841801920863,'{"id":"sevt_01M8G86FP08BBH9S8J6DX9DBCC","type":"session.status_running","processed_at":"2026-11-28T04:56:41.920863Z"}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',2,'sevt_01M8G86FP01W0G6BK1M6V6VV8J','session.thread_status_running',1795841801920864,'{"id":"sevt_01M8G86FP01W0G6BK1M6V6VV8J","type":"session.thread_status_running","processed_at":"2026-11-28T04:56:41.920864Z","session_thread_id":"sthr_01M8G86FN93QNRPFH7J7W34W97","agent_name":"waiting"}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',3,'sevt_01M8G86FP0Q03Q0KGPX3J8R1VJ','user.message',1795841801920865,'{"id":"sevt_01M8G86FP0Q03Q0KGPX3J8R1VJ","type":"user.message","processed_at":"2026-11-28T04:56:41.920865Z","content":[{"type":"text","text":"[[bash: echo waits]] [[then]] [[say: went on]]"}]}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',4,'sevt_01M8G86HM85WFH3WXS09052HFY','span.model_request_start',1795841803938136,'{"id":"sevt_01M8G86HM85WFH3WXS09052HFY","type":"span.model_request_start","processed_at":"2026-11-28T04:56:43.938136Z"}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',5,'sevt_01M8G86JJDFN5CNX3VFQZDN3RB','agent.tool_use',1795841805053812,'{"id":"sevt_01M8G86JJDFN5CNX3VFQZDN3RB","type":"agent.tool_use","processed_at":"2026-11-28T04:56:45.053812Z","name":"bash","input":{"command":"echo waits"},"evaluated_permission":"ask","evaluation":{"type":"always_ask"}}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',6,'sevt_01M8G86JQXVM2QJ48EV60H0R4P','span.model_request_end',1795841805053813,'{"id":"sevt_01M8G86JQXVM2QJ48EV60H0R4P","type":"span.model_request_end","processed_at":"2026-11-28T04:56:45.053813Z","model_request_start_id":"sevt_01M8G86HM85WFH3WXS09052HFY","is_error":false,"model_usage":{"input_tokens":96,"output_tokens":6,"cache_creation_input_tokens":0,"cache_read_input_tokens":0}}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',7,'sevt_01M8G86JQX3F3PHECE61B9C4NH','session.thread_status_idle',1795841805053814,'{"id":"sevt_01M8G86JQX3F3PHECE61B9C4NH","type":"session.thread_status_idle","processed_at":"2026-11-28T04:56:45.053814Z","session_thread_id":"sthr_01M8G86FN93QNRPFH7J7W34W97","agent_name":"waiting","stop_reason":{"type":"requires_action","event_ids":["sevt_01M8G86JJDFN5CNX3VFQZDN3RB"]}}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',8,'sevt_01M8G86JQX75TNQ09NNBMDJGXM','session.usage',1795841805053815,'{"id":"sevt_01M8G86JQX75TNQ09NNBMDJGXM","type":"session.usage","processed_at":"2026-11-28T04:56:45.053815Z","usage":{"input_tokens":96,"output_tokens":6,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"active_seconds":3.132906},"budget":null}');
INSERT INTO "events" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN',9,'sevt_01M8G86JQXQWRNJDZGEVFBWQH6','session.status_idle',1795841805053816,'{"id":"sevt_01M8G86JQXQWRNJDZGEVFBWQH6","type":"session.status_idle","processed_at":"2026-11-28T04:56:45.053816Z","stop_reason":{"type":"requires_action","event_ids":["sevt_01M8G86JJDFN5CNX3VFQZDN3RB"]}}');
CREATE TABLE key_check (
    sealed BLOB NOT NULL
) STRICT;
INSERT INTO "key_check" VALUES(X'01649D34D96C8C43632387B7CEB6959FFA3BDD5BEB0B3C8DDFFECF935200D13657FD3E2F8C4673BBD406A01EDD');
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
INSERT INTO "sessions" VALUES('sesn_01M8G864YXYJXRR5M9XRR55FBZ','agent_01M8G864RY25RGD32PAZ9XRTFV',1,'env_01M8G864V95PXP1VYY6PC8RNNT','sthr_01M8G864YXKFMKH93KGB1920TW','litellm/openai/gpt-4o','idle','2026-11-28T04:56:30.941555Z','2026-11-28T04:56:41.818013Z',NULL,13,1795841801818028,'ses_ddf7ce468ffe9lnscdXOcdYIxC','[212, 7, 0, 0]',10776605,NULL,'{"agent": {"type": "agent", "id": "agent_01M8G864RY25RGD32PAZ9XRTFV", "version": 1, "name": "finished", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
INSERT INTO "sessions" VALUES('sesn_01M8G86FN9GSV25NGNBNP7PXSN','agent_01M8G86FKFXNMY6PWS0HRGBE7D',1,'env_01M8G86FKYNA8R1HGXV5T6CDER','sthr_01M8G86FN93QNRPFH7J7W34W97','litellm/openai/gpt-4o','idle','2026-11-28T04:56:41.897604Z','2026-11-28T04:56:45.053764Z',NULL,9,1795841805053816,'ses_ddf7cbfc4ffeK2hAYWYOp7jJRP','[96, 6, 0, 0]',3132906,'{"user_event_id": "sevt_01M8G86FP0Q03Q0KGPX3J8R1VJ", "message_id": "msg_01M8G86FP0NSKS2E6D0EXBC81F", "is_repeated": false, "blocked": ["sevt_01M8G86JJDFN5CNX3VFQZDN3RB"]}','{"agent": {"type": "agent", "id": "agent_01M8G86FKFXNMY6PWS0HRGBE7D", "version": 1, "name": "waiting", "model": {"id": "openai/gpt-4o"}, "system": null, "description": null, "tools": [{"type": "agent_toolset_20260401", "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}, "configs": []}], "mcp_servers": [], "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}}, "title": null, "metadata": {}, "resources": [], "vault_ids": []}');
CREATE TABLE vaults (
    id          TEXT PRIMARY KEY,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    archived_at TEXT,
    body        TEXT NOT NULL
) STRICT;
INSERT INTO "vaults" VALUES('vlt_01M8G86JSQ9FJ8G1WTXMW8NEF2','2026-11-28T04:56:45.111336Z','2026-11-28T04:56:45.111336Z',NULL,'{"display_name": "recorded", "metadata": {}}');
CREATE INDEX agents_by_creation ON agents (created_at, id);
CREATE INDEX environments_by_creation ON environments (created_at, id);
CREATE INDEX sessions_by_creation ON sessions (created_at, id);
CREATE INDEX sessions_by_agent ON sessions (agent_id, agent_version);
CREATE INDEX sessions_by_environment ON sessions (environment_id);
CREATE INDEX credentials_by_vault ON credentials (vault_id, created_at, id);
CREATE INDEX session_resources_by_session ON session_resources (session_id, id);
COMMIT;
PRAGMA user_version = 1;
