package ledger

import (
	"context"
	"database/sql"
	"errors"

	"mayfly/internal/bot"
)

// InstallCursor is the last message of an account's Bot folder that was handled, the zero Cursor where there was none. It
// outlives the bot: what was handled before an uninstall is not handled again after it.
func (l *Ledger) InstallCursor(ctx context.Context, addr bot.Address) (Cursor, error) {
	var c Cursor
	err := l.db.QueryRowContext(ctx, `SELECT uid_validity, uid FROM folders WHERE address = ?`, addr).Scan(&c.UIDValidity, &c.UID)
	if errors.Is(err, sql.ErrNoRows) {
		return Cursor{}, nil
	}
	return c, l.explain("install cursor", err)
}

// SetInstallCursor records the last message of an account's Bot folder that was handled.
func (l *Ledger) SetInstallCursor(ctx context.Context, addr bot.Address, c Cursor) error {
	return l.write(ctx, "install cursor of "+string(addr), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO folders (address, uid_validity, uid) VALUES (?, ?, ?)
			ON CONFLICT (address) DO UPDATE SET uid_validity = excluded.uid_validity, uid = excluded.uid`, addr, c.UIDValidity, c.UID)
		return err
	})
}
