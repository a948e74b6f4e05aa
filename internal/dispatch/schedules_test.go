package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/schedule"
	"mayfly/internal/session"
)

const hourly = "0 * * * *"

// ran is what a schedule's runs were.
type ran struct {
	cron     string
	at, last time.Time // the instant, and what the bot is told of the run before
	began    time.Time
}

// timetable has a bot with schedules, woken once, and notes its runs. It begins at midnight.
func timetable(t *testing.T, lines ...string) (*bench, *[]ran) {
	t.Helper()
	b := newBench(t, one)
	b.manifest(one, bot.Manifest{Schedules: lines})
	runs := &[]ran{}
	b.sessions.run = func(w session.Work) error {
		if w.Schedule != nil {
			*runs = append(*runs, ran{w.Schedule.Cron, w.Schedule.At, w.Schedule.Last, time.Now()})
		}
		return nil
	}
	b.Wake(b.ctx, one, WakeInbox)
	synctest.Wait()
	return b, runs
}

func midnight() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) } // when time begins in synctest

func jitter() time.Duration { return schedule.RuleOf(string(one), time.Hour).Jitter }

// instants are the hours of runs, such as "1 2 4".
func instants(runs []ran) string {
	var list []string
	for _, r := range runs {
		list = append(list, fmt.Sprint(r.at.Sub(midnight()).Hours()))
	}
	return strings.Join(list, " ")
}

// TestSchedulesRunInTime: each instant once, late by the bot's jitter, without mail and without a look at the relay.
func TestSchedulesRunInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, runs := timetable(t, hourly)
		dials := b.inboxes[one].count().dials
		time.Sleep(3*time.Hour + 10*time.Minute)
		if got := instants(*runs); got != "0 1 2 3" && got != "1 2 3" { // the first, if its run was still to come at midnight
			t.Fatalf("runs for the hours %s, want 1 2 3", got)
		}
		var last time.Time
		for _, r := range *runs {
			if late := r.began.Sub(r.at); late < jitter() || late > jitter()+time.Second {
				t.Errorf("the run for %v began %v later, want %v", r.at, late, jitter())
			}
			if !r.last.Equal(last) {
				t.Errorf("the run for %v is told that the last was at %v, want %v", r.at, r.last, last)
			}
			last = r.began
		}
		if b.inboxes[one].count().dials != dials {
			t.Error("a schedule has opened a connection to the relay")
		}
		records, err := b.ledger.Runs(t.Context(), one, 10)
		if err != nil || len(records) != len(*runs) {
			t.Errorf("%d runs are recorded, %v; want %d", len(records), err, len(*runs))
		}
	})
}

// TestAMissedInstantIsRunOnce has a host that was down for two days.
func TestAMissedInstantIsRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, runs := timetable(t, hourly, "30 8 * * *")
		b.stop()
		b.Wait()
		*runs = nil
		time.Sleep(49*time.Hour + 31*time.Minute)
		b.again()
		b.Wake(b.ctx, one, WakeInbox)
		time.Sleep(10 * time.Second)
		if len(*runs) != 2 || (*runs)[0].cron == (*runs)[1].cron {
			t.Fatalf("after two days there were %+v, want one run of each schedule", *runs)
		}
		*runs = nil
		time.Sleep(40 * time.Minute) // to ten past two
		if len(*runs) != 1 || !(*runs)[0].at.Equal(midnight().Add(50*time.Hour)) {
			t.Errorf("then there were %+v, want one run for two o'clock", *runs)
		}
	})
}

