package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/bot"
)

// Pause is the operator's word that a bot's mail waits.
type Pause struct {
	Why   string
	Since time.Time
}

// Pause lets a bot's mail wait until Resume. A second Pause changes the reason.
func (l *Ledger) Pause(ctx context.Context, addr bot.Address, why string) error {
	return l.write(ctx, "pause "+string(addr), func(tx *sql.Tx) error {
		if err := installed(ctx, tx, addr); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO pauses (bot, why, since) VALUES (?, ?, ?)
			ON CONFLICT (bot) DO UPDATE SET why = excluded.why`, addr, tail(why, maxSaid), micro(time.Now()))
		return err
	})
}

// Resume ends a Pause; without one it does nothing.
func (l *Ledger) Resume(ctx context.Context, addr bot.Address) error {
	return l.write(ctx, "resume "+string(addr), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM pauses WHERE bot = ?`, addr)
		return err
	})
}

// Paused returns a bot's Pause, and whether there is one.
func (l *Ledger) Paused(ctx context.Context, addr bot.Address) (p Pause, paused bool, err error) {
	var since int64
	err = l.db.QueryRowContext(ctx, `SELECT why, since FROM pauses WHERE bot = ?`, addr).Scan(&p.Why, &since)
	if errors.Is(err, sql.ErrNoRows) {
		return Pause{}, false, nil
	}
	p.Since = fromMicro(since)
	return p, err == nil, l.explain("paused", err)
}

// Replay gives a mail that was set aside as many attempts as a new one, and returns its bot.
func (l *Ledger) Replay(ctx context.Context, jobID int64) (addr bot.Address, err error) {
	err = l.write(ctx, "replay", func(tx *sql.Tx) error {
		var state JobState
		err := tx.QueryRowContext(ctx, `SELECT bot, state FROM jobs WHERE id = ?`, jobID).Scan(&addr, &state)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: no job %d", ErrNotFound, jobID)
		}
		if err == nil && state != JobFailed {
			err = fmt.Errorf("%w: job %d is %s, not set aside", ErrJobState, jobID, state)
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, `UPDATE jobs SET state = ?, attempts = 0 WHERE id = ?`, JobAccepted, jobID)
		}
		return err
	})
	return addr, err
}
