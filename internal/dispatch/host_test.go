package dispatch

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/session"
)

// hostCPU is a limit of b's host, and the log that its operator reads.
const two bot.Address = "bot000003@chat.test"

func (b *bench) hostCPU(perHour time.Duration) *strings.Builder {
	var log strings.Builder
	b.opts.HostCPU = NewHostCPU(b.ledger, perHour, slog.New(slog.NewTextHandler(&log, nil)))
	return &log
}

// What all bots together have used up holds up the mail of every bot, whatever the single ones have used, and over a restart; the operator is
// told once an hour.
func TestTheHostOverItsCPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one, two)
		log := b.hostCPU(3 * time.Second)
		b.sessions.run = func(session.Work) error {
			b.opts.HostCPU.Spent(1400 * time.Millisecond) // core's and checks' count, too
			return nil
		}
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		b.Wake(b.ctx, one, WakeInbox)
		if left := b.left(one); len(left) != 2 { // after the third, 4.2 s are used
			t.Errorf("%v wait, want the last two", left)
		}
		b.put(two, 1, valid[0])
		b.Wake(b.ctx, two, WakeInbox)
		if left := b.left(two); len(left) != 1 {
			t.Error("another bot goes on")
		}
		for _, h := range []*HostCPU{b.opts.HostCPU, NewHostCPU(b.ledger, 3*time.Second, b.opts.Log)} {
			used, err := h.Used(t.Context())
			what, until, err2 := h.Over(t.Context())
			if err != nil || err2 != nil || what != "the host: 3s of CPU time an hour" || time.Until(until) < 58*time.Minute || used < 3*time.Second {
				t.Errorf("used %v, over %q until %v, %v, %v", used, what, until, err, err2)
			}
		}
		if n := strings.Count(log.String(), "all bots wait"); n != 1 {
			t.Errorf("told %d times:\n%s", n, log)
		}
		time.Sleep(62 * time.Minute) // without a wake
		if one, two := b.left(one), b.left(two); len(one)+len(two) > 0 {
			t.Errorf("%v and %v still wait", one, two)
		}
	})
}

// What is counted is not lost when the ledger cannot take it, and nothing waits without a limit.
func TestHostCPUIsKept(t *testing.T) {
	b := newBench(t)
	b.hostCPU(0)
	h := b.opts.HostCPU
	h.Spent(time.Hour)
	h.Spent(-time.Hour) // a broker that lies
	if err := h.Room(t.Context()); err != nil {
		t.Errorf("without a limit: %v", err)
	}
	if err := b.ledger.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Save(t.Context()); err == nil || h.unsaid != time.Hour {
		t.Errorf("%v of an hour are left, %v", h.unsaid, err)
	}
}

// What a bot is over is told as it holds it up.
func TestOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.Limits = Limits{CPUPerHour: time.Minute, CPUPerDay: 2 * time.Second, MailsPerHour: 3}
		b.sessions.spend = func(session.Work) bot.RunRecord { return bot.RunRecord{Status: bot.RunOK, CPU: time.Second} }
		over := func() string {
			what, until, err := b.opts.Limits.Over(t.Context(), b.ledger, ledger.Bot{Address: one})
			if err != nil {
				t.Fatal(err)
			}
			if what != "" && until.Before(time.Now()) {
				t.Errorf("over %q until %v, which is past", what, until)
			}
			return what
		}
		if what := over(); what != "" {
			t.Errorf("over %q before anything was used", what)
		}
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		b.Wake(b.ctx, one, WakeInbox)
		if left, what := b.left(one), over(); len(left) != 3 || what != "2s of CPU time a day" {
			t.Errorf("%v wait, over %q", left, what)
		}
	})
}

// Schedules wait for the host's limit too.
func TestTheHostOverItsCPUHoldsSchedulesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly)
		tt.hostCPU(time.Second)
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(time.Second)
		tt.ran()
		spend := func() {
			t.Helper()
			tt.opts.HostCPU.Spent(2 * time.Second)
			if _, _, err := tt.opts.HostCPU.Over(t.Context()); err != nil { // which writes it down
				t.Fatal(err)
			}
		}
		spend()
		time.Sleep(58 * time.Minute)
		spend()
		time.Sleep(55 * time.Minute)
		if all := tt.ran(); len(all) != 0 {
			t.Errorf("%d runs: %q", len(all), instants(all))
		}
		time.Sleep(10 * time.Minute)
		if all := tt.ran(); len(all) != 1 {
			t.Errorf("%d runs when there is room again, want one: %q", len(all), instants(all))
		}
	})
}
