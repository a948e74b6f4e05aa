package dispatch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// HostCPU bounds the CPU time that all sandboxes of the host take together within an hour: of the bots and of core for them, of checks and
// set-ups, whatever came of them. Over it, mail waits, and nothing is installed; whoever operates the host finds it in the log, once an hour.
//
// It is counted in the ledger, but for what is less than a second, which a crash forgets.
type HostCPU struct {
	ledger HostLedger
	limit  ledger.Limit
	words  string
	log    *slog.Logger

	mu     sync.Mutex
	unsaid time.Duration // not in the ledger yet
	told   time.Time
}

// HostLedger is what HostCPU needs of the ledger.
type HostLedger interface {
	Spend(ctx context.Context, addr bot.Address, s ledger.Subject, r ledger.Resource, amount int64) error
	Used(ctx context.Context, addr bot.Address, s ledger.Subject, r ledger.Resource, span time.Duration) (int64, error)
	Exceeds(ctx context.Context, addr bot.Address, limits ...ledger.Limit) (*ledger.Exceeded, error)
}

// NewHostCPU bounds it to perHour; 0 is no bound.
func NewHostCPU(l HostLedger, perHour time.Duration, log *slog.Logger) *HostCPU {
	limit := ledger.Limit{Subject: ledger.WholeHost, Resource: ledger.CPU, Span: time.Hour, Most: perHour.Microseconds()}
	return &HostCPU{ledger: l, limit: limit, words: fmt.Sprintf("the host: %s of CPU time an hour", perHour), log: log}
}

// Spent counts what a sandbox has taken.
func (h *HostCPU) Spent(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unsaid += max(d, 0)
}

// atOnce is how much is not written to the ledger one by one.
const atOnce = time.Second

// Save writes what was counted to the ledger.
func (h *HostCPU) Save(ctx context.Context) error { return h.save(ctx, 1) }

func (h *HostCPU) save(ctx context.Context, least time.Duration) error {
	h.mu.Lock()
	d := h.unsaid
	if d < least {
		h.mu.Unlock()
		return nil
	}
	h.unsaid = 0
	h.mu.Unlock()
	err := h.ledger.Spend(ctx, "", h.limit.Subject, h.limit.Resource, d.Microseconds())
	if err != nil {
		h.Spent(d)
	}
	return err
}

// Used is what was taken within the last hour.
func (h *HostCPU) Used(ctx context.Context) (time.Duration, error) {
	used, err := h.ledger.Used(ctx, "", h.limit.Subject, h.limit.Resource, h.limit.Span)
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Duration(used)*time.Microsecond + h.unsaid, err
}

// Over returns the limit in words, and when there is room again; "" where there is now.
func (h *HostCPU) Over(ctx context.Context) (what string, until time.Time, err error) {
	if h == nil || h.limit.Most == 0 {
		return "", time.Time{}, nil
	}
	if err := h.save(ctx, atOnce); err != nil {
		return "", time.Time{}, err
	}
	limit := h.limit
	h.mu.Lock()
	limit.Need = h.unsaid.Microseconds() + 1
	h.mu.Unlock()
	e, err := h.ledger.Exceeds(ctx, "", limit)
	if err != nil || e == nil {
		return "", time.Time{}, err
	}
	return h.words, e.Until, nil
}

// Room is an error while the limit has no room.
func (h *HostCPU) Room(ctx context.Context) error {
	what, until, err := h.Over(ctx)
	if err != nil || what == "" {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.told) >= h.limit.Span {
		h.told = time.Now()
		h.log.Warn("all bots wait: together they have used up what they may: mayfly usage says which; limits.host_cpu_per_hour bounds it",
			"limit", what, "until", until.UTC())
	}
	return &overBudget{need: need{whose: what}, until: until}
}
