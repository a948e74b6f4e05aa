package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"mayfly/internal/ledger"
	"mayfly/internal/session"
)

// fullLedger is one on a disk that is full for some of what is written.
type fullLedger struct {
	Ledger
	forgiving atomic.Int64 // calls, of which every second works
	clearing  atomic.Int64 // how many more fail
}

var errFull = errors.New("no space")

func (l *fullLedger) Forgive(ctx context.Context, job int64) error {
	if l.forgiving.Add(1)%2 == 1 {
		return errFull
	}
	return l.Ledger.Forgive(ctx, job)
}

func (l *fullLedger) Cleared(ctx context.Context, job int64) error {
	if l.clearing.Add(-1) >= 0 {
		return errFull
	}
	return l.Ledger.Cleared(ctx, job)
}

// TestForgivenWhenTheDiskHasSpaceAgain: failures of the host's count against no mail, also where that could not be written at once.
func TestForgivenWhenTheDiskHasSpaceAgain(t *testing.T) {
	b := newBench(t, one)
	full := &fullLedger{Ledger: b.opts.Ledger}
	b.opts.Ledger = full
	var failures atomic.Int64
	b.sessions.run = func(session.Work) error {
		if failures.Add(1) <= 4 { // more than MaxAttempts
			return errFull
		}
		return nil
	}
	b.put(one, 1, valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a cleared job", b.cleared)
}

// TestClearedWhenTheDiskHasSpaceAgain: nothing in the INBOX reminds of a job whose mail is deleted.
func TestClearedWhenTheDiskHasSpaceAgain(t *testing.T) {
	b := newBench(t, one)
	full := &fullLedger{Ledger: b.opts.Ledger}
	full.clearing.Store(2)
	b.opts.Ledger = full
	b.put(one, 1, valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a cleared job", b.cleared)
}

func (b *bench) cleared() bool {
	jobs, err := b.ledger.Jobs(b.t.Context(), one, ledger.JobCleared)
	return err == nil && len(jobs) == 1
}
