CREATE TABLE usage (
  bot      TEXT NOT NULL,
  subject  TEXT NOT NULL,
  resource TEXT NOT NULL,
  minute   INTEGER NOT NULL,
  amount   INTEGER NOT NULL,
  PRIMARY KEY (bot, subject, resource, minute)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_minute ON usage (minute);
