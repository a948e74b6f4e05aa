package session

import (
	"testing"

	"mayfly/internal/core"
)

// TestAFlushThatIsToldOfDuringARunIsCounted: else the next one would wait for what never comes.
func TestAFlushThatIsToldOfDuringARunIsCounted(t *testing.T) {
	events := make(chan core.Event, 4)
	for _, kind := range []string{core.MsgFailed, core.AccountsChanged, core.AccountsChanged} {
		events <- core.Event{Kind: kind}
	}
	close(events)
	c := &coreSide{events: events, flushes: 1}
	c.countLost(t.Context())
	if c.flushes != 0 || c.lost != 1 {
		t.Errorf("%d flushes are to be told of, want none; %d messages lost, want 1", c.flushes, c.lost)
	}
}
