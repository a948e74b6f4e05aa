package storage

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/time/rate"

	"mayfly/internal/bot"
)

// Pace is how fast may be written for one bot, in the long run and at once. A new file with its fsync is one operation, and so is
// each fsync of a folder, and each 64 links and folders that are made anew.
type Pace struct {
	Bytes, Operations           int // a second
	BurstBytes, BurstOperations int
}

// DefaultPace lets a bot that writes little, up to 1 MB in 100 files and as many folders, not wait at all.
func DefaultPace() Pace {
	return Pace{Bytes: 1_000_000, Operations: 100, BurstBytes: 1_000_000, BurstOperations: 250}
}

// Pacer holds back what is written for each bot. It remembers only bots that wrote in the last seconds. A nil Pacer holds nothing
// back.
type Pacer struct {
	pace Pace
	mu   sync.Mutex
	bots map[bot.Address]*bucket
}

type bucket struct{ bytes, operations *rate.Limiter }

// NewPacer makes a Pacer for all bots of a host, each at this pace.
func NewPacer(pace Pace) *Pacer { return &Pacer{pace: pace, bots: map[bot.Address]*bucket{}} }

// wait returns when a bot may write so much more, or with an error when that would be after ctx's deadline.
func (p *Pacer) wait(ctx context.Context, addr bot.Address, bytes, operations int) error {
	if p == nil {
		return nil
	}
	b := p.bucket(addr)
	if err := p.take(ctx, b.bytes, bytes); err != nil {
		return err
	}
	return p.take(ctx, b.operations, operations)
}

// take takes n tokens, which may be more than a bucket holds.
func (p *Pacer) take(ctx context.Context, l *rate.Limiter, n int) error {
	for n > 0 {
		step := min(n, max(1, l.Burst()))
		if err := l.WaitN(ctx, step); err != nil {
			if ctx.Err() == context.Canceled {
				return ctx.Err()
			}
			return told{context.DeadlineExceeded, fmt.Errorf("no time was left to write what has changed, at %s and %d files a second: change less in one run",
				bot.FormatSize(int64(p.pace.Bytes)), p.pace.Operations)}
		}
		n -= step
	}
	return nil
}

// bucket finds a bot's, and forgets those that are full: a new one is the same.
func (p *Pacer) bucket(addr bot.Address) *bucket {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, b := range p.bots {
		if a != addr && b.bytes.Tokens() >= float64(p.pace.BurstBytes) && b.operations.Tokens() >= float64(p.pace.BurstOperations) {
			delete(p.bots, a)
		}
	}
	b, ok := p.bots[addr]
	if !ok {
		b = &bucket{bytes: rate.NewLimiter(rate.Limit(p.pace.Bytes), p.pace.BurstBytes),
			operations: rate.NewLimiter(rate.Limit(p.pace.Operations), p.pace.BurstOperations)}
		p.bots[addr] = b
	}
	return b
}
