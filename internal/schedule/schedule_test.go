package schedule

import (
	"errors"
	"fmt"
	"testing"
	"time"
	_ "time/tzdata" // the machine may have none
)

func parse(t *testing.T, line string) Schedule {
	t.Helper()
	s, err := Parse(line)
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return s
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestLinesOfCrontab(t *testing.T) {
	now := at("2026-01-01 00:00:00") // a Thursday
	for line, want := range map[string]string{
		"0 * * * *":        "2026-01-01 01:00:00",
		"*/20 8-9 * * *":   "2026-01-01 08:00:00",
		"30 6 * * mon-fri": "2026-01-01 06:30:00",
		"0 0 * * 7":        "2026-01-04 00:00:00", // Sunday is 0 and 7
		"0 0 13 * fri":     "2026-01-02 00:00:00", // the 13th, or a Friday
		"0 12 29 2 *":      "2028-02-29 12:00:00",
		"15 3 1 JAN *":     "2026-01-01 03:15:00",
	} {
		if got := parse(t, line).Next(now); !got.Equal(at(want)) || got.Location() != time.UTC {
			t.Errorf("%q: the next is %v, want %s", line, got, want)
		}
	}
	for _, line := range []string{
		"", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *", "0 0 1 13 *", "*/0 * * * *", "0 0 L * *", "0 0 * * MON#2",
		"H * * * *", "@hourly", "@every 1s", "TZ=Europe/Rome 0 * * * *", "TZ=0", "CRON_TZ=UTC", "0 0 \x00 * *", fmt.Sprintf("%0300d * * * *", 1),
	} {
		if s, err := Parse(line); err == nil {
			t.Errorf("%q is taken, and comes next at %v", line, s.Next(now))
		}
	}
	if _, err := Parse("0 0 30 2 *"); !errors.Is(err, ErrNever) {
		t.Errorf("the 30th of February: %v", err)
	}
}

// TestNoDayIsShorter is every hour of the nights in which clocks are changed, in a process whose own time zone changes them.
func TestNoDayIsShorter(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	daily, hourly := parse(t, "30 1 * * *"), parse(t, "0 * * * *")
	for _, night := range []time.Time{at("2026-03-29 00:30:00"), at("2026-10-25 00:30:00")} {
		now := night.In(berlin)
		for range 5 {
			next := hourly.Next(now)
			if gap := next.Sub(hourly.Next(next.Add(-time.Hour - time.Second))); gap != time.Hour {
				t.Errorf("after %v: %v between two hours", now, gap)
			}
			now = next.In(berlin)
		}
		if got := daily.Next(night.In(berlin)).Sub(daily.Next(night.AddDate(0, 0, -1).In(berlin))); got != 24*time.Hour {
			t.Errorf("the day before %v has %v", night, got)
		}
	}
}

func TestClashes(t *testing.T) {
	for _, test := range []struct {
		lines []string
		least time.Duration
		of    int // -1: no clash
		gap   time.Duration
	}{
		{[]string{"0 * * * *"}, time.Hour, -1, 0},
		{[]string{"*/30 * * * *"}, time.Hour, 0, 30 * time.Minute},
		{[]string{"*/59 * * * *"}, time.Hour, 0, 59 * time.Minute},
		{[]string{"30 23 1 * *", "15 0 * * *"}, time.Hour, 1, 45 * time.Minute},      // over midnight, on one day of the month
		{[]string{"0 23 29 2 *", "30 23 28,29 2 *"}, time.Hour, 1, 30 * time.Minute}, // in leap years
		{[]string{"0 8 * * *", "0 20 * * *"}, time.Hour, -1, 0},                      //
		{[]string{"0 * * * *", "0 8 * * *"}, time.Hour, 1, 0},                        // at the same time
		{[]string{"* * * * *"}, time.Minute, -1, 0},                                  //
		{[]string{"0 0 * * *"}, 7 * 24 * time.Hour, 0, 24 * time.Hour},               //
		{[]string{"0 0 1 1 *", "0 1 1 1 *", "59 1 1 1 *"}, time.Hour, 2, 59 * time.Minute},
	} {
		var list []Schedule
		for _, line := range test.lines {
			list = append(list, parse(t, line))
		}
		clash := FindClash(list, test.least, Thorough)
		switch {
		case clash == nil && test.of < 0:
		case clash == nil || test.of < 0 || clash.Of != test.of || clash.Gap != test.gap:
			t.Errorf("%q at least %s apart: %+v", test.lines, test.least, clash)
		}
	}
}

// TestJitterSpreads: bots are run all over five minutes, each always at its own.
func TestJitterSpreads(t *testing.T) {
	seen := map[time.Duration]int{}
	for i := range 3000 {
		name := fmt.Sprintf("bot%06d@chat.test", i)
		r := RuleOf(name, time.Hour)
		if r != RuleOf(name, time.Hour) {
			t.Fatal("a bot's jitter changes")
		}
		if r.Jitter < 0 || r.Jitter >= 5*time.Minute {
			t.Fatalf("jitter %s", r.Jitter)
		}
		seen[r.Jitter/(30*time.Second)]++
	}
	for part, n := range seen {
		if n < 200 || n > 400 {
			t.Errorf("of 3000 bots %d are run in the %d. half minute of ten", n, part+1)
		}
	}
	if len(seen) != 10 {
		t.Errorf("bots are run in %d of 10 half minutes", len(seen))
	}
	if j := RuleOf("a", time.Minute).Jitter; j >= 5*time.Second {
		t.Errorf("jitter %s of a minute", j)
	}
}

// TestTheClockJumps plans an hourly schedule under a clock that a person, or NTP, sets.
func TestTheClockJumps(t *testing.T) {
	hourly, r := parse(t, "0 * * * *"), Rule{Least: time.Hour, Jitter: time.Minute}
	check := func(what string, got time.Time, want string) {
		t.Helper()
		if !got.Equal(at(want)) {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	check("new at 9:30", r.First(hourly, at("2026-05-01 09:30:00")), "2026-05-01 10:00:00")
	check("new between an instant and its run", r.First(hourly, at("2026-05-01 10:00:30")), "2026-05-01 10:00:00")
	check("run in time", r.After(hourly, at("2026-05-01 10:00:00"), at("2026-05-01 10:01:00")), "2026-05-01 11:00:00")
	check("run before its time, by a clock that went back", r.After(hourly, at("2026-05-01 10:00:00"), at("2026-05-01 09:59:00")), "2026-05-01 11:00:00")
	check("missed for three days", r.After(hourly, at("2026-05-01 10:00:00"), at("2026-05-04 10:30:00")), "2026-05-04 11:00:00")
	check("missed, and run right before the next", r.After(hourly, at("2026-05-01 10:00:00"), at("2026-05-01 11:00:59")), "2026-05-01 11:00:00")
	for now, keeps := range map[string]bool{
		"2026-05-01 10:30:00": true,
		"2026-05-01 09:59:00": true, // back by two minutes: ten o'clock was run already
		"2026-05-01 09:02:00": true,
		"2026-05-01 08:30:00": false, // back by two hours: nine and ten o'clock come again
		"2025-05-01 10:30:00": false,
		"2026-05-03 00:00:00": true, // forward: it was missed
	} {
		if got := r.Keeps(hourly, at("2026-05-01 11:00:00"), at(now)); got != keeps {
			t.Errorf("at %s eleven o'clock stands: %v, want %v", now, got, keeps)
		}
	}
	raised := Rule{Least: 24 * time.Hour}
	check("after the operator has raised the gap", raised.After(hourly, at("2026-05-01 10:00:00"), at("2026-05-01 10:00:30")), "2026-05-02 10:00:00")
	if !raised.Keeps(hourly, at("2026-05-02 10:00:00"), at("2026-05-01 10:00:40")) {
		t.Error("the next day's does not stand")
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{"0 * * * *", "*/5 1-3,7 L * mon", "TZ=0", "@every 1s", "0 0 30 2 *", "0-59/7 0/2 ? jan-dec 7"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		s, err := Parse(line)
		if err != nil {
			return
		}
		now := someDay()
		for range 5 {
			next := s.Next(now)
			if !next.After(now) || next.Second() != 0 {
				t.Fatalf("%q: after %v comes %v", line, now, next)
			}
			now = next
		}
	})
}
