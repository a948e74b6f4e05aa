ALTER TABLE consents ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE consents ADD COLUMN heard INTEGER NOT NULL DEFAULT 0;
UPDATE consents SET heard = since;
CREATE INDEX consents_by_address ON consents (bot, address);

ALTER TABLE outgoing ADD COLUMN exempt INTEGER NOT NULL DEFAULT 0 CHECK (exempt IN (0, 1));
