BEGIN TRANSACTION;
CREATE TABLE `account` (
          `id` text PRIMARY KEY,
          `email` text NOT NULL,
          `url` text NOT NULL,
          `access_token` text NOT NULL,
          `refresh_token` text NOT NULL,
          `token_expiry` integer,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL
        );
CREATE TABLE `account_state` (
          `id` integer PRIMARY KEY,
          `active_account_id` text,
          `active_org_id` text,
          CONSTRAINT `fk_account_state_active_account_id_account_id_fk` FOREIGN KEY (`active_account_id`) REFERENCES `account`(`id`) ON DELETE SET NULL
        );
CREATE TABLE `control_account` (
          `email` text NOT NULL,
          `url` text NOT NULL,
          `access_token` text NOT NULL,
          `refresh_token` text NOT NULL,
          `token_expiry` integer,
          `active` integer NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          CONSTRAINT `control_account_pk` PRIMARY KEY(`email`, `url`)
        );
CREATE TABLE `credential` (
          `id` text PRIMARY KEY,
          `integration_id` text,
          `label` text NOT NULL,
          `value` text NOT NULL,
          `connector_id` text,
          `method_id` text,
          `active` integer,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL
        );
CREATE TABLE `data_migration` (
          `name` text PRIMARY KEY,
          `time_completed` integer NOT NULL
        );
CREATE TABLE `event` (
          `id` text PRIMARY KEY,
          `aggregate_id` text NOT NULL,
          `seq` integer NOT NULL,
          `type` text NOT NULL,
          `data` text NOT NULL,
          CONSTRAINT `fk_event_aggregate_id_event_sequence_aggregate_id_fk` FOREIGN KEY (`aggregate_id`) REFERENCES `event_sequence`(`aggregate_id`) ON DELETE CASCADE
        );
