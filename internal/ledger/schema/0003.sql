CREATE TABLE failures (
  bot   TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  why   TEXT NOT NULL,
  count INTEGER NOT NULL,
  first INTEGER NOT NULL,
  PRIMARY KEY (bot, why)
) STRICT, WITHOUT ROWID;

ALTER TABLE bots ADD COLUMN failures_told INTEGER NOT NULL DEFAULT 0;

CREATE INDEX jobs_by_from ON jobs (bot, from_address);

ALTER TABLE jobs ADD COLUMN announces TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_by_announced ON jobs (bot, announces) WHERE announces <> '';
