// Package schedule says when a bot that asked for it in [[schedule]] is to be run. It does no I/O and never asks what time it is.
//
// A schedule is a line of crontab(5): minute, hour, day of the month, month, day of the week, in UTC, so that no day has 23 or 25
// hours. Names of months and days, lists, ranges and steps are understood; where both days are given, either of them counts.
// Descriptors (@hourly), time zones, seconds, and the extensions L, W, # and H are refused.
//
// The instants that the line names are nominal. A bot is run a little later, by a jitter that is its own and does not change, so
// that not all bots of a host are run at :00. An instant that passed while the host was down or busy is run once, late; of several
// that passed, the last stands for all. The clock may jump: what it says now is what counts (Rule.Keeps).
package schedule

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	cron "github.com/netresearch/go-cron"
)

// ErrNever is what Parse says of a line that names no instant, such as the 30th of February.
var ErrNever = errors.New("it never comes")

// maxLine bounds a line, in bytes.
const maxLine = 200

// Schedule is a parsed line.
type Schedule struct{ spec cron.Schedule }

// Parse reads a line of crontab(5).
func Parse(line string) (Schedule, error) {
	switch {
	case len(line) > maxLine:
		return Schedule{}, fmt.Errorf("it is longer than %d bytes", maxLine)
	case strings.Contains(line, "="):
		return Schedule{}, errors.New("time zones are not for schedules, which are in UTC")
	}
	parser := cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.DowOrDom)
	spec, err := parser.Parse(line)
	if err != nil {
		return Schedule{}, err
	}
	s := Schedule{spec}
	if s.Next(someDay()).IsZero() {
		return Schedule{}, ErrNever
	}
	return s, nil
}

// someDay is before a leap year, so that every line that comes at all comes within five years of it.
func someDay() time.Time { return time.Date(2026, 12, 31, 23, 59, 0, 0, time.UTC) }

// Next is the first instant after a time, or zero if there is none within five years.
func (s Schedule) Next(after time.Time) time.Time { return s.spec.Next(after.UTC()) }

// Clash says that two runs of one bot would follow each other too soon.
type Clash struct {
	Of  int           // the schedule that the second one is of
	At  time.Time     // the second one
	Gap time.Duration // 0: at the same time
}

// Instants that FindClash looks at: each takes about a microsecond.
const (
	Thorough = 100_000
	Cursory  = 5000
)

// FindClash looks for two instants, of one schedule or of two, that are less than least apart. It looks at five years, and at most at
// so many instants. It returns nil if there is none.
func FindClash(list []Schedule, least time.Duration, most int) *Clash {
	end := someDay().AddDate(5, 0, 0)
	next := make([]time.Time, len(list))
	for i, s := range list {
		next[i] = s.Next(someDay())
	}
	var before time.Time
	for range most {
		first := -1
		for i, at := range next {
			if !at.IsZero() && (first < 0 || at.Before(next[first])) {
				first = i
			}
		}
		if first < 0 || next[first].After(end) {
			return nil
		}
		at := next[first]
		if gap := at.Sub(before); !before.IsZero() && gap < least {
			return &Clash{first, at, gap}
		}
		before, next[first] = at, list[first].Next(at)
	}
	return nil
}

// Rule is how one bot's instants become runs.
type Rule struct {
	Least  time.Duration // between two of them: the operator's, also where a bot was installed before it was raised
	Jitter time.Duration // how much later than its instant a run is
}

// RuleOf gives a bot its jitter: up to a twelfth of the least gap, five minutes of an hour, in whole seconds.
func RuleOf(bot string, least time.Duration) Rule {
	h := fnv.New64a()
	_, _ = h.Write([]byte(bot)) // it never fails
	span := uint64(max(least/12/time.Second, 1))
	return Rule{Least: least, Jitter: time.Duration(h.Sum64()%span) * time.Second}
}

// Due is when the run for an instant may begin.
func (r Rule) Due(instant time.Time) time.Time { return instant.Add(r.Jitter) }

// First is the first instant of a schedule that is new at a time.
func (r Rule) First(s Schedule, now time.Time) time.Time { return s.Next(now.Add(-r.Jitter)) }

// After is the instant after one that is run now: the next that is not due yet, and not sooner than Least after it.
func (r Rule) After(s Schedule, instant, now time.Time) time.Time {
	from, sooner := now.Add(-r.Jitter), instant.Add(r.Least-time.Second)
	if sooner.After(from) {
		from = sooner
	}
	return s.Next(from)
}

// Keeps reports whether an instant that was chosen earlier may stand, now. It may not where the clock went back so far that more than
// one instant would be left out; where it went back a little, the instant that was just run does not come again.
func (r Rule) Keeps(s Schedule, instant, now time.Time) bool {
	first := r.First(s, now)
	return !instant.After(r.After(s, first, now))
}
