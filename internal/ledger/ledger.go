// Package ledger is Mayfly's memory: one SQLite file that says which bots are installed, which mails were accepted, what
// each session did, and what has still to be sent. A session is a transaction, and Commit is that transaction.
//
// Promises:
//   - What a method reported as done survives a kill and a power cut (WAL, synchronous=FULL). What it did not report as
//     done happened whole or not at all.
//   - A job is committed at most once. A commit for a bot that was removed in the meantime is refused, and so is one that
//     goes back behind the generations or the UID that the ledger names.
//   - A mail is known by its Cursor, its place in the relay's INBOX: seen again after a crash, it is the same job or the
//     same refusal.
//   - The file is mode 0600. A file of a newer program, of another program, or a damaged one is refused at Open, with
//     what to do about it.
//
// All times are integers, microseconds since 1970 UTC. The schema, version 11 (PRAGMA user_version; PRAGMA application_id is
// 0x4d61796c, "Mayl"); every column but the ids is NOT NULL, every table STRICT:
//
//	accounts   address, added               accounts whose Bot folder is watched, with or without an installed bot
//	folders    address, uid_validity, uid   the last message of the account's Bot folder that was handled
//	           inbox_validity               UIDVALIDITY of the account's INBOX when the Bot folder was last seen; 0: never
//	           had_bot                      1: a bot of this account was uninstalled
//	bots       address                      primary key
//	           manifest                     JSON of bot.Manifest
//	           digest                       of the bundle, hexadecimal
//	           fingerprint, invite          empty until core has made its key
//	           account, storage             the generations in force, 0 for none
//	           uid_validity, uid_next       of the minirelay's INBOX, not the relay's
//	           installed, updated
//	           previous                     digest of the bundle that ran before this one; empty: none
//	           request_validity, request_uid  the message in the Bot folder that brought the bundle; 0: not known
//	           failures_told                when its author was told of failures; 0: never
//	installs   id, address, at              each new bot and each new bundle of one, of the last 24 hours
//	states     bot, state                   JSON of bot.AccountState, what the gate knows; belongs to bots.account
//	jobs       id, bot
//	           uid_validity, uid            the cursor in the relay's INBOX; unique for a bot
//	           kind                         the gate's verdict
//	           sender                       fingerprint, empty where there is none
//	           from_address, message_id, size
//	           announces                    Message-ID of the mail that this one announces; empty: none
//	           attempts                     sessions that were started for it
//	           state                        accepted → committed → cleared, or accepted → failed
//	           accepted                     time
//	refusals   bot, reason, count
//	refused    bot, uid_validity, uid       cursors that refusals has counted, the newest only
//	runs       id, bot, jobs (JSON array of ids), started, ended, committed (0 or 1)
//	           record (JSON of bot.RunRecord without the log), log
//	outgoing   id, bot, from_address, recipients (JSON array), message_id
//	           path                         file in the outbox's folder; unique
//	           size, attempts, not_before, last_error
//	           dead                         1: given up, kept for the author to see
//	           said                         time of its commit
//	           exempt                       1: goes to stopped contacts too: the host's own words
//	failures   bot, kind, why, count        what the author was not told of yet, by FailureKind and reason
//	           first, last                  times
//	notices    bot, contact, about, at      when a contact was last told of something by the host, of the last 24 hours
//	consents   bot, contact                 fingerprints of those who wrote to the bot directly, or have stopped it
//	           since, heard                 times of the first and the last direct message, or word to go on
//	           stopped                      time; 0 while the contact wants to hear from the bot
//	           address                      from which the last of these came; empty: not known
//	pauses     bot, why, since              bots whose mail waits until the operator resumes them
//	schedules  bot, cron                    the lines of the manifest by which a bot is run without a message
//	           next                         the instant that is to be run next; 0: not chosen yet
//	           last                         when the last run that did not fail began; 0: never
//	           attempts                     sessions that were started for next
//	overruns   bot, why, since, told        bots that have used up what they may; told is 0 until the author was told
//	usage      bot, subject, resource       what was used: "key FINGERPRINT", "from ADDRESS", "to ADDRESS" or "bot"; Resource
//	           minute, amount               minutes since 1970 UTC, of the last 24 hours; they outlive the bot, so that to install
//	                                        it again frees nothing
//
// Rows of a bot are deleted with it. Jobs are the set that replays are checked against, and are kept for a time (Retention). Of
// the runs of a bot the newest 1000 are kept, and the newest 20 with their log; of its dead mail, the newest 100. Tidy, once a day,
// bounds what all bots together have, by age and size.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mayfly/internal/bot"
)

