package wake

import (
	"context"
	"errors"
	"sync"
	"time"

	"mayfly/internal/bot"
)

const (
	maxWaiting = 10_000 // mailboxes
	perSecond  = 1000   // calls of Changed
	burst      = 1000
)

var errFull = errors.New("too many mailboxes wait to be told")

// place is what a change is merged by.
type place struct {
	account bot.Address
	mailbox string
}

// queue holds, for every mailbox that has changed and was not told yet, the newest UID.
type queue struct {
	mu           sync.Mutex
	uids         map[place]uint32
	order        []place
	news         chan struct{} // holds a token when something was added
	told, merged int64
}

func newQueue() *queue {
	return &queue{uids: map[place]uint32{}, news: make(chan struct{}, 1)}
}

func (q *queue) add(c change) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := place{c.account, c.mailbox}
	if uid, waits := q.uids[p]; waits {
		q.uids[p] = max(uid, c.uid)
		q.merged++
		return nil
	}
	if len(q.order) == maxWaiting {
		return errFull
	}
	q.uids[p] = c.uid
	q.order = append(q.order, p)
	select {
	case q.news <- struct{}{}:
	default:
	}
	return nil
}

// next waits for a change and takes it out.
func (q *queue) next(ctx context.Context) (change, error) {
	for {
		if c, ok := q.take(); ok {
			return c, ctx.Err()
		}
		select {
		case <-q.news:
		case <-ctx.Done():
			return change{}, ctx.Err()
		}
	}
}

func (q *queue) take() (change, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return change{}, false
	}
	p := q.order[0]
	q.order = q.order[1:]
	c := change{p.account, p.mailbox, q.uids[p]}
	delete(q.uids, p)
	q.told++
	return c, true
}

func (q *queue) counts() (told, merged int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.told, q.merged
}

// pace is a token bucket.
type pace struct {
	left float64
	last time.Time
}

// wait takes a token, as soon as there is one.
func (p *pace) wait(ctx context.Context) error {
	p.fill()
	if p.left < 1 {
		select {
		case <-time.After(time.Duration((1 - p.left) / perSecond * float64(time.Second))):
		case <-ctx.Done():
			return ctx.Err()
		}
		p.fill()
	}
	p.left--
	return nil
}

func (p *pace) fill() {
	now := time.Now()
	p.left = min(burst, p.left+now.Sub(p.last).Seconds()*perSecond)
	p.last = now
}
