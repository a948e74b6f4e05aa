package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/crash"
	"mayfly/internal/ledger"
	"mayfly/internal/schedule"
	"mayfly/internal/session"
)

const (
	scheduleTick = time.Minute     // how long a set clock stays unnoticed
	scheduleLate = 5 * time.Minute // how long a run lets waiting mail go first
)

// plan is when to look at a bot's schedules. It is about the time of day, which may be set at any moment.
type plan struct {
	at   time.Time // zero: never
	seen time.Time // the time of day when it was last looked at
}

// reached reports whether it is time to look. It is, too, where the clock was set back: then another instant may be next.
func (p *plan) reached(now time.Time) bool {
	if p.at.IsZero() {
		return false
	}
	reached := !now.Before(p.at) || now.Before(p.seen)
	p.seen = now
	return reached
}

// tick is when to ask next; nil: never.
func (p *plan) tick(now time.Time) <-chan time.Time {
	if p.at.IsZero() {
		return nil
	}
	return time.After(min(max(p.at.Sub(now), 0), scheduleTick))
}

// overdue reports whether a run has waited for long enough to go before mail.
func (a *actor) overdue() bool {
	return !a.plan.at.IsZero() && a.d.now().Sub(a.plan.at) > scheduleLate
}

// retry is when a run that has asked for it is tried again.
type retry struct{ at, until time.Time }

// now is the time of day alone: the clock of the process does not run while the machine sleeps.
func (d *Dispatcher) now() time.Time { return d.opts.Now().Round(0) }

// scheduled runs what is due of the bot's schedules, the earliest first, and remembers when there will be more.
func (a *actor) scheduled(ctx context.Context) error {
	a.plan = plan{}
	for ctx.Err() == nil {
		b, err := a.d.opts.Ledger.Bot(ctx, a.account)
		if errors.Is(err, ledger.ErrNotFound) || err == nil && len(b.Manifest.Schedules) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if _, paused, err := a.d.opts.Ledger.Paused(ctx, a.account); paused || err != nil {
			return err
		}
		next, err := a.nextInstant(ctx, b)
		if err != nil {
			return fmt.Errorf("schedules: %w", err)
		}
		if now := a.d.now(); next == nil || next.due.After(now) {
			a.planFor(next, now)
			return nil
		}
		var over *overBudget
		err = a.runScheduled(ctx, b, *next)
		if errors.As(err, &over) {
			a.log.Info("a scheduled run waits: over a budget", "budget", over.whose, "for", over.wait().Round(time.Second))
			a.plan = plan{a.d.now().Add(max(over.wait(), leastWait)), a.d.now()}
			return nil
		}
		if err != nil {
			return fmt.Errorf("schedule %q: %w", next.Cron, err)
		}
	}
	return ctx.Err()
}

func (a *actor) planFor(next *upcoming, now time.Time) {
	if next != nil {
		a.plan = plan{next.due, now}
	}
}

// upcoming is the instant of a bot's schedules that is next.
type upcoming struct {
	ledger.Schedule
	line schedule.Schedule
	rule schedule.Rule
	due  time.Time // when its run may begin
}

// nextInstant chooses instants for schedules that have none, or whose one stands no longer since the clock was set, and returns the first.
func (a *actor) nextInstant(ctx context.Context, b ledger.Bot) (*upcoming, error) {
	rows, err := a.d.opts.Ledger.Schedules(ctx, a.account)
	if err != nil {
		return nil, err
	}
	lines := map[string]schedule.Schedule{}
	for _, row := range rows {
		if lines[row.Cron], err = schedule.Parse(row.Cron); err != nil {
			return nil, fmt.Errorf("%q, which was right when the bot was installed: %w", row.Cron, err)
		}
	}
	rule := a.rule(b, lines)
	var first *upcoming
	for _, row := range rows {
		u := upcoming{Schedule: row, line: lines[row.Cron], rule: rule}
		if err := a.choose(ctx, &u); err != nil {
			return nil, err
		}
		if !u.Next.IsZero() && (first == nil || u.due.Before(first.due)) {
			first = &u
		}
	}
	return first, nil
}

// choose sees to it that a schedule has an instant that stands, and says when it is due.
func (a *actor) choose(ctx context.Context, u *upcoming) error {
	now := a.d.now()
	if u.Next.IsZero() || !u.rule.Keeps(u.line, u.Next, now) {
		i := ledger.Instant{Cron: u.Cron, At: u.Next, Then: u.rule.First(u.line, now)}
		if err := a.d.opts.Ledger.PlanSchedule(ctx, a.account, i); err != nil {
			return err
		}
		u.Next, u.Attempts = i.Then, 0
	}
	u.due = u.rule.Due(u.Next)
	if again, ok := a.retries[u.Cron]; ok && again.at.Equal(u.Next) {
		if wait := time.Until(again.until); wait > 0 {
			u.due = now.Add(wait)
		}
	}
	return nil
}

