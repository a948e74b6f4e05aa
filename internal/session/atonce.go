package session

import (
	"context"
	"errors"
	"sync/atomic"

	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

// sayer takes what core sends while the bot of w runs and after it, into the outbox. What it cannot take is sent with the commit, as is all
// that comes later, so that the order stays. Core is told of no trouble: it would try again in 30 s.
func (r *Runner) sayer(ctx context.Context, w Work, s *sending, said *atomic.Int32) func(minirelay.Outgoing) bool {
	var jobs []int64
	if w.Job.ID != 0 {
		jobs = []int64{w.Job.ID}
	}
	return func(mail minirelay.Outgoing) bool {
		allowed, err := s.strip(ctx, []minirelay.Outgoing{mail})
		if err == nil && len(allowed) == 0 {
			return true
		}
		if err == nil {
			err = r.sayNow(ctx, w, jobs, allowed[0])
		}
		if err != nil {
			r.Log.Warn("what the bot says now waits for the end of its run", "bot", w.Bot.Address, "uid", w.Job.Cursor.UID, "err", err)
			return false
		}
		said.Add(1)
		if w.Said != nil {
			w.Said()
		}
		return true
	}
}

func (r *Runner) sayNow(ctx context.Context, w Work, jobs []int64, mail minirelay.Outgoing) error {
	staged, err := r.stage(w.Bot.Address, []minirelay.Outgoing{mail})
	if err != nil {
		return err
	}
	err = r.Ledger.Say(ctx, w.Bot.Address, jobs, staged[0])
	if errors.Is(err, ledger.ErrRemoved) || errors.Is(err, ledger.ErrJobState) {
		r.discard(staged) // after any other failure nobody knows what the disk holds
	}
	return err
}
