package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/crash"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/session"
)

// What a session may take of the mails of its bot that wait already. The bounds are those of one slot's fair share: where other bots wait
// for a slot, no mail is begun after a second.
const (
	severalMails = 8
	severalBytes = 4 << 20 // received and sent
	severalTime  = 10 * time.Second
	severalShare = time.Second
	aloneTime    = 10 * time.Minute // each mail has a session of its own, after one of several was undone
)

// several are the mails of one session of a bot.
type several struct {
	a     *actor
	bot   ledger.Bot
	jobs  []ledger.Job
	mails []mailbox.Message // those of the jobs
	began time.Time         // of the session
	bytes int64             // of the mails
	room  int64             // that they need in core's account
	held  int64             // bytes of mail in memory, but for the first
}

// several returns the mails of a session that begins with w. Only one that is tried for the first time, for a message, may go on to others.
func (a *actor) several(w *session.Work) *several {
	s := &several{a: a, bot: w.Bot, jobs: []ledger.Job{w.Job}, mails: []mailbox.Message{a.current}, bytes: w.Job.Size}
	s.room = a.d.opts.Bounds.Unpacked(w.Job.Size)
	m := w.Bot.Manifest
	if w.Message && w.Job.Attempts == 0 && !m.AtOnce && m.Mode != bot.ModeMail && len(a.queue) > 0 && time.Now().After(a.aloneUntil) {
		w.Next = s.next
	}
	return s
}

// next is session.Work.Next. What is not surely to be taken stays for later, as if nobody had looked: it is judged when what the session does
// is committed.
func (s *several) next(ctx context.Context, used session.Used) (session.Work, bool) {
	w, err := s.take(ctx, used)
	if err != nil {
		s.a.log.Warn("the session takes no more mail", "err", err)
	}
	if err != nil || w == nil {
		return session.Work{}, false
	}
	return *w, true
}

// take takes the next mail from the queue, or returns nil.
func (s *several) take(ctx context.Context, used session.Used) (*session.Work, error) {
	a := s.a
	if len(a.queue) == 0 || !s.goesOn(a.queue[0], used) {
		return nil, nil
	}
	m := a.queue[0]
	cursor := ledger.Cursor{UIDValidity: a.waitlist.validity, UID: m.UID}
	if _, err := a.d.opts.Ledger.JobAt(ctx, a.account, cursor); !errors.Is(err, ledger.ErrNotFound) {
		return nil, err // it is a job already: it was tried before, or is over
	}
	if paused, err := a.paused(ctx); paused || err != nil {
		return nil, err
	}
	weight := a.weight(m.Size)
	if !a.d.held.TryAcquire(weight) {
		return nil, nil
	}
	w, err := s.judge(ctx, cursor, used)
	if err != nil || w == nil {
		a.d.held.Release(weight)
		return nil, err
	}
	a.queue = a.queue[1:]
	s.mails, s.held = append(s.mails, m), s.held+weight
	return w, nil
}

// goesOn reports whether the session may begin with one more mail.
func (s *several) goesOn(m mailbox.Message, used session.Used) bool {
	ran := time.Since(s.began)
	return len(s.jobs) < severalMails && s.bytes+used.Bytes+m.Size <= severalBytes && ran < severalTime &&
		(ran < severalShare || !s.a.d.opts.Slots.wanted()) && !s.a.waitlist.knows(m.UID)
}

// judge fetches a mail and accepts it, if it is a plain text for the bot and within all limits, also with what the session has used.
func (s *several) judge(ctx context.Context, cursor ledger.Cursor, used session.Used) (*session.Work, error) {
	a, timeline := s.a, session.NewTimeline(time.Now())
	raw, err := a.inbox.Fetch(ctx, cursor.UID, severalBytes)
	if errors.Is(err, mailbox.ErrVanished) || errors.Is(err, mailbox.ErrTooLarge) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	crash.At(crash.Fetched)
	if err := a.admit(ctx, gate.ReadClaim(raw), len(raw)); err != nil {
		return nil, unlessOver(err)
	}
	verdict, err := a.judge(ctx, s.bot, raw)
	if err != nil {
		return nil, err
	}
	timeline.Mark("gate")
	if ok, err := s.takes(ctx, verdict); !ok || err != nil {
		return nil, err
	}
	crash.At(crash.Passed)
	size := int64(len(raw))
	cpu, within, err := s.within(ctx, verdict, size, used)
	if err != nil || !within {
		return nil, err
	}
	room := s.room + a.d.opts.Bounds.Unpacked(size)
	if fits, err := a.d.opts.Sessions.Fits(s.bot, room+used.Bytes); err != nil || !fits {
		return nil, err
	}
	if err := a.afford(ctx, verdict); err != nil {
		return nil, unlessOver(err)
	}
	job, err := a.d.opts.Ledger.Accept(ctx, jobOf(ledger.Job{Bot: a.account, Cursor: cursor}, verdict, size))
	if err != nil {
		return nil, err
	}
	crash.At(crash.Accepted)
	if job.Attempts, err = a.d.opts.Ledger.Attempt(ctx, job.ID); err != nil {
		return nil, err
	}
	crash.At(crash.Attempted)
	s.jobs, s.bytes, s.room = append(s.jobs, job), s.bytes+size, room
	return &session.Work{Bot: s.bot, Job: job, Mail: raw, Message: true, CPU: cpu, Lend: a.d.opts.Slots.Lend, Timeline: timeline}, nil
}

