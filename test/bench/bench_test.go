//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestTable prints the table. With -short each n is small: to see that it works, not to measure.
func TestTable(t *testing.T) {
	gates, starts, deliveries, turns, wakes, rounds := 2000, 100, 100, 30, 40, 10
	installed := []int{10, 1000, 10_000}
	if testing.Short() {
		gates, starts, deliveries, turns, wakes, rounds = 50, 5, 5, 3, 3, 2
		installed = []int{10, 100}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	Head(os.Stdout)
	section(t, "gate", "The gate: one mail in one goroutine; ratio to a message; 1/s and CPU of this process.",
		func(t *testing.T) []Row { return measureGate(t, gates) })
	section(t, "start", "Programs, by turns, all under the broker's uid; a bot's with all walls up; ratio to the first.",
		func(t *testing.T) []Row { return measureStarts(t, ctx, starts) })
	section(t, "lmtp", "A delivery by LMTP, to three relays by turns; ratio to no hook.",
		func(t *testing.T) []Row { return measureLMTP(t, deliveries) })
	section(t, "bots", "A mail to an echo bot: the user's SMTP accept to the reply in the user's INBOX; ratio to the resident.\n"+
		"Then the phases, each from the end of the one above it; the user's core comes after the reply is in the INBOX.",
		func(t *testing.T) []Row { return measureBots(t, ctx, turns) })
	section(t, "wakes", "A mail to an echo bot on the embedded relay, one after the other, on hosts with so many bots; ratio to the first; 1/s is of mails.",
		func(t *testing.T) []Row { return measureWakes(t, ctx, wakes, installed...) })
	section(t, "waiting", "Mails that wait for an echo bot on the embedded relay: what one takes, of so many rounds; ratio to the first.",
		func(t *testing.T) []Row { return measureWaiting(t, ctx, rounds, 24) })
}

// section measures one part in a subtest, so that what it started has ended before the next begins.
func section(t *testing.T, name, title string, measure func(*testing.T) []Row) {
	t.Helper()
	before, err := Quiet()
	must(t, err)
	var rows []Row
	ok := t.Run(name, func(t *testing.T) { rows = measure(t) })
	if !ok {
		t.FailNow()
	}
	if rows == nil {
		return // left out by -run
	}
	after, err := os.ReadFile("/proc/loadavg")
	must(t, err)
	fmt.Printf("\n%s\nThe machine before: %s; load average after: %.14s\n", title, before, after)
	Print(os.Stdout, rows)
}
