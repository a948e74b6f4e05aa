package ledger

import (
	"context"
	"database/sql"
	"errors"

	"mayfly/internal/bot"
)

// Folder is what is remembered of an account's Bot folder. It outlives the bot: what was handled before an uninstall is not
// handled again after it.
type Folder struct {
	Handled Cursor // the last message that was handled; zero where there was none
	Inbox   uint32 // UIDVALIDITY of the account's INBOX when the folder was last seen; 0 where it was never seen
	HadBot  bool   // a bot of this account was uninstalled
}

// Folder returns what is remembered of an account's Bot folder, the zero Folder where nothing is.
func (l *Ledger) Folder(ctx context.Context, addr bot.Address) (Folder, error) {
	var f Folder
	err := l.db.QueryRowContext(ctx, `SELECT uid_validity, uid, inbox_validity, had_bot FROM folders WHERE address = ?`, addr).
		Scan(&f.Handled.UIDValidity, &f.Handled.UID, &f.Inbox, &f.HadBot)
	if errors.Is(err, sql.ErrNoRows) {
		return Folder{}, nil
	}
	return f, l.explain("folder", err)
}

// SetHandled records the last message of an account's Bot folder that was handled.
func (l *Ledger) SetHandled(ctx context.Context, addr bot.Address, c Cursor) error {
	return l.write(ctx, "handled message of "+string(addr), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO folders (address, uid_validity, uid) VALUES (?, ?, ?)
			ON CONFLICT (address) DO UPDATE SET uid_validity = excluded.uid_validity, uid = excluded.uid`, addr, c.UIDValidity, c.UID)
		return err
	})
}

// SetSeen records that the account's Bot folder is there, beside an INBOX of this UIDVALIDITY.
func (l *Ledger) SetSeen(ctx context.Context, addr bot.Address, inbox uint32) error {
	return l.write(ctx, "folder of "+string(addr), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO folders (address, uid_validity, uid, inbox_validity) VALUES (?, 0, 0, ?)
			ON CONFLICT (address) DO UPDATE SET inbox_validity = excluded.inbox_validity`, addr, inbox)
		return err
	})
}
