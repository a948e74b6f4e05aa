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
	err := l.db.QueryRowContext(ctx, `SELECT count(*) FROM consents WHERE bot = ? AND contact = ? AND stopped IS NULL`, addr, contact).Scan(&n)
	return n > 0, l.explain("consents", err)
}

// Stop records that a contact wants to hear nothing from a bot any more; Resume takes it back. Both are idempotent.
func (l *Ledger) Stop(ctx context.Context, addr bot.Address, contact bot.Fingerprint) error {
	return l.setConsent(ctx, "stop", addr, contact, sql.NullInt64{Int64: micro(time.Now()), Valid: true})
}

// Resume records that a contact wants to hear from a bot.
func (l *Ledger) Resume(ctx context.Context, addr bot.Address, contact bot.Fingerprint) error {
	return l.setConsent(ctx, "resume", addr, contact, sql.NullInt64{})
}

func (l *Ledger) setConsent(ctx context.Context, what string, addr bot.Address, contact bot.Fingerprint, stopped sql.NullInt64) error {
	return l.write(ctx, what+" "+string(addr), func(tx *sql.Tx) error {
		if err := installed(ctx, tx, addr); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO consents (bot, contact, since, stopped) VALUES (?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET stopped = excluded.stopped`, addr, contact, micro(time.Now()), stopped)
		return err
	})
}

// consent notes who wrote to the bot directly. Who has stopped it has to resume by word.
func consent(ctx context.Context, tx *sql.Tx, addr bot.Address, contact bot.Fingerprint, at time.Time) error {
	if contact == "" {
		return nil
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO consents (bot, contact, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, addr, contact, micro(at))
	return err
}
