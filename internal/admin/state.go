package admin

import (
	"context"
	"fmt"
	"time"

	"mayfly/internal/bot"
)

// state is a bot's, and why it is not ok.
func (d *Desk) state(ctx context.Context, addr bot.Address) (state, why string, err error) {
	p, paused, err := d.Ledger.Paused(ctx, addr)
	if err != nil {
		return "", "", err
	}
	if paused {
		why = "since " + minute(p.Since)
		if p.Why != "" {
			why = fmt.Sprintf("%s: %s", why, p.Why)
		}
		return StatePaused, why, nil
	}
	what, until, err := d.Host.Over(ctx, addr)
	if err != nil || what == "" {
		return StateOK, "", err
	}
	return StateOver, fmt.Sprintf("until %s: %s", minute(until), what), nil
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// nextRun is when a schedule of a bot's is to run it next.
func (d *Desk) nextRun(ctx context.Context, addr bot.Address) (next time.Time, err error) {
	all, err := d.Ledger.Schedules(ctx, addr)
	for _, s := range all {
		if !s.Next.IsZero() && (next.IsZero() || s.Next.Before(next)) {
			next = s.Next
		}
	}
	return next, err
}
