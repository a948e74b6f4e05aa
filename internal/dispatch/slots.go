package dispatch

import (
	"context"
	"math"
	"sync"
	"time"

	"mayfly/internal/bot"
)

// Slots bound what runs on the host at a time: sessions, and what installing needs of sandboxes. They also bound the memory of all that
// runs, by what each may take at most; what may take more than that runs alone. Whoever is next waits for the memory, and so do all
// behind it.
//
// Of those that wait, whoever has held slots for the least time lately goes first; of equals, who asked first. What was held, also what was lent
// of it, counts half after halfLife. Whoever has waited for longest goes before all others, in the order of asking, so that nobody waits for ever.
type Slots struct{ *slots }

const (
	halfLife = 5 * time.Minute
	longest  = time.Minute
	// maxHolders bounds those of whom it is known what they held. When there are more, those are forgotten that held the least.
	maxHolders = 10_000
)

type slots struct {
	mu    sync.Mutex
	free  int
	most  int64 // bytes of memory; 0: no bound
	left  int64 // of most
	lent  int   // how many more may be lent
	queue []*waiter
	held  map[bot.Address]holding
}

// waiter is one that waits for a slot.
type waiter struct {
	who    bot.Address
	memory int64
	since  time.Time
	back   bool // it has lent its slot, and still takes memory: it goes first
	given  chan struct{}
}

// holding is for how long slots were held, as it counted at a time.
type holding struct {
	amount time.Duration
	at     time.Time
}

func (h holding) now() time.Duration {
	return time.Duration(float64(h.amount) * math.Exp2(-float64(time.Since(h.at))/float64(halfLife)))
}

// NewSlots makes n of them, with so many bytes of memory together; 0 is no bound.
func NewSlots(n int, memory int64) Slots {
	return Slots{&slots{free: n, lent: n, most: memory, left: memory, held: map[bot.Address]holding{}}}
}

// Do waits for a slot for a bot and for so many bytes of memory, and calls f in it.
func (s Slots) Do(ctx context.Context, who bot.Address, memory int64, f func() error) error {
	if s.most > 0 {
		memory = min(memory, s.most)
	}
	if err := s.take(ctx, &waiter{who: who, memory: memory, since: time.Now(), given: make(chan struct{})}); err != nil {
		return err
	}
	started := time.Now()
	defer func() { s.release(who, memory, time.Since(started)) }()
	return f()
}

// Lend gives the caller's slot to whoever waits for one, until back is called, which waits for a slot. It is for sessions that do
// nothing for a while. They still take memory, so no more are lent than there are: beyond that it does nothing.
func (s Slots) Lend() (back func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lent == 0 {
		return func() {}
	}
	s.lent--
	s.free++
	s.give()
	return func() {
		// Without a context: a session that ends has to have its slot, which others give back when they end.
		_ = s.take(context.Background(), &waiter{since: time.Now(), back: true, given: make(chan struct{})})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lent++
	}
}

// wanted reports whether anybody waits for a slot.
func (s *slots) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 0
}

func (s *slots) take(ctx context.Context, w *waiter) error {
	s.mu.Lock()
	s.queue = append(s.queue, w)
	s.give()
	s.mu.Unlock()
	select {
	case <-w.given:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.queue {
		if other == w {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return ctx.Err()
		}
	}
	s.free++ // it was given in the meantime
	s.left += w.memory
	s.give()
	return ctx.Err()
}

func (s *slots) release(who bot.Address, memory int64, held time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[who] = holding{s.held[who].now() + held, time.Now()}
	s.forget()
	s.free++
	s.left += memory
	s.give()
}

// give gives free slots to those that wait.
func (s *slots) give() {
	for s.free > 0 && len(s.queue) > 0 {
		best := 0
		for i := range s.queue {
			if s.before(s.queue[i], s.queue[best]) {
				best = i
			}
		}
		w := s.queue[best]
		if s.most > 0 && w.memory > s.left {
			return
		}
		s.queue = append(s.queue[:best], s.queue[best+1:]...)
		s.free--
		s.left -= w.memory
		close(w.given)
	}
}

// before reports whether a goes before b, which has asked earlier or is a.
func (s *slots) before(a, b *waiter) bool {
	if a.back || b.back {
		return a.back && !b.back
	}
	if time.Since(b.since) >= longest {
		return false
	}
	return s.held[a.who].now() < s.held[b.who].now()
}

func (s *slots) forget() {
	for least := time.Second; len(s.held) > maxHolders; least *= 2 {
		for who, h := range s.held {
			if h.now() < least {
				delete(s.held, who)
			}
		}
	}
}
