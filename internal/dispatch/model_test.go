package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/session"
)

// chance fails calls, one of so many, until it is told to stop.
type chance struct {
	mu   sync.Mutex
	rand *rand.Rand
	of   int // 0: none fails
}

func (c *chance) fails() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of > 0 && c.rand.IntN(c.of) == 0 {
		return errFull
	}
	return nil
}

func (c *chance) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of = 0
}

// unsteadyLedger fails at random before it does something.
type unsteadyLedger struct {
	Ledger
	*chance
}

func (l unsteadyLedger) Accept(ctx context.Context, j ledger.Job) (ledger.Job, error) {
	if err := l.fails(); err != nil {
		return j, err
	}
	return l.Ledger.Accept(ctx, j)
}

func (l unsteadyLedger) Attempt(ctx context.Context, job int64) (int, error) {
	if err := l.fails(); err != nil {
		return 0, err
	}
	return l.Ledger.Attempt(ctx, job)
}

func (l unsteadyLedger) Forgive(ctx context.Context, job int64) error {
	return errors.Join(l.fails(), l.Ledger.Forgive(ctx, job))
}

func (l unsteadyLedger) Cleared(ctx context.Context, job int64) error {
	if err := l.fails(); err != nil {
		return err
	}
	return l.Ledger.Cleared(ctx, job)
}

// model is what ought to be: which mails came, and who is at work.
type model struct {
	mu      sync.Mutex
	came    map[bot.Address]uint32 // the last UID
	working map[bot.Address]bool
	wrong   []string
}

// session is one that the dispatcher starts.
func (m *model) session(w session.Work, fails error) error {
	m.mu.Lock()
	if m.working[w.Bot.Address] {
		m.wrong = append(m.wrong, fmt.Sprintf("two sessions of %s at once", w.Bot.Address))
	}
	m.working[w.Bot.Address] = true
	n := 0
	for _, is := range m.working {
		if is {
			n++
		}
	}
	if n > 2 {
		m.wrong = append(m.wrong, fmt.Sprintf("%d sessions at once", n))
	}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.working[w.Bot.Address] = false
	}()
	return fails
}

// TestDispatchModel does things at random: mail comes, bots are woken, paused and resumed, sessions and the ledger fail, the daemon is
// started again. When all is well, each mail has had one session that was committed, in the order in which they came, one at a time.
func TestDispatchModel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { dispatchModel(t, rand.New(rand.NewPCG(seed, 6))) })
	}
}

func dispatchModel(t *testing.T, r *rand.Rand) {
	bots := []bot.Address{one, "bot000003@chat.test", "bot000004@chat.test", "bot000005@chat.test"}
	b := newBench(t, bots...)
	m := &model{came: map[bot.Address]uint32{}, working: map[bot.Address]bool{}}
	luck := &chance{rand: rand.New(rand.NewPCG(r.Uint64(), 7)), of: 5}
	b.opts.Ledger = unsteadyLedger{b.opts.Ledger, luck}
	b.sessions.run = func(w session.Work) error { return m.session(w, luck.fails()) }
	for range 60 {
		b.something(m, bots[r.IntN(len(bots))], r.IntN(10))
	}
	luck.stop()
	for _, a := range bots {
		if err := b.ledger.Resume(t.Context(), a); err != nil && !errors.Is(err, ledger.ErrNotFound) {
			t.Fatal(err)
		}
		b.Wake(b.ctx, a, WakeInbox)
	}
	for _, a := range bots {
		b.await("an end of "+string(a), func() bool {
			jobs, err := b.ledger.Jobs(t.Context(), a, ledger.JobCleared)
			return err == nil && len(jobs) == int(m.came[a]) && len(b.inboxes[a].uids()) == 0
		})
		runs, err := b.ledger.Runs(t.Context(), a, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var done []int64
		for _, run := range slices.Backward(runs) { // the oldest first
			if run.Committed {
				done = append(done, run.Jobs...)
			}
		}
		if len(done) != int(m.came[a]) || !slices.IsSorted(done) {
			t.Errorf("%s: %d mails came, and sessions were committed for the jobs %v", a, m.came[a], done)
		}
	}
	for _, wrong := range m.wrong {
		t.Error(wrong)
	}
}

// something happens to a bot, or to all.
func (b *bench) something(m *model, a bot.Address, what int) {
	b.t.Helper()
	switch {
	case what < 4 && int(m.came[a]) < len(valid):
		b.put(a, m.came[a]+1, valid[m.came[a]])
		m.came[a]++
		b.Wake(b.ctx, a, WakeInbox)
	case what < 6:
		b.Wake(b.ctx, a, WakeInbox)
	case what == 6:
		if err := b.ledger.Pause(b.t.Context(), a, "a test"); err != nil {
			b.t.Fatal(err)
		}
	case what == 7:
		if err := b.ledger.Resume(b.t.Context(), a); err != nil && !errors.Is(err, ledger.ErrNotFound) {
			b.t.Fatal(err)
		}
		b.Wake(b.ctx, a, WakeInbox)
	case what == 8: // a start of the daemon
		b.stop()
		b.Wait()
		b.ctx, b.stop = context.WithCancel(b.t.Context())
		b.Dispatcher = New(b.opts)
		for address := range b.inboxes {
			b.Wake(b.ctx, address, WakeInbox)
		}
	}
}
