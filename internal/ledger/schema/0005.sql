ALTER TABLE outgoing ADD COLUMN said INTEGER NOT NULL DEFAULT 0;
UPDATE outgoing SET said = unixepoch() * 1000000;

CREATE INDEX jobs_by_age ON jobs (state, accepted);
CREATE INDEX runs_by_end ON runs (ended);