// TestTheClockIsSet in both directions, while the process goes on.
func TestTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		var by atomic.Int64
		b.opts.Now = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
		b.manifest(one, bot.Manifest{Schedules: []string{hourly}})
		var runs []time.Time
		b.sessions.run = func(w session.Work) error { runs = append(runs, w.Schedule.At); return nil }
		b.Wake(b.ctx, one, WakeInbox)
		time.Sleep(90 * time.Minute) // half past one
		runs = nil
		by.Store(int64(5 * time.Hour)) // half past six
		time.Sleep(2 * time.Minute)
		if len(runs) != 1 || !runs[0].Equal(midnight().Add(2*time.Hour)) {
			t.Fatalf("after a leap of five hours there were %v, want the run for two o'clock, which was missed", runs)
		}
		time.Sleep(40 * time.Minute) // past seven
		if len(runs) != 2 || !runs[1].Equal(midnight().Add(7*time.Hour)) {
			t.Fatalf("then there were %v, want the run for seven", runs)
		}
		runs = nil
		by.Store(int64(-24 * time.Hour)) // past two of the day before
		time.Sleep(2 * time.Minute)
		if len(runs) > 0 {
			t.Errorf("after a leap back there were %v at once", runs)
		}
		time.Sleep(time.Hour)
		if len(runs) != 1 || !runs[0].Equal(midnight().Add(-21*time.Hour)) {
			t.Errorf("within an hour of a leap back there were %v, want the run for three of the day before", runs)
		}
	})
}

// TestPausedBotsHaveNoSchedules, and what they missed is run once when they are resumed.
func TestPausedBotsHaveNoSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, runs := timetable(t, hourly)
		*runs = nil
		if err := b.ledger.Pause(t.Context(), one, "a test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Hour)
		if len(*runs) > 0 {
			t.Fatalf("a paused bot was run: %+v", *runs)
		}
		if err := b.ledger.Resume(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		b.Wake(b.ctx, one, WakeInbox)
		time.Sleep(10 * time.Second)
		if len(*runs) != 1 {
			t.Errorf("after the pause there were %+v, want one run", *runs)
		}
	})
}

// TestScheduledRunsAreWithinTheBotsLimits: over one, a run waits until there is room.
func TestScheduledRunsAreWithinTheBotsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.Limits.CPUPerHour = 2 * time.Second
		b.manifest(one, bot.Manifest{Schedules: []string{hourly}})
		b.sessions.spend = func(session.Work) bot.RunRecord {
			return bot.RunRecord{Status: bot.RunOK, CPU: 1800 * time.Millisecond}
		}
		var began []time.Time
		b.sessions.run = func(w session.Work) error {
			if w.Schedule != nil {
				began = append(began, time.Now())
				if w.CPU <= 0 || w.CPU > b.opts.Limits.CPUPerHour {
					t.Errorf("a run may use %v", w.CPU)
				}
			}
			return nil
		}
		time.Sleep(45 * time.Minute)
		b.put(one, 1, valid[0]) // uses it up
		b.Wake(b.ctx, one, WakeInbox)
		time.Sleep(50 * time.Minute)
		if len(began) > 0 {
			t.Fatalf("a run began over the bot's limit, at %v", began)
		}
		time.Sleep(20 * time.Minute)
		if len(began) != 1 {
			t.Errorf("runs began at %v, want one when there was room", began)
		}
	})
}

// TestMailGoesFirst, but not for ever.
func TestMailGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := timetable(t, hourly)
		var order []string
		long := time.Duration(0)
		b.sessions.run = func(w session.Work) error {
			if w.Schedule != nil {
				order = append(order, "schedule")
				return nil
			}
			order = append(order, fmt.Sprint(w.Job.Cursor.UID))
			time.Sleep(long)
			return nil
		}
		for i, name := range valid {
			b.put(one, uint32(i+1), name)
		}
		time.Sleep(time.Hour + jitter() - time.Second)
		order, long = nil, 2*time.Minute
		b.Wake(b.ctx, one, WakeInbox)
		time.Sleep(20 * time.Minute)
		if got := strings.Join(order, " "); got != "1 2 3 schedule 4 5" {
			t.Errorf("the order was %s, want 1 2 3 schedule 4 5: mail goes first for five minutes", got)
		}
	})
}

