package minirelay

import (
	"sync"

	"mayfly/internal/bot"
)

type change struct {
	address bot.Address
	mailbox string
	uid     uint32
}

// hookQueue calls a hook for each change, in order, in a goroutine of its own that lives while there is something to tell.
type hookQueue struct {
	hook func(bot.Address, string, uint32)

	mu      sync.Mutex
	queue   []change
	running bool
	closed  bool
	wg      sync.WaitGroup
}

func newHookQueue(hook func(bot.Address, string, uint32)) *hookQueue {
	return &hookQueue{hook: hook}
}

func (q *hookQueue) add(c change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hook == nil || q.closed {
		return
	}
	q.queue = append(q.queue, c)
	if !q.running {
		q.running = true
		q.wg.Go(q.run)
	}
}

func (q *hookQueue) run() {
	for {
		q.mu.Lock()
		batch := q.queue
		q.queue = nil
		if len(batch) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		for _, c := range batch {
			q.hook(c.address, c.mailbox, c.uid)
		}
	}
}

// close refuses further changes and waits until the queued ones are told.
func (q *hookQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.wg.Wait()
}
