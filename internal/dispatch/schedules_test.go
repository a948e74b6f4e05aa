package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/schedule"
	"mayfly/internal/session"
)

const hourly = "0 * * * *"

// ran is a session that was begun.
type ran struct {
	session.Work
	began time.Time
}

// timetable is a bot with schedules, whose sessions are noted. Time begins at midnight.
type timetable struct {
	*bench
	mu  sync.Mutex
	all []ran
	do  func(w session.Work) error
}

func newTimetable(t *testing.T, lines ...string) *timetable {
	t.Helper()
	tt := &timetable{bench: newBench(t, one)}
	tt.manifest(one, bot.Manifest{Schedules: lines})
	tt.sessions.run = func(w session.Work) error {
		tt.mu.Lock()
		tt.all = append(tt.all, ran{w, time.Now()})
		do := tt.do
		tt.mu.Unlock()
		if do == nil {
			return nil
		}
		return do(w)
	}
	return tt
}

// started is a timetable whose bot has been looked at.
func started(t *testing.T, lines ...string) *timetable {
	t.Helper()
	tt := newTimetable(t, lines...)
	tt.Wake(tt.ctx, one, WakeInbox)
	time.Sleep(time.Second)
	return tt
}

// sessionsDo says what comes of every session from now on.
func (tt *timetable) sessionsDo(do func(w session.Work) error) {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	tt.do = do
}

// ran are the sessions since the last call.
func (tt *timetable) ran() []ran {
	tt.mu.Lock()
	defer tt.mu.Unlock()
	all := tt.all
	tt.all = nil
	return all
}

func midnight() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) } // when time begins in synctest

func jitter() time.Duration { return schedule.RuleOf(string(one), time.Hour).Jitter }

// instants are those of sessions, as times of day; a mail is its UID.
func instants(sessions []ran) string {
	var list []string
	for _, s := range sessions {
		if s.Schedule == nil {
			list = append(list, fmt.Sprint(s.Job.Cursor.UID))
		} else {
			list = append(list, s.Schedule.At.Format("2 15:04"))
		}
	}
	return strings.Join(list, ", ")
}

// wantRan compares the sessions since the last call.
func (tt *timetable) wantRan(when, want string) {
	tt.t.Helper()
	if got := instants(tt.ran()); got != want {
		tt.t.Errorf("%s: sessions %q, want %q", when, got, want)
	}
}

// TestSchedulesRunInTime: each instant once, late by the bot's jitter, without mail and without a look at the relay.
func TestSchedulesRunInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := started(t, hourly)
		dials := tt.inboxes[one].count().dials
		time.Sleep(3*time.Hour + 10*time.Minute)
		all := tt.ran()
		if got := instants(all); got != "1 00:00, 1 01:00, 1 02:00, 1 03:00" {
			t.Fatalf("sessions %q", got)
		}
		var last time.Time
		for _, r := range all {
			if late := r.began.Sub(r.Schedule.At); late < jitter() || late > jitter()+time.Second {
				t.Errorf("the run for %v began %v later, want %v", r.Schedule.At, late, jitter())
			}
			if !r.Schedule.Last.Equal(last) {
				t.Errorf("the run for %v is told that the last was at %v, want %v", r.Schedule.At, r.Schedule.Last, last)
			}
			last = r.began
		}
		if tt.inboxes[one].count().dials != dials {
			t.Error("a schedule has opened a connection to the relay")
		}
		records, err := tt.ledger.Runs(t.Context(), one, 10)
		if err != nil || len(records) != len(all) {
			t.Errorf("%d runs are recorded, %v; want %d", len(records), err, len(all))
		}
	})
}

// TestAMissedInstantIsRunOnce has a host that was down for two days.
func TestAMissedInstantIsRunOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := started(t, hourly, "30 8 * * *")
		tt.stop()
		tt.Wait()
		time.Sleep(49*time.Hour + 31*time.Minute)
		tt.again()
		tt.ran()
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(10 * time.Second)
		tt.wantRan("after two days", "1 00:00, 1 08:30")
		time.Sleep(40 * time.Minute)
		tt.wantRan("then", "3 02:00")
	})
}

// TestTheClockIsSet in both directions, while the process goes on.
func TestTheClockIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly)
		var by atomic.Int64
		tt.opts.Now = func() time.Time { return time.Now().Add(time.Duration(by.Load())) }
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(90 * time.Minute) // half past one
		tt.ran()
		by.Store(int64(5 * time.Hour)) // half past six
		time.Sleep(2 * time.Minute)
		tt.wantRan("after a leap of five hours", "1 02:00")
		time.Sleep(40 * time.Minute) // past seven
		tt.wantRan("then", "1 07:00")
		by.Store(int64(-24 * time.Hour)) // past two of the day before
		time.Sleep(2 * time.Minute)
		tt.wantRan("after a leap back", "")
		time.Sleep(time.Hour)
		tt.wantRan("within an hour of a leap back", "31 03:00")
	})
}

