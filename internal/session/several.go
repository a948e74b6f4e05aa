package session

import (
	"context"
	"errors"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/crash"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

// Used is what a session has used so far that no ledger knows of yet.
type Used struct {
	CPU, Wall time.Duration // of runs
	Sent      int           // mails, counted once for each recipient
	Bytes     int64         // sent, or handed to core
}

// Undone ends a session of several mails in which something went wrong. Nothing of it was committed; each of the mails is to have a session
// of its own.
type Undone struct {
	Cause  error
	Failed bool          // one of the runs did; else it is core's failure or the host's
	CPU    time.Duration // of all its runs
}

func (u *Undone) Error() string { return "a session of several mails: " + u.Cause.Error() }

// sentRoom is how much more than one mail's run the runs of a session may send together, in bytes.
const sentRoom = 8 << 20

// part is what a session did for one of its mails.
type part struct {
	work           Work
	run            *bot.RunRecord // nil: none
	cpu            time.Duration  // of the bot's program
	coreCPU        time.Duration
	folder         bot.Generation  // that the bot's folder has after it
	consent        bot.Fingerprint // of who wrote to the bot directly
	word           bot.Word        // of the host's that the message turned out to be
	sending        *sending
	unsent         map[string]int // messages that were not sent, by the limit
	outgoing       int            // mails that core had sent by its end, those of the parts before it included
	started, ended time.Time
}

// more goes on with other mails that wait for the bot, one after the other, as long as w.Next of the first has one. It returns what was
// done for each. With an error, the last is the one in which it happened.
func (r *Runner) more(ctx context.Context, c *coreSide, first part) ([]part, error) {
	parts := []part{first}
	for parts[len(parts)-1].word == "" {
		if err := r.rest(ctx, c, parts); err != nil {
			var refused *core.Error
			if errors.As(err, &refused) { // it knows no flush
				return parts, nil
			}
			return parts, err
		}
		next, ok := first.work.Next(ctx, used(parts, c))
		if !ok {
			return parts, nil
		}
		p, err := r.another(ctx, c, next, parts[len(parts)-1])
		if parts = append(parts, p); err != nil {
			return parts, err
		}
	}
	return parts, nil
}

// rest ends a part: core has sent all that the bot has said, and has told all that it had to tell.
func (r *Runner) rest(ctx context.Context, c *coreSide, parts []part) error {
	if err := c.drain(ctx, r.Limits.Drain); err != nil {
		return err
	}
	if err := c.flush(ctx, r.Limits.Incoming); err != nil {
		return err
	}
	p := &parts[len(parts)-1]
	p.outgoing, p.ended = len(c.relay.Outgoing()), time.Now()
	all, err := c.box.Usage()
	for _, before := range parts {
		all -= before.coreCPU
	}
	p.coreCPU = all
	c.earlier = append(c.earlier, c.wrote)
	return err
}

func used(parts []part, c *coreSide) Used {
	u := Used{Bytes: c.handed.Load()}
	for _, p := range parts {
		u.CPU += p.cpu
		if p.run != nil {
			u.Wall += p.run.Wall
		}
	}
	for _, o := range c.relay.Outgoing() {
		u.Sent += len(o.To)
		u.Bytes += int64(len(o.To) * len(o.Data))
	}
	return u
}

// another works on one more mail, with a program of its own on the folder that the one before it has left.
func (r *Runner) another(ctx context.Context, c *coreSide, w Work, before part) (p part, err error) {
	w.Bot, w.Bot.Storage = before.work.Bot, before.folder
	program := r.prestart(ctx, w)
	p = part{work: w, sending: before.sending.next(), started: time.Now()}
	defer func() {
		program.close()
		p.cpu, p.folder = program.used, program.kept()
	}()
	program.sending = p.sending
	c.wrote, c.word = "", ""
	c.relay.Present(w.Mail)
	crash.At(crash.Presented)
	p.run, err = r.message(ctx, c, program, w, c.later)
	p.consent, p.word = c.wrote, c.word
	return p, err
}

// undone is the end of a session of several parts.
func undone(parts []part, cause error) *Undone {
	u := &Undone{Cause: cause, Failed: errors.As(cause, new(*runFailed))}
	for _, p := range parts {
		u.CPU += p.cpu
	}
	return u
}

// strip takes from what core has sent, part by part, that for which limits of sending have no room.
func strip(ctx context.Context, parts []part, all []minirelay.Outgoing) ([]minirelay.Outgoing, error) {
	parts[len(parts)-1].outgoing = len(all)
	var kept []minirelay.Outgoing
	from := 0
	for i := range parts {
		p := &parts[i]
		mails, err := p.sending.strip(ctx, all[from:p.outgoing])
		if err != nil {
			return nil, err
		}
		from, kept = p.outgoing, append(kept, mails...)
		p.outgoing, p.unsent = len(kept), p.sending.unsent(nil)
	}
	return kept, nil
}

// closeLast ends the last part with the session.
func closeLast(parts []part, end ending) {
	last := &parts[len(parts)-1]
	last.outgoing, last.coreCPU, last.ended = len(end.outgoing), end.core.CPU, time.Now()
	for _, p := range parts[:len(parts)-1] {
		last.coreCPU -= p.coreCPU
	}
}

// commitsOf is what the parts have changed. Account and folder are the last one's for all: they are committed together.
func commitsOf(parts []part, end ending, outgoing []ledger.Outgoing) []ledger.Commit {
	var commits []ledger.Commit
	from := 0
	for _, p := range parts {
		if p.run != nil {
			p.run.Schedule, p.run.Unsent = p.work.Schedule.cron(), p.unsent
			p.run.CoreCPU, p.run.CoreMemory = p.run.CoreCPU+p.coreCPU, max(p.run.CoreMemory, end.core.Memory)
		}
		commits = append(commits, ledger.Commit{
			Bot: p.work.Bot.Address, Jobs: p.work.jobs(), Schedule: p.work.Schedule.instant(), Account: end.account,
			Storage: parts[len(parts)-1].folder, UIDNext: end.uidNext, State: end.state, Consent: p.consent, ConsentFrom: p.work.Job.From,
			Word: p.stop(), Outgoing: outgoing[from:p.outgoing], Run: p.run, Unsent: p.unsent, Started: p.started, Ended: p.ended,
		})
		from = p.outgoing
	}
	commits[0].Notice = end.notice
	return commits
}

// stop is what a /stop changes.
func (p *part) stop() *ledger.Word {
	if p.word != bot.WordStop {
		return nil
	}
	return &ledger.Word{Contact: p.work.Job.Sender, Address: p.work.Job.From, Stop: true}
}
