CREATE TABLE accounts (
  address TEXT PRIMARY KEY,
  added   INTEGER NOT NULL
) STRICT;

CREATE TABLE folders (
  address      TEXT PRIMARY KEY,
  uid_validity INTEGER NOT NULL,
  uid          INTEGER NOT NULL
) STRICT;

CREATE TABLE bots (
  address      TEXT PRIMARY KEY,
  manifest     TEXT NOT NULL,
  digest       TEXT NOT NULL,
  fingerprint  TEXT NOT NULL,
  invite       TEXT NOT NULL,
  account      INTEGER NOT NULL CHECK (account >= 0),
  storage      INTEGER NOT NULL CHECK (storage >= 0),
  uid_validity INTEGER NOT NULL CHECK (uid_validity BETWEEN 1 AND 4294967295),
  uid_next     INTEGER NOT NULL CHECK (uid_next BETWEEN 1 AND 4294967295),
  installed    INTEGER NOT NULL,
  updated      INTEGER NOT NULL
) STRICT;

CREATE TABLE states (
  bot   TEXT PRIMARY KEY REFERENCES bots (address) ON DELETE CASCADE,
  state TEXT NOT NULL
) STRICT;

CREATE TABLE jobs (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  bot          TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  uid_validity INTEGER NOT NULL,
  uid          INTEGER NOT NULL,
  kind         TEXT NOT NULL,
  sender       TEXT NOT NULL,
  from_address TEXT NOT NULL,
  message_id   TEXT NOT NULL,
  size         INTEGER NOT NULL,
  attempts     INTEGER NOT NULL DEFAULT 0,
  state        TEXT NOT NULL CHECK (state IN ('accepted', 'committed', 'cleared', 'failed')),
  accepted     INTEGER NOT NULL,
  UNIQUE (bot, uid_validity, uid)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (bot, state, id);
CREATE INDEX jobs_by_message ON jobs (bot, sender, message_id);

CREATE TABLE refusals (
  bot    TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  reason TEXT NOT NULL,
  count  INTEGER NOT NULL,
  PRIMARY KEY (bot, reason)
) STRICT;

CREATE TABLE refused (
  bot          TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  uid_validity INTEGER NOT NULL,
  uid          INTEGER NOT NULL,
  PRIMARY KEY (bot, uid_validity, uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  bot       TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  jobs      TEXT NOT NULL,
  started   INTEGER NOT NULL,
  ended     INTEGER NOT NULL,
  committed INTEGER NOT NULL CHECK (committed IN (0, 1)),
  record    TEXT NOT NULL,
  log       TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_bot ON runs (bot, id);

CREATE TABLE outgoing (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  bot          TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  from_address TEXT NOT NULL,
  recipients   TEXT NOT NULL,
  message_id   TEXT NOT NULL,
  path         TEXT NOT NULL UNIQUE,
  size         INTEGER NOT NULL,
  attempts     INTEGER NOT NULL DEFAULT 0,
  not_before   INTEGER NOT NULL,
  last_error   TEXT NOT NULL,
  dead         INTEGER NOT NULL DEFAULT 0 CHECK (dead IN (0, 1))
) STRICT;
CREATE INDEX outgoing_by_bot ON outgoing (bot, dead, id);
PRAGMA application_id = 0x4d61796c;
PRAGMA user_version = 1;
INSERT INTO accounts VALUES ('dice@relay.example', 1764000000000000);
INSERT INTO bots VALUES ('dice@relay.example', '{"Name":"Dice","Runtime":"js","Main":"main.js"}', 'd1', 'F1', 'https://i.delta.chat/#x', 4, 2, 1, 12, 1768000000000000, 1768000000000000);
INSERT INTO states VALUES ('dice@relay.example', '{"schema":150,"readable":true,"self_keys":null,"public_keys":["a2V5"],"invite_numbers":["i"],"auth_tokens":["a"],"broadcast_secrets":null}');
INSERT INTO jobs VALUES (1, 'dice@relay.example', 7, 1, 'message', 'AB12', 'user@relay.example', '<1@x>', 3000, 1, 'cleared', 1768000000000000);
INSERT INTO jobs VALUES (2, 'dice@relay.example', 7, 2, 'message', 'AB12', 'user@relay.example', '<2@x>', 3000, 0, 'accepted', 1768000000000000);
INSERT INTO refusals VALUES ('dice@relay.example', 'clear', 3);
INSERT INTO refused VALUES ('dice@relay.example', 7, 3);
INSERT INTO runs VALUES (1, 'dice@relay.example', '[1]', 1768000000000000, 1768000000100000, 1, '{"status":"OK","exitcode":0,"time":5000000,"time-wall":90000000,"cg-mem":6291456,"core-time":0,"core-cg-mem":0}', 'rolled');
INSERT INTO outgoing VALUES (1, 'dice@relay.example', 'dice@relay.example', '["user@relay.example"]', '<r1@x>', '00112233445566778899aabbccddeeff.eml', 3100, 0, 0, '', 0);
INSERT INTO folders VALUES ('dice@relay.example', 3, 9);
