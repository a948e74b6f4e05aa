package ledger

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
)

// schema holds one file a version: schema/0001.sql makes version 1 of nothing, 0002.sql makes version 2 of version 1. A file
// that was released is never changed.
//
//go:embed schema/*.sql
var schema embed.FS

const applicationID = 0x4d61796c // PRAGMA application_id: file(1) and we know the file by it

// recognize refuses a database that some other program made.
func (l *Ledger) recognize(ctx context.Context) error {
	var id, version, tables int64
	err := l.db.QueryRowContext(ctx, `SELECT (SELECT application_id FROM pragma_application_id),
		(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)`).Scan(&id, &version, &tables)
	if err != nil {
		return err
	}
	fresh := id == 0 && version == 0 && tables == 0
	if !fresh && id != applicationID {
		return fmt.Errorf("%w: %s is another program's database: choose another path", ErrForeign, l.path)
	}
	return nil
}

// migrate brings the database up to the newest version in files, each step in a transaction of its own.
func migrate(ctx context.Context, db *sql.DB, files fs.FS) error {
	names, err := fs.Glob(files, "schema/*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := db.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	if version > len(names) {
		return fmt.Errorf("%w: its version is %d, this program knows up to %d: install the newer mayfly again, or put back "+
			"the backup from before the upgrade", ErrNewer, version, len(names))
	}
	for n := version + 1; n <= len(names); n++ {
		if err := step(ctx, db, files, n); err != nil {
			return fmt.Errorf("migration to version %d: %w", n, err)
		}
	}
	return nil
}

func step(ctx context.Context, db *sql.DB, files fs.FS, n int) error {
	text, err := fs.ReadFile(files, fmt.Sprintf("schema/%04d.sql", n))
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after the commit
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	pragmas := fmt.Sprintf(`PRAGMA application_id = %d; PRAGMA user_version = %d`, applicationID, n)
	if _, err := tx.ExecContext(ctx, pragmas); err != nil {
		return err
	}
	return tx.Commit()
}
