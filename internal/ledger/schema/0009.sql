CREATE TABLE notices (
  bot     TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  contact TEXT NOT NULL,
  about   TEXT NOT NULL,
  at      INTEGER NOT NULL,
  PRIMARY KEY (bot, contact, about)
) STRICT, WITHOUT ROWID;

CREATE TABLE failures_of_kinds (
  bot   TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  kind  TEXT NOT NULL,
  why   TEXT NOT NULL,
  count INTEGER NOT NULL,
  first INTEGER NOT NULL,
  last  INTEGER NOT NULL,
  PRIMARY KEY (bot, kind, why)
) STRICT, WITHOUT ROWID;
INSERT INTO failures_of_kinds SELECT bot, 'mail', why, count, first, first FROM failures;
DROP TABLE failures;
ALTER TABLE failures_of_kinds RENAME TO failures;
