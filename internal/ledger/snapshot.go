package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"mayfly/internal/bot"
)

// Snapshot writes the ledger as it is now into a new file, mode 0600, and calls f. Until f has returned no other method of this
// Ledger does anything. The host deletes a file only after the ledger has ceased to name it; so all files that the snapshot names
// are there while f runs.
func (l *Ledger) Snapshot(ctx context.Context, path string, f func() error) error {
	conn, err := l.db.Conn(ctx) // the only one
	if err != nil {
		return l.explain("snapshot", err)
	}
	defer conn.Close()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600) // SQLite takes an empty file for a new one
	if err != nil {
		return l.explain("snapshot", err)
	}
	if err := file.Close(); err != nil {
		return l.explain("snapshot", err)
	}
	if _, err := conn.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return l.explain("snapshot", err)
	}
	return f()
}

// maxDamages bounds what Damages returns.
const maxDamages = 20

// Damages looks at the whole file and returns what is wrong with it, in SQLite's words; nothing where it is sound.
func (l *Ledger) Damages(ctx context.Context) ([]string, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT integrity_check FROM pragma_integrity_check LIMIT ?`, maxDamages)
	found, err := collect(rows, err, scanText)
	if err != nil {
		return nil, l.explain("check", err)
	}
	if len(found) == 1 && found[0] == "ok" {
		found = nil
	}
	rows, err = l.db.QueryContext(ctx, `SELECT 'row ' || coalesce(rowid, '?') || ' of ' || "table" || ' belongs to no ' || parent FROM pragma_foreign_key_check LIMIT ?`, maxDamages)
	orphans, err := collect(rows, err, scanText)
	if err != nil {
		return nil, l.explain("check", err)
	}
	return append(found, orphans...), nil
}

func scanText(rows *sql.Rows) (text string, err error) {
	return text, rows.Scan(&text)
}

// Named is a file in the outbox's folder, and how many bytes it has.
type Named struct {
	Bot  bot.Address
	Path string
	Size int64
}

// OutboxFiles returns the files of all unsent mails of all bots.
func (l *Ledger) OutboxFiles(ctx context.Context) ([]Named, error) {
	mails, err := l.outgoing(ctx, `WHERE dead = 0 ORDER BY id`)
	if err != nil {
		return nil, err
	}
	files := make([]Named, len(mails))
	for i, m := range mails {
		files[i] = Named{m.Bot, m.Path, m.Size}
	}
	return files, nil
}

// ErrSchema is wrapped by SameSchema.
var ErrSchema = errors.New("the ledger has other tables than this program makes")

// SameSchema refuses a ledger whose tables, indexes, views and triggers are not those that this program makes: somebody else made it.
func (l *Ledger) SameSchema(ctx context.Context) error {
	got, err := schemaOf(ctx, l)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", ".mayfly-schema-")
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	defer os.RemoveAll(dir)
	fresh, err := Open(ctx, dir+"/ledger.db")
	if err != nil {
		return err
	}
	want, err := schemaOf(ctx, fresh)
	if err = errors.Join(err, fresh.Close()); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("ledger: %w: %s", ErrSchema, l.path)
	}
	return nil
}

func schemaOf(ctx context.Context, l *Ledger) (text string, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT group_concat(type || ' ' || name || ' ' || coalesce(sql, ''), char(10))
		FROM (SELECT * FROM sqlite_schema ORDER BY type, name)`).Scan(&text)
	return text, l.explain("schema", err)
}