// TestPausedBotsHaveNoSchedules, and what they missed is run once when they are resumed.
func TestPausedBotsHaveNoSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := started(t, hourly)
		time.Sleep(10 * time.Minute)
		tt.ran()
		if err := tt.ledger.Pause(t.Context(), one, "a test"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Hour)
		tt.wantRan("in the pause", "")
		if err := tt.ledger.Resume(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(10 * time.Second)
		tt.wantRan("after the pause", "1 01:00")
	})
}

// TestScheduledRunsAreWithinTheBotsLimits: over one, a run waits until there is room.
func TestScheduledRunsAreWithinTheBotsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly)
		tt.opts.Limits.CPUPerHour = 2 * time.Second
		tt.sessions.spend = func(session.Work) bot.RunRecord {
			return bot.RunRecord{Status: bot.RunOK, CPU: 1800 * time.Millisecond}
		}
		time.Sleep(45 * time.Minute)
		tt.put(one, 1, valid[0]) // uses it up
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(50 * time.Minute)
		tt.wantRan("over the limit", "1")
		time.Sleep(20 * time.Minute)
		all := tt.ran()
		if got := instants(all); got != "1 01:00" {
			t.Fatalf("when there was room: sessions %q", got)
		}
		if cpu := all[0].CPU; cpu <= 0 || cpu > tt.opts.Limits.CPUPerHour {
			t.Errorf("the run may use %v of CPU time", cpu)
		}
	})
}

// TestMailGoesFirst, but not for ever.
func TestMailGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := started(t, hourly)
		for i, name := range valid {
			tt.put(one, uint32(i+1), name)
		}
		time.Sleep(time.Hour + jitter() - 2*time.Second)
		tt.ran()
		tt.sessionsDo(func(w session.Work) error {
			if w.Schedule == nil {
				time.Sleep(2 * time.Minute)
			}
			return nil
		})
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(20 * time.Minute)
		tt.wantRan("mail goes first for five minutes", "1, 2, 3, 1 01:00, 4, 5")
	})
}

// TestScheduledRunsAreTriedAgain as mail is: where the run asks for it, at growing distances, and MaxAttempts times.
func TestScheduledRunsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly)
		tt.opts.MaxAttempts = 5
		tt.sessionsDo(func(w session.Work) error {
			if !w.Retry {
				return nil
			}
			return &session.Again{Record: bot.RunRecord{Status: bot.RunError, ExitCode: 75, Schedule: w.Schedule.Cron}}
		})
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(30 * time.Minute)
		var gaps []time.Duration
		all := tt.ran()
		for i, r := range all {
			if r.Schedule.Attempts != i+1 || r.Retry != (i < 4) {
				t.Errorf("attempt %d is told to be %d, and may be tried again: %v", i+1, r.Schedule.Attempts, r.Retry)
			}
			if i > 0 {
				gaps = append(gaps, r.began.Sub(all[i-1].began).Round(time.Second))
			}
		}
		if want := []time.Duration{15 * time.Second, time.Minute, 4 * time.Minute, 16 * time.Minute}; !slices.Equal(gaps, want) {
			t.Errorf("tried again after %v, want %v", gaps, want)
		}
	})
}

// TestPoisonedInstantsAreGivenUp, and failures of the host's are not counted.
func TestPoisonedInstantsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly)
		tt.sessionsDo(func(session.Work) error { return errors.New("disk full") })
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(40 * time.Minute)
		if tries := len(tt.ran()); tries < 5 {
			t.Errorf("a host's failure was tried %d times in 40 minutes", tries)
		}
		tt.sessionsDo(func(session.Work) error { return fmt.Errorf("%w: it died", session.ErrMail) })
		time.Sleep(15 * time.Minute)
		tt.wantRan("until MaxAttempts, which is 2", "1 00:00, 1 00:00")
		rows, err := tt.ledger.Schedules(t.Context(), one)
		if err != nil || !rows[0].Next.Equal(midnight().Add(time.Hour)) {
			t.Errorf("the schedule is %+v, %v; want at one o'clock", rows, err)
		}
	})
}

// TestTheOperatorsGapHoldsForInstalledBots, also where it was raised, and for all schedules of a bot together.
func TestTheOperatorsGapHoldsForInstalledBots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly, "30 8,20 * * *")
		tt.opts.ScheduleGap = 24 * time.Hour
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(20*24*time.Hour + 12*time.Hour)
		if n := len(tt.ran()); n < 18 || n > 22 {
			t.Errorf("%d runs in twenty days and a half, want one a day", n)
		}
	})
}

// TestStoppingTheHostLosesNoInstant ends the host while a scheduled run is under way.
func TestStoppingTheHostLosesNoInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tt := newTimetable(t, hourly)
		ctx := tt.ctx
		tt.sessionsDo(func(session.Work) error {
			<-ctx.Done()
			return fmt.Errorf("%w: %w", session.ErrMail, context.Canceled)
		})
		tt.Wake(tt.ctx, one, WakeInbox)
		time.Sleep(jitter() + time.Second)
		tt.stop()
		tt.Wait()
		tt.wantRan("until the end", "1 00:00")
		rows, err := tt.ledger.Schedules(t.Context(), one)
		if err != nil || len(rows) != 1 || !rows[0].Next.Equal(midnight()) || rows[0].Attempts != 0 {
			t.Errorf("the schedule is %+v, %v; want still at midnight, without attempts", rows, err)
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
