package ledger

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"mayfly/internal/bot"
)

// RunFilter says which runs are wanted.
type RunFilter struct {
	Bot    bot.Address // "": of all bots
	After  int64       // with a higher ID
	Failed bool        // that were not committed, or did not end with RunOK
	Limit  int
}

// RunsAfter returns the newest runs that a filter wants, newest first.
func (l *Ledger) RunsAfter(ctx context.Context, f RunFilter) ([]Run, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT id, bot, jobs, started, ended, committed, record, log FROM runs
		WHERE id > :after AND (:bot = '' OR bot = :bot) AND (NOT :failed OR committed = 0 OR record ->> 'status' <> 'OK')
		ORDER BY id DESC LIMIT :limit`,
		sql.Named("after", f.After), sql.Named("bot", f.Bot), sql.Named("failed", f.Failed), sql.Named("limit", f.Limit))
	runs, err := collect(rows, err, scanRun)
	return runs, l.explain("runs", err)
}

// Summary is what happened to a bot since a time, and what waits now.
type Summary struct {
	Mails    int           // that the gate let pass
	Runs     int           // attempts included that were not committed
	Failed   int           // of the runs
	CPU      time.Duration // of the bot's own program
	CoreCPU  time.Duration
	LastRun  time.Time // of all that are remembered
	SetAside int
	Unsent   int
}

// Summary sums up what the ledger remembers of a bot.
func (l *Ledger) Summary(ctx context.Context, addr bot.Address, since time.Time) (s Summary, err error) {
	var last int64
	err = l.db.QueryRowContext(ctx, `SELECT count(*), count(*) FILTER (WHERE committed = 0 OR record ->> 'status' <> 'OK'),
			coalesce(sum(record ->> 'time'), 0), coalesce(sum(record ->> 'core-time'), 0),
			(SELECT coalesce(max(ended), 0) FROM runs WHERE bot = :bot),
			(SELECT count(*) FROM jobs WHERE bot = :bot AND accepted >= :since),
			(SELECT count(*) FROM jobs WHERE bot = :bot AND state = 'failed'),
			(SELECT count(*) FROM outgoing WHERE bot = :bot AND dead = 0)
		FROM runs WHERE bot = :bot AND ended >= :since`, sql.Named("bot", addr), sql.Named("since", micro(since))).
		Scan(&s.Runs, &s.Failed, &s.CPU, &s.CoreCPU, &last, &s.Mails, &s.SetAside, &s.Unsent)
	s.LastRun = fromMicro(last)
	return s, l.explain("summary", err)
}

// WhyFailed returns what the newest run said that failed on a mail, "" where none is remembered.
func (l *Ledger) WhyFailed(ctx context.Context, addr bot.Address, jobID int64) (why string, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT coalesce(record ->> 'message', '') FROM runs, json_each(runs.jobs) AS job
		WHERE bot = ? AND committed = 0 AND job.value = ? AND coalesce(record ->> 'message', '') NOT LIKE 'set aside after %'
		ORDER BY runs.id DESC LIMIT 1`, addr, jobID).Scan(&why)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return why, l.explain("why failed", err)
}