// TestScheduledRunsAreTriedAgain as mail is: where the run asks for it, at growing distances, and MaxAttempts times.
func TestScheduledRunsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := timetable(t, hourly)
		b.opts.MaxAttempts = 5
		var began []time.Time
		b.sessions.run = func(w session.Work) error {
			began = append(began, time.Now())
			if w.Schedule.Attempts != len(began) || w.Retry != (len(began) < 5) {
				t.Errorf("attempt %d is told to be %d, and may be tried again: %v", len(began), w.Schedule.Attempts, w.Retry)
			}
			if w.Retry {
				return &session.Again{Record: bot.RunRecord{Status: bot.RunError, ExitCode: 75, Schedule: w.Schedule.Cron}}
			}
			return nil
		}
		time.Sleep(time.Hour + jitter() - time.Second)
		began = nil
		time.Sleep(30 * time.Minute)
		var gaps []time.Duration
		for i := 1; i < len(began); i++ {
			gaps = append(gaps, began[i].Sub(began[i-1]).Round(time.Second))
		}
		if want := []time.Duration{15 * time.Second, time.Minute, 4 * time.Minute, 16 * time.Minute}; !slices.Equal(gaps, want) {
			t.Errorf("tried again after %v, want %v", gaps, want)
		}
	})
}

// TestPoisonedInstantsAreGivenUp, and failures of the host's are not counted.
func TestPoisonedInstantsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := timetable(t, hourly)
		cause, tries := errors.New("disk full"), 0
		b.sessions.run = func(session.Work) error { tries++; return cause }
		time.Sleep(time.Hour + jitter() + 20*time.Minute)
		if tries < 5 {
			t.Errorf("a host's failure was tried %d times in 20 minutes", tries)
		}
		cause, tries = fmt.Errorf("%w: it died", session.ErrMail), 0
		time.Sleep(20 * time.Minute)
		if tries != 2 {
			t.Errorf("core failed %d times, want MaxAttempts, which is 2", tries)
		}
		rows, err := b.ledger.Schedules(t.Context(), one)
		if err != nil || !rows[0].Next.Equal(midnight().Add(2*time.Hour)) {
			t.Errorf("the schedule is %+v, %v; want at two o'clock", rows, err)
		}
	})
}

// TestTheOperatorsGapHoldsForInstalledBots, also where it was raised, and for all schedules of a bot together.
func TestTheOperatorsGapHoldsForInstalledBots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, one)
		b.opts.ScheduleGap = 24 * time.Hour
		b.manifest(one, bot.Manifest{Schedules: []string{hourly, "30 8,20 * * *"}})
		runs := 0
		b.sessions.run = func(session.Work) error { runs++; return nil }
		b.Wake(b.ctx, one, WakeInbox)
		time.Sleep(20*24*time.Hour + 12*time.Hour)
		if runs < 18 || runs > 22 {
			t.Errorf("%d runs in twenty days and a half, want one a day", runs)
		}
	})
}

// TestStoppingTheHostLosesNoInstant ends the host while a scheduled run is under way.
func TestStoppingTheHostLosesNoInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := timetable(t, hourly)
		b.sessions.run = func(session.Work) error {
			<-b.ctx.Done()
			return fmt.Errorf("%w: %w", session.ErrMail, context.Canceled)
		}
		time.Sleep(time.Hour + jitter() + time.Second)
		b.stop()
		b.Wait()
		rows, err := b.ledger.Schedules(t.Context(), one)
		if err != nil || len(rows) != 1 || rows[0].Next.Sub(midnight()) > time.Hour || rows[0].Attempts != 0 {
			t.Errorf("the schedule is %+v, %v; want still at one o'clock, without attempts", rows, err)
		}
	})
}

// again is the next start of the host, on the same ledger.
func (b *bench) again() {
	b.Dispatcher = New(b.opts)
	b.ctx, b.stop = context.WithCancel(b.t.Context())
	b.t.Cleanup(func() {
		b.stop()
		b.Wait()
	})
}

var _ Ledger = (*ledger.Ledger)(nil)
