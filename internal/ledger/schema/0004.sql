CREATE TABLE consents (
  bot     TEXT NOT NULL REFERENCES bots (address) ON DELETE CASCADE,
  contact TEXT NOT NULL,
  since   INTEGER NOT NULL,
  stopped INTEGER,
  PRIMARY KEY (bot, contact)
) STRICT, WITHOUT ROWID;
