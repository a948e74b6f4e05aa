package admin

import (
	"context"
	"fmt"

	"mayfly/internal/bot"
)

// state is a bot's, and why it is not ok.
func (d *Desk) state(ctx context.Context, addr bot.Address) (state, why string, err error) {
	p, paused, err := d.Ledger.Paused(ctx, addr)
	if err != nil || !paused {
		return StateOK, "", err
	}
	why = "since " + p.Since.UTC().Format("2006-01-02 15:04 MST")
	if p.Why != "" {
		why = fmt.Sprintf("%s: %s", why, p.Why)
	}
	return StatePaused, why, nil
}
