package ledger

import (
	"context"
	"database/sql"
	"time"

	"mayfly/internal/bot"
)

// Consents reports whether a contact has written to a bot directly and has not stopped it since.
func (l *Ledger) Consents(ctx context.Context, addr bot.Address, contact bot.Fingerprint) (bool, error) {
	var n int
	err := l.db.QueryRowContext(ctx, `SELECT count(*) FROM consents WHERE bot = ? AND contact = ? AND stopped = 0`, addr, contact).Scan(&n)
	return n > 0, l.explain("consents", err)
}

// consent notes who wrote to the bot directly. Who has stopped it has to resume by word.
func consent(ctx context.Context, tx *sql.Tx, addr bot.Address, contact bot.Fingerprint, at time.Time) error {
	if contact == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO consents (bot, contact, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, addr, contact, micro(at))
	return err
}
