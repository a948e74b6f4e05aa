package ledger

import (
	"context"
	"database/sql"
	"time"
)

// Retention is how long the ledger keeps what is over, and how much of it.
type Retention struct {
	Done     time.Duration // mails that were worked off: the set that replays are checked against
	SetAside time.Duration // mails that were set aside, or that vanished before they were worked off
	Runs     time.Duration // run records
	Logs     time.Duration // what runs wrote
	Dead     time.Duration // mails that were given up
	RunCount int64         // run records of all bots together
	LogBytes int64         // of the logs of all bots together
}

// DefaultRetention keeps the replay set much longer than core, which forgets after two days. A mail that was set aside lies in the
// relay's INBOX until the relay deletes it, for which relays take three weeks: forgotten before, it would be tried anew.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{Done: 30 * day, SetAside: 90 * day, Runs: 90 * day, Logs: 30 * day, Dead: 30 * day, RunCount: 200_000, LogBytes: 64 << 20}
}

// tidyBatch is how many rows go at a time, so that sessions have their turns.
const tidyBatch = 1000

// Tidy deletes what is over and older than it is to be kept, or too much, the oldest first, and gives the space back. It returns how
// many rows went. A committed mail that is not yet deleted from the relay is kept whatever its age.
func (l *Ledger) Tidy(ctx context.Context, now time.Time, keep Retention) (rows int64, err error) {
	before := func(age time.Duration) int64 { return micro(now.Add(-age)) }
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'cleared' AND accepted < ? LIMIT ?)`, []any{before(keep.Done)}},
		{`DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'failed' AND accepted < ? LIMIT ?)`, []any{before(keep.SetAside)}},
		{`DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state = 'accepted' AND accepted < ? LIMIT ?)`, []any{before(keep.SetAside)}},
		{`DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE ended < ? LIMIT ?)`, []any{before(keep.Runs)}},
		{`DELETE FROM runs WHERE id IN (SELECT id FROM (SELECT id FROM runs ORDER BY id DESC LIMIT -1 OFFSET ?) LIMIT ?)`, []any{keep.RunCount}},
		{`UPDATE runs SET log = '' WHERE id IN (SELECT id FROM runs WHERE log <> '' AND ended < ? LIMIT ?)`, []any{before(keep.Logs)}},
		{`UPDATE runs SET log = '' WHERE id IN (SELECT id FROM (SELECT id, sum(length(log)) OVER (ORDER BY id DESC) AS bytes
			FROM runs WHERE log <> '') WHERE bytes > ? LIMIT ?)`, []any{keep.LogBytes}},
		{`DELETE FROM outgoing WHERE id IN (SELECT id FROM outgoing WHERE dead = 1 AND said < ? LIMIT ?)`, []any{before(keep.Dead)}},
	} {
		n, err := l.inBatches(ctx, step.query, append(step.args, tidyBatch))
		rows += n
		if err != nil {
			return rows, err
		}
	}
	return rows, l.shrink(ctx)
}

func (l *Ledger) inBatches(ctx context.Context, query string, args []any) (rows int64, err error) {
	for {
		var n int64
		err := l.write(ctx, "tidy", func(tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, query, args...)
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		})
		rows += n
		if err != nil || n < tidyBatch {
			return rows, err
		}
	}
}

// shrinkFrom is how many bytes have to be unused before the file is written anew without them.
const shrinkFrom = 16 << 20

// shrink empties the write-ahead log, and writes the file anew when more than half of it is unused.
func (l *Ledger) shrink(ctx context.Context) error {
	var unused, all, size int64
	err := l.db.QueryRowContext(ctx, `SELECT (SELECT freelist_count FROM pragma_freelist_count), (SELECT page_count FROM pragma_page_count),
		(SELECT page_size FROM pragma_page_size)`).Scan(&unused, &all, &size)
	if err == nil && unused*size > shrinkFrom && unused > all/2 {
		_, err = l.db.ExecContext(ctx, `VACUUM`)
	}
	if err == nil {
		_, err = l.db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	return l.explain("tidy", err)
}

// Size is the bytes of the ledger on disk, with its log.
func (l *Ledger) Size() int64 { return sizeOf(l.path) + sizeOf(l.path+"-wal") }
