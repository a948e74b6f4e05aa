package ledger

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"mayfly/internal/bot"
)

// noticesKept is how long it is remembered that a contact was told of something.
const noticesKept = 24 * time.Hour

// Notice is what the host told a contact in a bot's name, unasked.
type Notice struct {
	Contact bot.Fingerprint
	About   string
}

// Noticed returns when a contact was last told of something, within the last 24 hours; a zero time is not.
func (l *Ledger) Noticed(ctx context.Context, addr bot.Address, n Notice) (time.Time, error) {
	var at int64
	err := l.db.QueryRowContext(ctx, `SELECT at FROM notices WHERE bot = ? AND contact = ? AND about = ?`, addr, n.Contact, n.About).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return fromMicro(at), l.explain("noticed", err)
}

// noticed remembers a notice, and forgets old ones: keys are free to make.
func noticed(ctx context.Context, tx *sql.Tx, addr bot.Address, n Notice, at time.Time) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM notices WHERE bot = ? AND at < ?`, addr, micro(at.Add(-noticesKept))); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO notices (bot, contact, about, at) VALUES (?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET at = excluded.at`, addr, n.Contact, n.About, micro(at))
	return err
}