// rule is the operator's for a bot. Where the operator wants a larger gap now than when the bot was installed, so that its schedules clash,
// each has to leave room for all others.
func (a *actor) rule(b ledger.Bot, lines map[string]schedule.Schedule) schedule.Rule {
	r := schedule.RuleOf(string(a.account), a.d.opts.ScheduleGap)
	if len(lines) < 2 {
		return r
	}
	if !a.clash.known || a.clash.digest != b.Digest {
		var all []schedule.Schedule
		for _, s := range lines {
			all = append(all, s)
		}
		a.clash = clash{true, b.Digest, schedule.FindClash(all, r.Least, schedule.Cursory) != nil}
	}
	if a.clash.found {
		r.Least *= time.Duration(len(lines))
	}
	return r
}

// clash is whether the schedules of a bundle are closer than the operator's gap. To find out takes a while.
type clash struct {
	known  bool
	digest string
	found  bool
}

// runScheduled runs the bot for an instant, under its budgets and in a slot. Where it has to wait the error is an *overBudget.
func (a *actor) runScheduled(ctx context.Context, b ledger.Bot, u upcoming) error {
	a.looked()
	if err := a.d.opts.HostCPU.Room(ctx); err != nil {
		return err
	}
	cpu, err := a.cpuLeft(ctx, b.Manifest)
	if err != nil {
		return err
	}
	if err := a.botWithin(ctx, b.Manifest, 0); err != nil {
		return err
	}
	memory, err := a.d.opts.Sessions.Memory(b)
	if err != nil {
		return err
	}
	var committed bool
	running, done := a.hurried(ctx)
	said, over := a.sends(ctx)
	err = a.d.opts.Slots.Do(running, a.account, memory, func() error {
		committed, err = a.scheduledSession(running, b, u, cpu, said)
		return err
	})
	done()
	over()
	if err != nil || !committed {
		return err
	}
	if err := a.flush(ctx); err != nil {
		a.log.Warn("what the bot has sent waits in the outbox", "err", err)
	}
	return nil
}

// scheduledSession runs the session for an instant and reports whether it was committed. One whose sessions keep failing is given up.
func (a *actor) scheduledSession(ctx context.Context, b ledger.Bot, u upcoming, cpu time.Duration, said func()) (committed bool, err error) {
	now := a.d.now()
	i := ledger.Instant{Cron: u.Cron, At: u.Next, Then: u.rule.After(u.line, u.Next, now)}
	attempts, err := a.d.opts.Ledger.AttemptSchedule(ctx, a.account, i)
	if err != nil {
		return false, err
	}
	if attempts > a.d.opts.MaxAttempts {
		a.log.Error("a scheduled run is given up: its sessions keep failing", "schedule", i.Cron, "attempts", attempts-1, "next", i.Then)
		record := bot.RunRecord{Status: bot.RunInternal, Schedule: i.Cron, Message: fmt.Sprintf("given up after %d attempts", attempts-1)}
		return false, a.d.opts.Ledger.FailSchedule(ctx, a.account, i, record, true)
	}
	crash.At(crash.Attempted)
	a.d.opts.Outbox.Prepare(ctx, a.account)
	w := session.Work{
		Bot: b, Schedule: &session.Schedule{Instant: i, Last: u.Last, Attempts: attempts}, CPU: cpu, Retry: attempts < a.d.opts.MaxAttempts,
		Lend: a.d.opts.Slots.Lend, Said: said, Timeline: session.NewTimeline(time.Now()),
	}
	outcome, err := a.d.opts.Sessions.Run(ctx, w)
	if err != nil {
		return false, a.scheduleFailed(ctx, w, err)
	}
	a.d.opts.Done(outcome)
	return true, nil
}

// scheduleFailed records a session that was not finished, as failed does for a mail's. One that is to be tried again later is no error.
func (a *actor) scheduleFailed(ctx context.Context, w session.Work, cause error) error {
	stopped, s := ctx.Err() != nil, w.Schedule
	ctx = context.WithoutCancel(ctx)
	var again *session.Again
	if errors.As(cause, &again) {
		return a.scheduleLater(ctx, s, again.Record)
	}
	record := bot.RunRecord{Status: bot.RunInternal, Schedule: s.Cron, Message: cause.Error()}
	var spent *session.Spent
	if errors.As(cause, &spent) {
		record.CPU, record.AtOnce = spent.CPU, spent.AtOnce
	}
	if record.AtOnce > 0 && !stopped {
		return a.scheduleLater(ctx, s, record)
	}
	if stopped || !errors.Is(cause, session.ErrMail) {
		cause = errors.Join(cause, a.owe(ctx, func(ctx context.Context) error { return a.d.opts.Ledger.ForgiveSchedule(ctx, a.account, s.Instant) }))
	}
	if stopped {
		return cause
	}
	return errors.Join(cause, a.d.opts.Ledger.FailSchedule(ctx, a.account, s.Instant, record, false))
}

// scheduleLater has a schedule wait for its next attempt.
func (a *actor) scheduleLater(ctx context.Context, s *session.Schedule, record bot.RunRecord) error {
	pause := retryAfter << (2 * (s.Attempts - 1))
	a.log.Info("the scheduled run is tried again later", "schedule", s.Cron, "in", pause, "attempt", s.Attempts, "message", record.Message)
	a.retries[s.Cron] = retry{s.At, time.Now().Add(pause)}
	return a.d.opts.Ledger.FailSchedule(ctx, a.account, s.Instant, record, false)
}