// unlessOver is an error but for that a mail has to wait.
func unlessOver(err error) error {
	if errors.As(err, new(*overBudget)) {
		return nil
	}
	return err
}

// takes reports whether a mail surely is a message that runs the bot or is core's alone, and changes nothing by which others are judged.
func (s *several) takes(ctx context.Context, v gate.Verdict) (bool, error) {
	m := s.bot.Manifest
	if v.Kind != gate.Message || !v.Plain || v.Sender == "" || v.NewSender || v.Uncertain || v.Misplaced || v.Announces != "" || v.Announced {
		return false, nil
	}
	if hostWord(v, m) != "" || idle(v, m) != "" {
		return false, nil
	}
	for _, j := range s.jobs {
		if j.MessageID == v.MessageID {
			return false, nil // the ledger does not know it as a replay yet
		}
	}
	stopped, err := s.a.stopped(ctx, v)
	return !stopped, err
}

// within reports whether limits have room for a mail beside what the session has used, and how much CPU time its run may take; 0 is no bound.
// Nobody is told if they have not: that is for when the session is committed.
func (s *several) within(ctx context.Context, v gate.Verdict, size int64, used session.Used) (cpu time.Duration, ok bool, err error) {
	a := s.a
	if err := a.d.opts.HostCPU.Room(ctx); err != nil {
		return 0, false, unlessOver(err)
	}
	if a.waitlist.of(contactOf(v.Sender, v.From)) != nil {
		return 0, false, nil
	}
	limits := bare(a.d.opts.Limits.ofContact(s.bot.Manifest, v, size))
	for _, l := range bare(a.d.opts.Limits.ofBot(s.bot.Manifest)) {
		if l.Resource == ledger.Bytes {
			l.Need = size
		}
		if l.Most > 0 {
			limits = append(limits, l)
		}
	}
	for i := range limits {
		l := &limits[i]
		switch l.Resource {
		case ledger.Wall:
			l.Need += used.Wall.Microseconds() + 1
		case ledger.CPU:
			l.Need += used.CPU.Microseconds()
		case ledger.Sent:
			l.Need += int64(used.Sent) + 1
		case ledger.Bytes, ledger.SentBytes:
			l.Need += used.Bytes
		}
		if l.Need > l.Most {
			return 0, false, nil
		}
	}
	if over, err := a.d.opts.Ledger.Exceeds(ctx, a.account, limits...); over != nil || err != nil {
		return 0, false, err
	}
	left, err := a.cpuLeft(ctx, s.bot.Manifest)
	if err != nil || left == 0 {
		return 0, err == nil, unlessOver(err)
	}
	return left - used.CPU, left > used.CPU, nil
}

// undone gives each mail of a session that was undone back, to have one of its own.
func (s *several) undone(ctx context.Context, u *session.Undone) error {
	a := s.a
	a.queue = append(s.mails, a.queue...)
	stopped := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx)
	var ids []int64
	var err error
	for _, j := range s.jobs {
		ids = append(ids, j.ID)
		err = errors.Join(err, a.owe(ctx, func(ctx context.Context) error { return a.d.opts.Ledger.Forgive(ctx, j.ID) }))
	}
	if stopped || err != nil {
		return errors.Join(u.Cause, err)
	}
	a.aloneUntil = time.Now().Add(aloneTime)
	a.log.Info("the mails of a session have one each now: nothing of it was kept", "mails", len(ids), "cause", u.Cause)
	record := bot.RunRecord{Status: bot.RunInternal, CPU: u.CPU, Message: fmt.Sprintf("nothing of this session of %d mails was kept, each is worked on by itself: %v", len(ids), u.Cause)}
	err = a.d.opts.Ledger.Fail(ctx, ids, record, false)
	if !u.Failed {
		err = errors.Join(u.Cause, err)
	}
	return err
}

// release gives back what the mails took of the host's memory.
func (s *several) release() { s.a.d.held.Release(s.held) }