INSERT INTO "event" VALUES('evt_220831b98001SI3J74sHZXgVEU','ses_ddf7ce468ffe9lnscdXOcdYIxC',0,'session.created.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"ses_ddf7ce468ffe9lnscdXOcdYIxC","slug":"quick-cactus","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","path":"old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G864YXYJXRR5M9XRR55FBZ","version":"1.18.33","time":{"created":1795841792919,"updated":1795841792919},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_220831e2b001OeEn3JH7Jz4qCJ','ses_ddf7ce468ffe9lnscdXOcdYIxC',1,'session.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"ses_ddf7ce468ffe9lnscdXOcdYIxC","slug":"quick-cactus","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","path":"old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G864YXYJXRR5M9XRR55FBZ","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841792919,"updated":1795841793557},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_220831e9a001tecqjhBkF6oT5c','ses_ddf7ce468ffe9lnscdXOcdYIxC',2,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_01M8G8652130H7NN11Z9T3R9ZT","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"user","time":{"created":1795841793557},"agent":"sidecar","model":{"providerID":"litellm","modelID":"openai/gpt-4o"}}}');
INSERT INTO "event" VALUES('evt_220831eba001FzuHYHflJUe25D','ses_ddf7ce468ffe9lnscdXOcdYIxC',3,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_01M8G8652130H7NN11Z9T3R9ZT0000","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_01M8G8652130H7NN11Z9T3R9ZT","type":"text","text":"[[bash: echo recorded]] [[then]] [[say: done]]"},"time":1795841793722}');
INSERT INTO "event" VALUES('evt_220831ee80011gpP4GuVAmBTTL','ses_ddf7ce468ffe9lnscdXOcdYIxC',4,'session.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"ses_ddf7ce468ffe9lnscdXOcdYIxC","slug":"quick-cactus","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","path":"old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G864YXYJXRR5M9XRR55FBZ","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841792919,"updated":1795841793767},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_220832196001ezWRw6V282kXXz','ses_ddf7ce468ffe9lnscdXOcdYIxC',5,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_220832188001oG9cb06IAn3fzK","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"assistant","time":{"created":1795841794453},"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}}}}');
INSERT INTO "event" VALUES('evt_220832390001t3vzAR7AKv63TR','ses_ddf7ce468ffe9lnscdXOcdYIxC',6,'session.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"ses_ddf7ce468ffe9lnscdXOcdYIxC","slug":"quick-cactus","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","path":"old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","summary":{"additions":0,"deletions":0,"files":0},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G864YXYJXRR5M9XRR55FBZ","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841792919,"updated":1795841794958},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_220832cd7001zS4zuzCw8mrcRY','ses_ddf7ce468ffe9lnscdXOcdYIxC',7,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220832cd7001rfWge9xwUkwQ4x","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"step-start"},"time":1795841797335}');
INSERT INTO "event" VALUES('evt_220832d61001XV9FtVDj8rLeLJ','ses_ddf7ce468ffe9lnscdXOcdYIxC',8,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220832d58001ES5zyopV1XsjL4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"tool","callID":"call_3760331855b3_0","tool":"bash","state":{"status":"pending","input":{},"raw":""}},"time":1795841797464}');
INSERT INTO "event" VALUES('evt_220832ec9001F8XiIHw1y424Y1','ses_ddf7ce468ffe9lnscdXOcdYIxC',9,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220832d58001ES5zyopV1XsjL4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"tool","callID":"call_3760331855b3_0","tool":"bash","state":{"status":"running","input":{"command":"echo recorded","description":"Runs echo"},"time":{"start":1795841797824}}},"time":1795841797833}');
INSERT INTO "event" VALUES('evt_2208332ec001quG0FOMJ4pg6Em','ses_ddf7ce468ffe9lnscdXOcdYIxC',10,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220832d58001ES5zyopV1XsjL4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"tool","callID":"call_3760331855b3_0","tool":"bash","state":{"status":"running","input":{"command":"echo recorded","description":"Runs echo"},"metadata":{"output":""},"time":{"start":1795841797824}}},"time":1795841798892}');
INSERT INTO "event" VALUES('evt_22083368a001sVxnfMEO9kEbbC','ses_ddf7ce468ffe9lnscdXOcdYIxC',11,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220832d58001ES5zyopV1XsjL4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"tool","callID":"call_3760331855b3_0","tool":"bash","state":{"status":"running","input":{"command":"echo recorded","description":"Runs echo"},"metadata":{"output":"recorded\n"},"time":{"start":1795841797824}}},"time":1795841799818}');
INSERT INTO "event" VALUES('evt_2208337fe001tqUjC5UbZE9MVb','ses_ddf7ce468ffe9lnscdXOcdYIxC',12,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220832d58001ES5zyopV1XsjL4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"tool","callID":"call_3760331855b3_0","tool":"bash","state":{"status":"completed","input":{"command":"echo recorded","description":"Runs echo"},"output":"recorded\n","title":"echo recorded","metadata":{"output":"recorded\n","exit":0,"truncated":false},"time":{"start":1795841797824,"end":1795841800190}}},"time":1795841800190}');
INSERT INTO "event" VALUES('evt_2208338a6001ijCL5BKW6eLoNB','ses_ddf7ce468ffe9lnscdXOcdYIxC',13,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_2208338a60012dIHXB03Wiegqx","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220832188001oG9cb06IAn3fzK","type":"step-finish","reason":"tool-calls","cost":0.000119,"tokens":{"total":101,"input":95,"output":6,"reasoning":0,"cache":{"read":0,"write":0}}},"time":1795841800358}');
INSERT INTO "event" VALUES('evt_220833a40001I9ua0PcbckBhTa','ses_ddf7ce468ffe9lnscdXOcdYIxC',14,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_220832188001oG9cb06IAn3fzK","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"assistant","time":{"created":1795841794453},"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0.000119,"tokens":{"total":101,"input":95,"output":6,"reasoning":0,"cache":{"read":0,"write":0}},"finish":"tool-calls"}}');
INSERT INTO "event" VALUES('evt_220833aba001fhHNXEyQsuFT4Z','ses_ddf7ce468ffe9lnscdXOcdYIxC',15,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_220832188001oG9cb06IAn3fzK","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"assistant","time":{"created":1795841794453,"completed":1795841800889},"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0.000119,"tokens":{"total":101,"input":95,"output":6,"reasoning":0,"cache":{"read":0,"write":0}},"finish":"tool-calls"}}');
INSERT INTO "event" VALUES('evt_220833b1d00139aU87dkro0O3o','ses_ddf7ce468ffe9lnscdXOcdYIxC',16,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_220833b060013p6iH7pk2V7mrg","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"assistant","time":{"created":1795841800967},"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}}}}');
INSERT INTO "event" VALUES('evt_220833c6f001uhEG15UeE0uQvq','ses_ddf7ce468ffe9lnscdXOcdYIxC',17,'session.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"ses_ddf7ce468ffe9lnscdXOcdYIxC","slug":"quick-cactus","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","path":"old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","summary":{"additions":0,"deletions":0,"files":0},"cost":0.000119,"tokens":{"input":95,"output":6,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G864YXYJXRR5M9XRR55FBZ","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841792919,"updated":1795841801326},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_220833d1d0018FlxSTCpn1WTTM','ses_ddf7ce468ffe9lnscdXOcdYIxC',18,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220833d12001u1bZuM3qN2raMA","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220833b060013p6iH7pk2V7mrg","type":"step-start"},"time":1795841801501}');
INSERT INTO "event" VALUES('evt_220833d35001X6X4rwZGntzIJu','ses_ddf7ce468ffe9lnscdXOcdYIxC',19,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220833d280016v8KVXBIdJKGM4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220833b060013p6iH7pk2V7mrg","type":"text","text":"","time":{"start":1795841801512}},"time":1795841801525}');
INSERT INTO "event" VALUES('evt_220833d4b0012IEIIZ7xMm5pXb','ses_ddf7ce468ffe9lnscdXOcdYIxC',20,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220833d280016v8KVXBIdJKGM4","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220833b060013p6iH7pk2V7mrg","type":"text","text":"done","time":{"start":1795841801512,"end":1795841801547}},"time":1795841801547}');
INSERT INTO "event" VALUES('evt_220833d74001Iace5GEnUr0Oz3','ses_ddf7ce468ffe9lnscdXOcdYIxC',21,'message.part.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","part":{"id":"prt_220833d74001xdRGrYHK89K4OQ","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","messageID":"msg_220833b060013p6iH7pk2V7mrg","type":"step-finish","reason":"stop","cost":0.000121,"tokens":{"total":118,"input":117,"output":1,"reasoning":0,"cache":{"read":0,"write":0}}},"time":1795841801588}');
INSERT INTO "event" VALUES('evt_220833d9b001mDhvbWbV4gDxvb','ses_ddf7ce468ffe9lnscdXOcdYIxC',22,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_220833b060013p6iH7pk2V7mrg","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"assistant","time":{"created":1795841800967},"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0.000121,"tokens":{"total":118,"input":117,"output":1,"reasoning":0,"cache":{"read":0,"write":0}},"finish":"stop"}}');
INSERT INTO "event" VALUES('evt_220833dcb001ccdtXqSFQvSmJv','ses_ddf7ce468ffe9lnscdXOcdYIxC',23,'message.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"msg_220833b060013p6iH7pk2V7mrg","sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","role":"assistant","time":{"created":1795841800967,"completed":1795841801674},"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0.000121,"tokens":{"total":118,"input":117,"output":1,"reasoning":0,"cache":{"read":0,"write":0}},"finish":"stop"}}');
INSERT INTO "event" VALUES('evt_220833e20001Nwz69LR40Ry3Hv','ses_ddf7ce468ffe9lnscdXOcdYIxC',24,'session.updated.1','{"sessionID":"ses_ddf7ce468ffe9lnscdXOcdYIxC","info":{"id":"ses_ddf7ce468ffe9lnscdXOcdYIxC","slug":"quick-cactus","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","path":"old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","summary":{"additions":0,"deletions":0,"files":0},"cost":0.00024,"tokens":{"input":212,"output":7,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G864YXYJXRR5M9XRR55FBZ","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841792919,"updated":1795841801759},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_22083403b002VroAD1RUMFoLog','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',0,'session.created.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","slug":"nimble-engine","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","path":"old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G86FN9GSV25NGNBNP7PXSN","version":"1.18.33","time":{"created":1795841802299,"updated":1795841802299},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"ask"},{"permission":"read","pattern":"*","action":"ask"},{"permission":"edit","pattern":"*","action":"ask"},{"permission":"glob","pattern":"*","action":"ask"},{"permission":"grep","pattern":"*","action":"ask"},{"permission":"webfetch","pattern":"*","action":"ask"},{"permission":"websearch","pattern":"*","action":"ask"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_2208341a9001PNNrNOCwC9XkzA','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',1,'session.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","slug":"nimble-engine","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","path":"old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G86FN9GSV25NGNBNP7PXSN","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841802299,"updated":1795841802659},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"ask"},{"permission":"read","pattern":"*","action":"ask"},{"permission":"edit","pattern":"*","action":"ask"},{"permission":"glob","pattern":"*","action":"ask"},{"permission":"grep","pattern":"*","action":"ask"},{"permission":"webfetch","pattern":"*","action":"ask"},{"permission":"websearch","pattern":"*","action":"ask"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_2208341ba001l6J16FYHq6LjSm','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',2,'message.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"msg_01M8G86FP0NSKS2E6D0EXBC81F","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","role":"user","time":{"created":1795841802659},"agent":"sidecar","model":{"providerID":"litellm","modelID":"openai/gpt-4o"}}}');
INSERT INTO "event" VALUES('evt_2208341d0001QvQW8lUknmjp7L','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',3,'message.part.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","part":{"id":"prt_01M8G86FP0NSKS2E6D0EXBC81F0000","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","messageID":"msg_01M8G86FP0NSKS2E6D0EXBC81F","type":"text","text":"[[bash: echo waits]] [[then]] [[say: went on]]"},"time":1795841802704}');
INSERT INTO "event" VALUES('evt_2208341d4001PAz9A77aHvDAE3','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',4,'session.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","slug":"nimble-engine","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","path":"old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G86FN9GSV25NGNBNP7PXSN","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841802299,"updated":1795841802708},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"ask"},{"permission":"read","pattern":"*","action":"ask"},{"permission":"edit","pattern":"*","action":"ask"},{"permission":"glob","pattern":"*","action":"ask"},{"permission":"grep","pattern":"*","action":"ask"},{"permission":"webfetch","pattern":"*","action":"ask"},{"permission":"websearch","pattern":"*","action":"ask"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_220834375001sY4iXQDthdPx3u','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',5,'message.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"msg_2208343750013PBvfSu8OvQuAo","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","role":"assistant","time":{"created":1795841803125},"parentID":"msg_01M8G86FP0NSKS2E6D0EXBC81F","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","root":"/"},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}}}}');
INSERT INTO "event" VALUES('evt_220834454001kW0RWumbQS6RiQ','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',6,'session.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","slug":"nimble-engine","projectID":"global","directory":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","path":"old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","summary":{"additions":0,"deletions":0,"files":0},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"title":"sesn_01M8G86FN9GSV25NGNBNP7PXSN","agent":"sidecar","model":{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"},"version":"1.18.33","time":{"created":1795841802299,"updated":1795841803347},"permission":[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"ask"},{"permission":"read","pattern":"*","action":"ask"},{"permission":"edit","pattern":"*","action":"ask"},{"permission":"glob","pattern":"*","action":"ask"},{"permission":"grep","pattern":"*","action":"ask"},{"permission":"webfetch","pattern":"*","action":"ask"},{"permission":"websearch","pattern":"*","action":"ask"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]}}');
INSERT INTO "event" VALUES('evt_2208347fb00184yFKO0q5TwpnL','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',7,'message.part.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","part":{"id":"prt_2208347fb0011UqgJETYvcAekL","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","messageID":"msg_2208343750013PBvfSu8OvQuAo","type":"step-start"},"time":1795841804283}');
INSERT INTO "event" VALUES('evt_22083481c0013T2YhUDzRnFvAt','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',8,'message.part.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","part":{"id":"prt_22083481c001P2sqITB8Xt8Sps","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","messageID":"msg_2208343750013PBvfSu8OvQuAo","type":"tool","callID":"call_b8806347b843_0","tool":"bash","state":{"status":"pending","input":{},"raw":""}},"time":1795841804316}');
INSERT INTO "event" VALUES('evt_22083492a001sXg6zxtduGT2pm','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',9,'message.part.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","part":{"id":"prt_22083481c001P2sqITB8Xt8Sps","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","messageID":"msg_2208343750013PBvfSu8OvQuAo","type":"tool","callID":"call_b8806347b843_0","tool":"bash","state":{"status":"running","input":{"command":"echo waits","description":"Runs echo"},"time":{"start":1795841804586}}},"time":1795841804586}');
INSERT INTO "event" VALUES('evt_220834f63001hTviOX434TdDFF','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',10,'message.part.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","part":{"id":"prt_22083481c001P2sqITB8Xt8Sps","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","messageID":"msg_2208343750013PBvfSu8OvQuAo","type":"tool","callID":"call_b8806347b843_0","tool":"bash","state":{"status":"error","input":{"command":"echo waits","description":"Runs echo"},"error":"Tool execution aborted","metadata":{"interrupted":true},"time":{"start":1795841804586,"end":1795841806179}}},"time":1795841806179}');
INSERT INTO "event" VALUES('evt_220834f86001t4i6QbU3pEoGVq','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',11,'message.updated.1','{"sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","info":{"id":"msg_2208343750013PBvfSu8OvQuAo","sessionID":"ses_ddf7cbfc4ffeK2hAYWYOp7jJRP","role":"assistant","time":{"created":1795841803125,"completed":1795841806214},"error":{"name":"MessageAbortedError","data":{"message":"Aborted"}},"parentID":"msg_01M8G86FP0NSKS2E6D0EXBC81F","modelID":"openai/gpt-4o","providerID":"litellm","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","root":"/"},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}}}}');
CREATE TABLE `event_sequence` (
          `aggregate_id` text PRIMARY KEY,
          `seq` integer NOT NULL,
          `owner_id` text
        );
INSERT INTO "event_sequence" VALUES('ses_ddf7ce468ffe9lnscdXOcdYIxC',24,NULL);
INSERT INTO "event_sequence" VALUES('ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',11,NULL);
CREATE TABLE `message` (
          `id` text PRIMARY KEY,
          `session_id` text NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          `data` text NOT NULL,
          CONSTRAINT `fk_message_session_id_session_id_fk` FOREIGN KEY (`session_id`) REFERENCES `session`(`id`) ON DELETE CASCADE
        );
INSERT INTO "message" VALUES('msg_01M8G8652130H7NN11Z9T3R9ZT','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841793557,1795841793692,'{"role":"user","time":{"created":1795841793557},"agent":"sidecar","model":{"providerID":"litellm","modelID":"openai/gpt-4o"}}');
INSERT INTO "message" VALUES('msg_220832188001oG9cb06IAn3fzK','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841794453,1795841800891,'{"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","role":"assistant","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0.000119,"tokens":{"total":101,"input":95,"output":6,"reasoning":0,"cache":{"write":0,"read":0}},"modelID":"openai/gpt-4o","providerID":"litellm","time":{"created":1795841794453,"completed":1795841800889},"finish":"tool-calls"}');
INSERT INTO "message" VALUES('msg_220833b060013p6iH7pk2V7mrg','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841800967,1795841801676,'{"parentID":"msg_01M8G8652130H7NN11Z9T3R9ZT","role":"assistant","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ","root":"/"},"cost":0.000121,"tokens":{"total":118,"input":117,"output":1,"reasoning":0,"cache":{"write":0,"read":0}},"modelID":"openai/gpt-4o","providerID":"litellm","time":{"created":1795841800967,"completed":1795841801674},"finish":"stop"}');
INSERT INTO "message" VALUES('msg_01M8G86FP0NSKS2E6D0EXBC81F','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',1795841802659,1795841802683,'{"role":"user","time":{"created":1795841802659},"agent":"sidecar","model":{"providerID":"litellm","modelID":"openai/gpt-4o"}}');
INSERT INTO "message" VALUES('msg_2208343750013PBvfSu8OvQuAo','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',1795841803125,1795841806215,'{"parentID":"msg_01M8G86FP0NSKS2E6D0EXBC81F","role":"assistant","mode":"sidecar","agent":"sidecar","path":{"cwd":"/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN","root":"/"},"cost":0,"tokens":{"input":0,"output":0,"reasoning":0,"cache":{"read":0,"write":0}},"modelID":"openai/gpt-4o","providerID":"litellm","time":{"created":1795841803125,"completed":1795841806214},"error":{"name":"MessageAbortedError","data":{"message":"Aborted"}}}');
CREATE TABLE "migration" (id TEXT PRIMARY KEY, time_completed INTEGER NOT NULL);
INSERT INTO "migration" VALUES('20260127222353_familiar_lady_ursula',1795841782716);
INSERT INTO "migration" VALUES('20260211171708_add_project_commands',1795841782733);
INSERT INTO "migration" VALUES('20260213144116_wakeful_the_professor',1795841782733);
INSERT INTO "migration" VALUES('20260225215848_workspace',1795841782734);
INSERT INTO "migration" VALUES('20260227213759_add_session_workspace_id',1795841782734);
INSERT INTO "migration" VALUES('20260228203230_blue_harpoon',1795841782734);
INSERT INTO "migration" VALUES('20260303231226_add_workspace_fields',1795841782734);
INSERT INTO "migration" VALUES('20260309230000_move_org_to_state',1795841782734);
INSERT INTO "migration" VALUES('20260312043431_session_message_cursor',1795841782734);
INSERT INTO "migration" VALUES('20260323234822_events',1795841782734);
INSERT INTO "migration" VALUES('20260410174513_workspace-name',1795841782734);
INSERT INTO "migration" VALUES('20260413175956_chief_energizer',1795841782734);
INSERT INTO "migration" VALUES('20260423070820_add_icon_url_override',1795841782734);
INSERT INTO "migration" VALUES('20260427172553_slow_nightmare',1795841782734);
INSERT INTO "migration" VALUES('20260428004200_add_session_path',1795841782735);
INSERT INTO "migration" VALUES('20260501142318_next_venus',1795841782735);
INSERT INTO "migration" VALUES('20260504145000_add_sync_owner',1795841782735);
INSERT INTO "migration" VALUES('20260507164347_add_workspace_time',1795841782735);
INSERT INTO "migration" VALUES('20260510033149_session_usage',1795841782735);
INSERT INTO "migration" VALUES('20260511000411_data_migration_state',1795841782736);
INSERT INTO "migration" VALUES('20260511173437_session-metadata',1795841782736);
INSERT INTO "migration" VALUES('20260601010001_normalize_storage_paths',1795841782736);
INSERT INTO "migration" VALUES('20260601202201_amazing_prowler',1795841782736);
INSERT INTO "migration" VALUES('20260602002951_lowly_union_jack',1795841782736);
INSERT INTO "migration" VALUES('20260602182828_add_project_directories',1795841782771);
INSERT INTO "migration" VALUES('20260603001617_session_message_projection_indexes',1795841782771);
INSERT INTO "migration" VALUES('20260603040000_session_message_projection_order',1795841782771);
INSERT INTO "migration" VALUES('20260603141458_session_input_inbox',1795841782771);
INSERT INTO "migration" VALUES('20260603160727_jittery_ezekiel_stane',1795841782772);
INSERT INTO "migration" VALUES('20260604172448_event_sourced_session_input',1795841782772);
INSERT INTO "migration" VALUES('20260605003541_add_session_context_snapshot',1795841782772);
INSERT INTO "migration" VALUES('20260605042240_add_context_epoch_agent',1795841782772);
INSERT INTO "migration" VALUES('20260611035744_credential',1795841782772);
INSERT INTO "migration" VALUES('20260611192811_lush_chimera',1795841782777);
INSERT INTO "migration" VALUES('20260612174303_project_dir_strategy',1795841782778);
INSERT INTO "migration" VALUES('20260622142730_simplify_session_context_epoch',1795841782778);
INSERT INTO "migration" VALUES('20260622170816_reset_v2_session_state',1795841782778);
INSERT INTO "migration" VALUES('20260622202450_simplify_session_input',1795841782778);
CREATE TABLE `part` (
          `id` text PRIMARY KEY,
          `message_id` text NOT NULL,
          `session_id` text NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          `data` text NOT NULL,
          CONSTRAINT `fk_part_message_id_message_id_fk` FOREIGN KEY (`message_id`) REFERENCES `message`(`id`) ON DELETE CASCADE
        );
INSERT INTO "part" VALUES('prt_01M8G8652130H7NN11Z9T3R9ZT0000','msg_01M8G8652130H7NN11Z9T3R9ZT','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841793722,1795841793724,'{"type":"text","text":"[[bash: echo recorded]] [[then]] [[say: done]]"}');
INSERT INTO "part" VALUES('prt_220832cd7001rfWge9xwUkwQ4x','msg_220832188001oG9cb06IAn3fzK','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841797335,1795841797403,'{"type":"step-start"}');
INSERT INTO "part" VALUES('prt_220832d58001ES5zyopV1XsjL4','msg_220832188001oG9cb06IAn3fzK','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841797464,1795841800214,'{"type":"tool","tool":"bash","callID":"call_3760331855b3_0","state":{"status":"completed","input":{"command":"echo recorded","description":"Runs echo"},"output":"recorded\n","metadata":{"output":"recorded\n","exit":0,"truncated":false},"title":"echo recorded","time":{"start":1795841797824,"end":1795841800190}}}');
INSERT INTO "part" VALUES('prt_2208338a60012dIHXB03Wiegqx','msg_220832188001oG9cb06IAn3fzK','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841800358,1795841800473,'{"reason":"tool-calls","type":"step-finish","tokens":{"total":101,"input":95,"output":6,"reasoning":0,"cache":{"write":0,"read":0}},"cost":0.000119}');
INSERT INTO "part" VALUES('prt_220833d12001u1bZuM3qN2raMA','msg_220833b060013p6iH7pk2V7mrg','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841801501,1795841801510,'{"type":"step-start"}');
INSERT INTO "part" VALUES('prt_220833d280016v8KVXBIdJKGM4','msg_220833b060013p6iH7pk2V7mrg','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841801525,1795841801586,'{"type":"text","text":"done","time":{"start":1795841801512,"end":1795841801547}}');
INSERT INTO "part" VALUES('prt_220833d74001xdRGrYHK89K4OQ','msg_220833b060013p6iH7pk2V7mrg','ses_ddf7ce468ffe9lnscdXOcdYIxC',1795841801588,1795841801615,'{"reason":"stop","type":"step-finish","tokens":{"total":118,"input":117,"output":1,"reasoning":0,"cache":{"write":0,"read":0}},"cost":0.000121}');
INSERT INTO "part" VALUES('prt_01M8G86FP0NSKS2E6D0EXBC81F0000','msg_01M8G86FP0NSKS2E6D0EXBC81F','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',1795841802704,1795841802706,'{"type":"text","text":"[[bash: echo waits]] [[then]] [[say: went on]]"}');
INSERT INTO "part" VALUES('prt_2208347fb0011UqgJETYvcAekL','msg_2208343750013PBvfSu8OvQuAo','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',1795841804283,1795841804284,'{"type":"step-start"}');
INSERT INTO "part" VALUES('prt_22083481c001P2sqITB8Xt8Sps','msg_2208343750013PBvfSu8OvQuAo','ses_ddf7cbfc4ffeK2hAYWYOp7jJRP',1795841804316,1795841806203,'{"type":"tool","tool":"bash","callID":"call_b8806347b843_0","state":{"status":"error","input":{"command":"echo waits","description":"Runs echo"},"time":{"start":1795841804586,"end":1795841806179},"error":"Tool execution aborted","metadata":{"interrupted":true}}}');
CREATE TABLE `permission` (
          `id` text PRIMARY KEY,
          `project_id` text NOT NULL,
          `action` text NOT NULL,
          `resource` text NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          CONSTRAINT `fk_permission_project_id_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `project`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `project` (
          `id` text PRIMARY KEY,
          `worktree` text NOT NULL,
          `vcs` text,
          `name` text,
          `icon_url` text,
          `icon_url_override` text,
          `icon_color` text,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          `time_initialized` integer,
          `sandboxes` text NOT NULL,
          `commands` text
        );
INSERT INTO "project" VALUES('global','/',NULL,NULL,NULL,NULL,NULL,1795841791137,1795841802055,NULL,'[]',NULL);
CREATE TABLE `project_directory` (
          `project_id` text NOT NULL,
          `directory` text NOT NULL,
          `type` text,
          `strategy` text,
          `time_created` integer NOT NULL,
          CONSTRAINT `project_directory_pk` PRIMARY KEY(`project_id`, `directory`),
          CONSTRAINT `fk_project_directory_project_id_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `project`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `session` (
          `id` text PRIMARY KEY,
          `project_id` text NOT NULL,
          `workspace_id` text,
          `parent_id` text,
          `slug` text NOT NULL,
          `directory` text NOT NULL,
          `path` text,
          `title` text NOT NULL,
          `version` text NOT NULL,
          `share_url` text,
          `summary_additions` integer,
          `summary_deletions` integer,
          `summary_files` integer,
          `summary_diffs` text,
          `metadata` text,
          `cost` real DEFAULT 0 NOT NULL,
          `tokens_input` integer DEFAULT 0 NOT NULL,
          `tokens_output` integer DEFAULT 0 NOT NULL,
          `tokens_reasoning` integer DEFAULT 0 NOT NULL,
          `tokens_cache_read` integer DEFAULT 0 NOT NULL,
          `tokens_cache_write` integer DEFAULT 0 NOT NULL,
          `revert` text,
          `permission` text,
          `agent` text,
          `model` text,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          `time_compacting` integer,
          `time_archived` integer,
          CONSTRAINT `fk_session_project_id_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `project`(`id`) ON DELETE CASCADE
        );
INSERT INTO "session" VALUES('ses_ddf7ce468ffe9lnscdXOcdYIxC','global',NULL,NULL,'quick-cactus','/old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ','old-data-directory/workspaces/sesn_01M8G864YXYJXRR5M9XRR55FBZ','sesn_01M8G864YXYJXRR5M9XRR55FBZ','1.18.33',NULL,0,0,0,NULL,NULL,0.00024,212,7,0,0,0,NULL,'[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"allow"},{"permission":"read","pattern":"*","action":"allow"},{"permission":"edit","pattern":"*","action":"allow"},{"permission":"glob","pattern":"*","action":"allow"},{"permission":"grep","pattern":"*","action":"allow"},{"permission":"webfetch","pattern":"*","action":"allow"},{"permission":"websearch","pattern":"*","action":"allow"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]','sidecar','{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"}',1795841792919,1795841801759,NULL,NULL);
INSERT INTO "session" VALUES('ses_ddf7cbfc4ffeK2hAYWYOp7jJRP','global',NULL,NULL,'nimble-engine','/old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN','old-data-directory/workspaces/sesn_01M8G86FN9GSV25NGNBNP7PXSN','sesn_01M8G86FN9GSV25NGNBNP7PXSN','1.18.33',NULL,0,0,0,NULL,NULL,0.0,0,0,0,0,0,NULL,'[{"permission":"*","pattern":"*","action":"deny"},{"permission":"bash","pattern":"*","action":"ask"},{"permission":"read","pattern":"*","action":"ask"},{"permission":"edit","pattern":"*","action":"ask"},{"permission":"glob","pattern":"*","action":"ask"},{"permission":"grep","pattern":"*","action":"ask"},{"permission":"webfetch","pattern":"*","action":"ask"},{"permission":"websearch","pattern":"*","action":"ask"},{"permission":"external_directory","pattern":"*","action":"allow"},{"permission":"doom_loop","pattern":"*","action":"allow"},{"permission":"question","pattern":"*","action":"deny"}]','sidecar','{"id":"openai/gpt-4o","providerID":"litellm","variant":"default"}',1795841802299,1795841803347,NULL,NULL);
CREATE TABLE `session_context_epoch` (
          `session_id` text PRIMARY KEY,
          `baseline` text NOT NULL,
          `snapshot` text NOT NULL,
          `baseline_seq` integer NOT NULL,
          CONSTRAINT `fk_session_context_epoch_session_id_session_id_fk` FOREIGN KEY (`session_id`) REFERENCES `session`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `session_input` (
          `id` text PRIMARY KEY,
          `session_id` text NOT NULL,
          `prompt` text NOT NULL,
          `delivery` text NOT NULL,
          `admitted_seq` integer NOT NULL,
          `promoted_seq` integer,
          `time_created` integer NOT NULL,
          CONSTRAINT `fk_session_input_session_id_session_id_fk` FOREIGN KEY (`session_id`) REFERENCES `session`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `session_message` (
          `id` text PRIMARY KEY,
          `session_id` text NOT NULL,
          `type` text NOT NULL,
          `seq` integer NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          `data` text NOT NULL,
          CONSTRAINT `fk_session_message_session_id_session_id_fk` FOREIGN KEY (`session_id`) REFERENCES `session`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `session_share` (
          `session_id` text PRIMARY KEY,
          `id` text NOT NULL,
          `secret` text NOT NULL,
          `url` text NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          CONSTRAINT `fk_session_share_session_id_session_id_fk` FOREIGN KEY (`session_id`) REFERENCES `session`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `todo` (
          `session_id` text NOT NULL,
          `content` text NOT NULL,
          `status` text NOT NULL,
          `priority` text NOT NULL,
          `position` integer NOT NULL,
          `time_created` integer NOT NULL,
          `time_updated` integer NOT NULL,
          CONSTRAINT `todo_pk` PRIMARY KEY(`session_id`, `position`),
          CONSTRAINT `fk_todo_session_id_session_id_fk` FOREIGN KEY (`session_id`) REFERENCES `session`(`id`) ON DELETE CASCADE
        );
CREATE TABLE `workspace` (
          `id` text PRIMARY KEY,
          `type` text NOT NULL,
          `name` text DEFAULT '' NOT NULL,
          `branch` text,
          `directory` text,
          `extra` text,
          `project_id` text NOT NULL,
          `time_used` integer NOT NULL,
          CONSTRAINT `fk_workspace_project_id_project_id_fk` FOREIGN KEY (`project_id`) REFERENCES `project`(`id`) ON DELETE CASCADE
        );
CREATE UNIQUE INDEX `event_aggregate_seq_idx` ON `event` (`aggregate_id`,`seq`);
CREATE INDEX `event_aggregate_type_seq_idx` ON `event` (`aggregate_id`,`type`,`seq`);
CREATE UNIQUE INDEX `permission_project_action_resource_idx` ON `permission` (`project_id`,`action`,`resource`);
CREATE INDEX `message_session_time_created_id_idx` ON `message` (`session_id`,`time_created`,`id`);
CREATE INDEX `part_message_id_id_idx` ON `part` (`message_id`,`id`);
CREATE INDEX `part_session_idx` ON `part` (`session_id`);
CREATE INDEX `session_input_session_pending_delivery_seq_idx` ON `session_input` (`session_id`,`promoted_seq`,`delivery`,`admitted_seq`);
CREATE UNIQUE INDEX `session_input_session_admitted_seq_idx` ON `session_input` (`session_id`,`admitted_seq`);
CREATE UNIQUE INDEX `session_input_session_promoted_seq_idx` ON `session_input` (`session_id`,`promoted_seq`);
CREATE UNIQUE INDEX `session_message_session_seq_idx` ON `session_message` (`session_id`,`seq`);
CREATE INDEX `session_message_session_type_seq_idx` ON `session_message` (`session_id`,`type`,`seq`);
CREATE INDEX `session_message_session_time_created_id_idx` ON `session_message` (`session_id`,`time_created`,`id`);
CREATE INDEX `session_message_time_created_idx` ON `session_message` (`time_created`);
CREATE INDEX `session_project_idx` ON `session` (`project_id`);
CREATE INDEX `session_workspace_idx` ON `session` (`workspace_id`);
CREATE INDEX `session_parent_idx` ON `session` (`parent_id`);
CREATE INDEX `todo_session_idx` ON `todo` (`session_id`);
COMMIT;
PRAGMA user_version = 0;
