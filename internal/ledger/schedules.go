package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"mayfly/internal/bot"
)

// Schedule is a line by which a bot is run without a message. Install makes one of each line of the manifest.
type Schedule struct {
	Cron     string
	Next     time.Time // the instant that is to be run next; zero: nobody has chosen it yet
	Last     time.Time // when the last run that did not fail began; zero: never
	Attempts int       // sessions that were started for Next
}

// Instant is one moment of a schedule that a session is for.
type Instant struct {
	Cron string
	At   time.Time // the schedule's Next
	Then time.Time // its Next when this is over
}

// Schedules returns those of a bot, in the order of their lines.
func (l *Ledger) Schedules(ctx context.Context, addr bot.Address) ([]Schedule, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT cron, next, last, attempts FROM schedules WHERE bot = ? ORDER BY cron`, addr)
	all, err := collect(rows, err, func(rows *sql.Rows) (Schedule, error) {
		var s Schedule
		var next, last int64
		err := rows.Scan(&s.Cron, &next, &last, &s.Attempts)
		s.Next, s.Last = fromMicro(next), fromMicro(last)
		return s, err
	})
	return all, l.explain("schedules", err)
}

// PlanSchedule moves a schedule from one instant to another without a run. As all that is about an Instant it is refused with ErrJobState
// where the schedule is not at that instant, or no longer.
func (l *Ledger) PlanSchedule(ctx context.Context, addr bot.Address, i Instant) error {
	return l.write(ctx, "plan a schedule", func(tx *sql.Tx) error { return moveSchedule(ctx, tx, addr, i, time.Time{}) })
}

// AttemptSchedule counts a session that is about to be started for an instant, as Attempt does for a mail.
func (l *Ledger) AttemptSchedule(ctx context.Context, addr bot.Address, i Instant) (attempts int, err error) {
	err = l.write(ctx, "attempt of a schedule", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE schedules SET attempts = attempts + 1 WHERE bot = ? AND cron = ? AND next = ?`, addr, i.Cron, micro(i.At))
		if err := touched(res, err, notAt(addr, i)); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT attempts FROM schedules WHERE bot = ? AND cron = ?`, addr, i.Cron).Scan(&attempts)
	})
	return attempts, err
}

// ForgiveSchedule takes an attempt back, as Forgive does for a mail.
func (l *Ledger) ForgiveSchedule(ctx context.Context, addr bot.Address, i Instant) error {
	return l.write(ctx, "forgive a schedule", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE schedules SET attempts = max(0, attempts - 1) WHERE bot = ? AND cron = ? AND next = ?`,
			addr, i.Cron, micro(i.At))
		return err
	})
}

// FailSchedule records a session for an instant that was not committed, as Fail does. With giveUp no session is started for the instant
// any more: the schedule moves on, and its author is told.
func (l *Ledger) FailSchedule(ctx context.Context, addr bot.Address, i Instant, record bot.RunRecord, giveUp bool) error {
	return l.write(ctx, "fail a schedule", func(tx *sql.Tx) error {
		if err := installed(ctx, tx, addr); err != nil {
			return err
		}
		now := time.Now()
		if giveUp {
			if err := moveSchedule(ctx, tx, addr, i, time.Time{}); err != nil {
				return err
			}
			if err := countFailure(ctx, tx, addr, FailedHost, summary(record.Message), 1, now); err != nil {
				return err
			}
		}
		if err := l.chargeSession(ctx, tx, Commit{Bot: addr, Run: &record}); err != nil {
			return err
		}
		return saveRun(ctx, tx, Run{Bot: addr, Started: now.Add(-record.Wall), Ended: now, Record: record})
	})
}

// moveSchedule ends an instant. began is when the run for it began; zero where it failed, or there was none.
func moveSchedule(ctx context.Context, tx *sql.Tx, addr bot.Address, i Instant, began time.Time) error {
	res, err := tx.ExecContext(ctx, `UPDATE schedules SET next = :then, last = coalesce(nullif(:began, 0), last), attempts = 0
		WHERE bot = :bot AND cron = :cron AND next = :at`, sql.Named("bot", addr), sql.Named("cron", i.Cron), sql.Named("at", micro(i.At)),
		sql.Named("then", micro(i.Then)), sql.Named("began", micro(began)))
	return touched(res, err, notAt(addr, i))
}

func notAt(addr bot.Address, i Instant) error {
	return fmt.Errorf("%w: the schedule %q of %s is not at %s", ErrJobState, i.Cron, addr, i.At.UTC().Format(time.RFC3339))
}

// setSchedules makes the rows follow the manifest's lines. What stays in it keeps its row.
func setSchedules(ctx context.Context, tx *sql.Tx, addr bot.Address, lines []string) error {
	rows, err := tx.QueryContext(ctx, `SELECT cron FROM schedules WHERE bot = ?`, addr)
	there, err := collect(rows, err, scanText)
	if err != nil {
		return err
	}
	var errs []error
	for _, cron := range there {
		if !slices.Contains(lines, cron) {
			_, err := tx.ExecContext(ctx, `DELETE FROM schedules WHERE bot = ? AND cron = ?`, addr, cron)
			errs = append(errs, err)
		}
	}
	for _, cron := range lines {
		_, err := tx.ExecContext(ctx, `INSERT INTO schedules (bot, cron) VALUES (?, ?) ON CONFLICT DO NOTHING`, addr, cron)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
