package session

import (
	"context"
	"errors"
	"fmt"
	"sync"

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

// doubtful are the files of commits that have failed: they may be named all the same, as long as no later commit has been made.
type doubtful struct {
	mu    sync.Mutex
	paths []string
}

func (d *doubtful) add(staged []ledger.Outgoing) {
	var paths []string
	for _, s := range staged {
		paths = append(paths, s.Path)
	}
	d.put(paths)
}

func (d *doubtful) put(paths []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paths = append(d.paths, paths...)
}

// take returns those of the commits that have failed by now, for a commit that is about to be made.
func (d *doubtful) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	paths := d.paths
	d.paths = nil
	return paths
}

// settle deletes doubtful files when a commit has been made after theirs.
func (r *Runner) settle(ctx context.Context, paths []string) {
	if len(paths) == 0 {
		return
	}
	if err := r.Outbox.DiscardUnnamed(ctx, paths); err != nil {
		r.Log.Warn("outbox: bodies of an uncommitted session not removed; the next start tries again", "err", err)
	}
}
