package ledger

import (
	"path/filepath"
	"testing"
	"time"

	"mayfly/internal/bot"
)

const hourly, daily = "0 * * * *", "0 8 * * *"

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

// scheduled is a ledger with a bot of two schedules, of which the hourly one is at ten o'clock.
func scheduled(t *testing.T) (*Ledger, Instant) {
	t.Helper()
	l := fresh(t)
	manifest(t, l, "d2", hourly, daily)
	ten := at("2026-05-01 10:00")
	must(t, l.PlanSchedule(t.Context(), dice, Instant{Cron: hourly, Then: ten}))
	return l, Instant{Cron: hourly, At: ten, Then: ten.Add(time.Hour)}
}

func manifest(t *testing.T, l *Ledger, digest string, lines ...string) {
	t.Helper()
	must(t, l.Install(t.Context(), Bot{Address: dice, Digest: digest, Manifest: bot.Manifest{Schedules: lines}}))
}

// line returns a schedule's row; nil where there is none.
func line(t *testing.T, l *Ledger, cron string) *Schedule {
	t.Helper()
	all, err := l.Schedules(t.Context(), dice)
	must(t, err)
	for _, s := range all {
		if s.Cron == cron {
			return &s
		}
	}
	return nil
}

func TestSchedulesFollowTheManifest(t *testing.T) {
	l, ten := scheduled(t)
	if s := line(t, l, daily); s == nil || !s.Next.IsZero() || !s.Last.IsZero() {
		t.Errorf("a new schedule is %+v, want one without an instant", s)
	}
	began := ten.At.Add(time.Minute)
	must(t, l.Commit(t.Context(), Commit{Bot: dice, UIDNext: 1, Schedule: &ten, Run: &bot.RunRecord{Status: bot.RunOK}, Started: began, Ended: began}))
	manifest(t, l, "d3", "30 6 * * *", hourly)
	if s := line(t, l, hourly); s == nil || !s.Next.Equal(ten.Then) || !s.Last.Equal(began) {
		t.Errorf("after an update a schedule that stays is %+v, want at %v and last run at %v", s, ten.Then, began)
	}
	if line(t, l, daily) != nil || line(t, l, "30 6 * * *") == nil {
		t.Error("the update's schedules are not those of its manifest")
	}
	must(t, l.Remove(t.Context(), dice))
	if all, err := l.Schedules(t.Context(), dice); err != nil || len(all) != 0 {
		t.Errorf("of a bot that was removed are left %+v, %v", all, err)
	}
}

// TestAnInstantIsCommittedOnce: with it, or not at all, are the run, the mails and what comes next.
func TestAnInstantIsCommittedOnce(t *testing.T) {
	l, ten := scheduled(t)
	for n := 1; n <= 2; n++ {
		if got, err := l.AttemptSchedule(t.Context(), dice, ten); err != nil || got != n {
			t.Fatalf("attempt %d counts as %d, %v", n, got, err)
		}
	}
	c := Commit{Bot: dice, UIDNext: 1, Schedule: &ten, Run: &bot.RunRecord{Status: bot.RunOK, Schedule: hourly, CPU: time.Second},
		Outgoing: []Outgoing{{From: dice, To: []bot.Address{"user@relay.example"}, MessageID: "1@x", Path: "a.eml", Size: 10}}, Started: ten.At, Ended: ten.At}
	must(t, l.Commit(t.Context(), c))
	c.Outgoing[0].Path = "b.eml"
	want(t, l.Commit(t.Context(), c), ErrJobState)
	if s := line(t, l, hourly); !s.Next.Equal(ten.Then) || s.Attempts != 0 {
		t.Errorf("the schedule is %+v, want at %v without attempts", s, ten.Then)
	}
	runs, err := l.Runs(t.Context(), dice, 10)
	must(t, err)
	mails, err := l.outgoing(t.Context(), `WHERE bot = ?`, dice)
	must(t, err)
	if len(runs) != 1 || runs[0].Record.Schedule != hourly || len(runs[0].Jobs) != 0 || len(mails) != 1 {
		t.Errorf("there are runs %+v and mails %+v, want one each", runs, mails)
	}
	if used, err := l.Used(t.Context(), dice, WholeBot, CPU, time.Hour); err != nil || used != 1e6 {
		t.Errorf("CPU used is %d µs, %v; want a second", used, err)
	}
	if _, err := l.AttemptSchedule(t.Context(), dice, ten); err == nil {
		t.Error("an instant that is over may be attempted")
	}
	want(t, l.PlanSchedule(t.Context(), dice, ten), ErrJobState)
}

func TestFailedInstants(t *testing.T) {
	l, ten := scheduled(t)
	_, err := l.AttemptSchedule(t.Context(), dice, ten)
	must(t, err)
	must(t, l.ForgiveSchedule(t.Context(), dice, ten))
	must(t, l.FailSchedule(t.Context(), dice, ten, bot.RunRecord{Status: bot.RunInternal, CPU: time.Second}, false))
	if s := line(t, l, hourly); !s.Next.Equal(ten.At) || s.Attempts != 0 {
		t.Errorf("after a failure of the host's the schedule is %+v, want at %v without attempts", s, ten.At)
	}
	must(t, l.Commit(t.Context(), Commit{Bot: dice, UIDNext: 1, Schedule: &ten, Run: &bot.RunRecord{Status: bot.RunError, Message: "thrown"}, Started: ten.At, Ended: ten.At}))
	if s := line(t, l, hourly); !s.Next.Equal(ten.Then) || !s.Last.IsZero() {
		t.Errorf("after a failure of the bot's the schedule is %+v, want at %v and never run", s, ten.Then)
	}
	eleven := Instant{Cron: hourly, At: ten.Then, Then: ten.Then.Add(time.Hour)}
	must(t, l.FailSchedule(t.Context(), dice, eleven, bot.RunRecord{Status: bot.RunInternal, Message: "given up"}, true))
	if s := line(t, l, hourly); !s.Next.Equal(eleven.Then) {
		t.Errorf("a schedule that was given up is %+v, want at %v", s, eleven.Then)
	}
	failures, _, err := l.Failures(t.Context(), dice)
	if err != nil || len(failures) != 2 {
		t.Errorf("the author is to be told of %+v, %v; want the run and what was given up", failures, err)
	}
	if runs, err := l.Runs(t.Context(), dice, 10); err != nil || len(runs) != 3 {
		t.Errorf("runs %+v, %v; want three", runs, err)
	}
}

// TestSchedulesSurvive: what was reported as done is there at the next start.
func TestSchedulesSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	manifest(t, l, "d1", hourly)
	ten := at("2026-05-01 10:00")
	must(t, l.PlanSchedule(t.Context(), dice, Instant{Cron: hourly, Then: ten}))
	must(t, l.Close())
	if s := line(t, open(t, path), hourly); s == nil || !s.Next.Equal(ten) {
		t.Errorf("after a restart the schedule is %+v, want at %v", s, ten)
	}
}
