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