// What the methods' errors wrap.
var (
	ErrNotFound = errors.New("not in the ledger")
	ErrRemoved  = errors.New("the bot was removed")
	ErrJobState = errors.New("the job is not in the state for this")
	ErrStale    = errors.New("the commit goes back behind the ledger")
	ErrNewer    = errors.New("the ledger was written by a newer mayfly")
	ErrForeign  = errors.New("the file is not a ledger")
	ErrCorrupt  = errors.New("the ledger is damaged")
	ErrFull     = errors.New("the disk is full")
)

// Ledger is an open database. Its methods may be called concurrently; they take turns.
type Ledger struct {
	db    *sql.DB
	path  string
	clock *clock // of usage
}

// Open opens the ledger at path, makes it where there is none, and brings an older one up to date. The folder must exist.
func Open(ctx context.Context, path string) (*Ledger, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	if err := private(path); err != nil {
		return nil, fmt.Errorf("ledger: %w", bot.DiskError(err, filepath.Dir(path)))
	}
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("ledger: %s: %w", path, err)
	}
	// One connection: transactions of this process queue in Go, in order, instead of polling for SQLite's lock.
	db.SetMaxOpenConns(1)
	l := &Ledger{db: db, path: path, clock: newClock()}
	if err := l.prepare(ctx); err != nil {
		return nil, errors.Join(l.explain("open", err), db.Close())
	}
	return l, nil
}

// private makes the file where there is none, and takes it away from everybody else: SQLite gives its -wal and -shm files
// the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("%w: the folder must exist and belong to mayfly's user", err)
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

func dsn(path string) string {
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(10000)", "foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)", "journal_size_limit(16777216)"},
	}.Encode()}
	return u.String()
}

// prepare checks the file before anything is written to it.
func (l *Ledger) prepare(ctx context.Context) error {
	if err := l.recognize(ctx); err != nil {
		return err
	}
	var mode string
	if err := l.db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("the file system gives journal mode %q, not WAL: put the ledger on a local disk", mode)
	}
	var check string
	if err := l.db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&check); err != nil {
		return err
	}
	if unread(check) {
		return fmt.Errorf("%w: a part of it cannot be read: %s", syscall.EIO, check)
	}
	if check != "ok" {
		return fmt.Errorf("%w: %s", ErrCorrupt, check)
	}
	if err := syncDir(filepath.Dir(l.path)); err != nil { // the log is there since the first query; SQLite would not mind a failure
		return err
	}
	return migrate(ctx, l.db, schema)
}

// unread reports whether what SQLite found wrong is that the disk could not be read, which does not make the file a damaged one.
func unread(check string) bool {
	_, text, found := strings.Cut(check, "error code=")
	var code int
	_, err := fmt.Sscan(text, &code)
	return found && err == nil && code&0xff == sqlite3.SQLITE_IOERR
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Close ends all work and closes the file.
func (l *Ledger) Close() error {
	return l.explain("close", l.db.Close())
}

// write runs do in one transaction that is committed when do returns nil.
func (l *Ledger) write(ctx context.Context, what string, do func(tx *sql.Tx) error) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return l.explain(what, err)
	}
	if err := do(tx); err != nil {
		// After some errors (a full disk) SQLite has rolled back already and says so.
		_ = tx.Rollback()
		return l.explain(what, err)
	}
	return l.explain(what, tx.Commit())
}

// explain names the work that failed, and says what to do where SQLite's error has a mend.
func (l *Ledger) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	var e *sqlite.Error
	code := -1
	if errors.As(err, &e) {
		code = e.Code() & 0xff
	}
	switch {
	case code == sqlite3.SQLITE_FULL:
		return fmt.Errorf("ledger: %s: %w: %w: free some space under %s; nothing that was recorded is lost",
			what, ErrFull, err, filepath.Dir(l.path))
	case code == sqlite3.SQLITE_IOERR: // SQLite does not say of all calls whether they failed for want of space
		return fmt.Errorf("ledger: %s: %w: the disk under %s is full or fails: df and the kernel's log (dmesg) say which", what, err, filepath.Dir(l.path))
	case code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB || errors.Is(err, ErrCorrupt):
		return fmt.Errorf("ledger: %s: %w: %w: stop mayfly and put back the newest backup of %[4]s; without one, move %[4]s* away "+
			"and add the accounts and bots again", what, ErrCorrupt, err, l.path)
	case code == sqlite3.SQLITE_READONLY || code == sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("ledger: %s: %w: %s and its folder must be writable by mayfly's user, and the disk neither full nor failing", what, err, l.path)
	}
	return fmt.Errorf("ledger: %s: %w", what, bot.DiskError(err, filepath.Dir(l.path)))
}

// touched turns "no row was changed" into the error that says so.
func touched(res sql.Result, err error, none error) error {
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n > 0 {
		return err
	}
	return none
}

// collect reads all rows, so that the one connection is free again when it returns.
func collect[T any](rows *sql.Rows, err error, scan func(*sql.Rows) (T, error)) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0 // there is no write-ahead log yet
	}
	return info.Size()
}
