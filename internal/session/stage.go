package session

import (
	"errors"
	"fmt"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

// stage writes the outgoing mails to the outbox folder, so that the commit can name them.
func (r *Runner) stage(from bot.Address, mails []minirelay.Outgoing) ([]ledger.Outgoing, error) {
	var staged []ledger.Outgoing
	for _, m := range mails {
		path, err := r.Outbox.Stage(m.Data)
		if err != nil {
			r.discard(staged)
			return nil, fmt.Errorf("outbox: %w", err)
		}
		staged = append(staged, ledger.Outgoing{
			Bot: from, From: m.From, To: m.To, MessageID: m.MessageID, Path: path, Size: int64(len(m.Data)),
		})
	}
	return staged, nil
}

// discard removes bodies that no row will name. What it misses is removed at the next start.
func (r *Runner) discard(staged []ledger.Outgoing) {
	var errs []error
	for _, s := range staged {
		errs = append(errs, r.Outbox.Discard(s.Path))
	}
	if err := errors.Join(errs...); err != nil {
		r.Log.Warn("outbox: bodies of an uncommitted session not removed; the next start tries again", "err", err)
	}
}
