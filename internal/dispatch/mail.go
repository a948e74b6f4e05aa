package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/crash"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/session"
)

// mail takes one mail from the relay to its end: refused, set aside, or committed and deleted. A mail that has to wait is
// an *overBudget, and on the waitlist.
func (a *actor) mail(ctx context.Context, cursor ledger.Cursor, wokenAt time.Time) error {
	job, err := a.d.opts.Ledger.JobAt(ctx, a.account, cursor)
	switch {
	case err == nil && job.State == ledger.JobFailed:
		return nil
	case err == nil && job.State != ledger.JobAccepted: // the daemon ended between the commit and the deletion
		return a.clear(ctx, job)
	case err != nil && !errors.Is(err, ledger.ErrNotFound):
		return err
	}
	a.worked = true
	a.looked()
	raw, err := a.inbox.Fetch(ctx, cursor.UID, a.d.opts.Bounds.Size)
	switch {
	case errors.Is(err, mailbox.ErrVanished):
		a.log.Info("mail vanished before it was fetched", "uid", cursor.UID)
		return nil
	case errors.Is(err, mailbox.ErrTooLarge):
		return a.refuse(cursor, "too-large", err.Error())
	case err != nil:
		return err
	}
	crash.At(crash.Fetched)
	claim := gate.ReadClaim(raw)
	if job.ID == 0 { // a job was within the budgets when it was accepted
		err = a.admit(ctx, claim, len(raw))
	}
	if err == nil {
		job.Bot, job.Cursor = a.account, cursor
		err = a.decide(ctx, job, raw, session.NewTimeline(wokenAt))
	}
	var over *overBudget
	if errors.As(err, &over) {
		a.waitlist.add(cursor.UID, claim.From, over)
	}
	return err
}

// decide asks the gate and does what it says. A mail that is no job yet, and has no ID, has to be within the budgets.
func (a *actor) decide(ctx context.Context, job ledger.Job, raw []byte, timeline *session.Timeline) error {
	cursor, fresh := job.Cursor, job.ID == 0
	b, err := a.d.opts.Ledger.Bot(ctx, a.account)
	if err != nil {
		return err
	}
	b.Manifest.FromBots = b.Manifest.FromBots && a.d.opts.FromBots
	verdict, err := a.judge(ctx, b, raw)
	if err != nil {
		return err
	}
	timeline.Mark("gate")
	switch verdict.Kind {
	case gate.Refused:
		return a.refuse(cursor, string(verdict.Reason), verdict.Detail)
	case gate.Replay:
		return a.refuse(cursor, string(verdict.Kind), verdict.Detail)
	case gate.Bounce:
		a.log.Warn("a mail of the bot came back", "recipients", verdict.FailedRecipients, "message_id", verdict.OriginalID)
		return a.refuse(cursor, string(verdict.Kind), verdict.Detail)
	}
	crash.At(crash.Passed)
	if verdict.Uncertain {
		a.log.Warn("the gate cannot read what core knows; core decides on this mail", "uid", cursor.UID)
	}
	job = jobOf(job, verdict, int64(len(raw)))
	over, stopped, err := a.heed(ctx, b, job, verdict)
	if over || err != nil {
		return err
	}
	if fresh {
		if err := a.afford(ctx, verdict); err != nil {
			return err
		}
	}
	cpu, dropped, err := a.within(ctx, b, verdict, int64(len(raw)), fresh)
	switch {
	case err != nil:
		return err
	case dropped:
		return a.refuse(cursor, "over-limit", "the contact has reached a limit, and the manifest drops what is over")
	}
	if fits, err := a.d.opts.Sessions.Fits(b, a.d.opts.Bounds.Unpacked(int64(len(raw)))); err != nil {
		return err
	} else if !fits {
		a.log.Error("core's account is nearly full: a large mail has to wait", "uid", cursor.UID, "bytes", len(raw))
		return &overBudget{need: need{whose: "account"}, until: time.Now().Add(time.Hour)}
	}
	if job, err = a.d.opts.Ledger.Accept(ctx, job); err != nil {
		return err
	}
	crash.At(crash.Accepted)
	message := verdict.Kind == gate.Message && !stopped // of who has stopped the bot core alone learns, where it has to
	err = a.work(ctx, session.Work{Bot: b, Job: job, Mail: raw, Message: message, CPU: cpu, Timeline: timeline})
	if err == nil && verdict.Announces != "" && a.waitlist.awaits(verdict.Announces) {
		a.waiting = time.Millisecond
	}
	return err
}

// jobOf fills in what a mail turned out to be.
func jobOf(job ledger.Job, v gate.Verdict, size int64) ledger.Job {
	job.Kind, job.Sender, job.From, job.MessageID, job.Announces, job.Size = string(v.Kind), v.Sender, v.From, v.MessageID, v.Announces, size
	return job
}

// announceTime is how long the second mail of a large message waits for the first, without which core loses its text.
const announceTime = time.Minute

// afford takes a mail that the gate let pass from the budgets after decryption.
func (a *actor) afford(ctx context.Context, v gate.Verdict) error {
	if v.Announced && !a.waitlist.waited(v.MessageID) && !a.announced(ctx)(v.MessageID) {
		return &overBudget{need: need{whose: "first part"}, until: time.Now().Add(announceTime), announced: v.MessageID}
	}
	known := v.Kind == gate.Own
	if v.Sender != "" && !known {
		var err error
		if known, err = a.d.opts.Ledger.KnowsSender(ctx, a.account, v.Sender); err != nil {
			return err
		}
	}
	if over := a.budget.session(known, v.Uncertain); over != nil {
		return over
	}
	return nil
}

// announced returns a function that reports whether a mail that announces another was worked off. Where the ledger fails, the mail
// is looked at, and that tells.
func (a *actor) announced(ctx context.Context) func(messageID string) bool {
	return func(messageID string) bool {
		there, err := a.d.opts.Ledger.Announced(ctx, a.account, messageID)
		return there || err != nil
	}
}

func (a *actor) judge(ctx context.Context, b ledger.Bot, raw []byte) (gate.Verdict, error) {
	keys, err := a.keys(b)
	if err != nil {
		return gate.Verdict{}, err
	}
	var lookup error
	verdict := gate.Check(raw, keys, func(sender bot.Fingerprint, messageID string) bool {
		done, err := a.d.opts.Ledger.Finished(ctx, a.account, sender, messageID)
		lookup = errors.Join(lookup, err)
		return done
	}, a.d.opts.Bounds)
	return verdict, lookup
}

// keys parses what the gate knows once for every generation of core's account. A bot that is installed again begins to count
// its generations anew.
func (a *actor) keys(b ledger.Bot) (*gate.Keys, error) {
	of := keysOf{b.Account, b.Fingerprint, b.Installed.UnixMicro(), b.Manifest.Contact}
	if a.gateKeys != nil && a.keysOf == of {
		return a.gateKeys, nil
	}
	secret, err := a.d.opts.Keys.Keys(a.account)
	if err != nil {
		return nil, fmt.Errorf("the bot's key: %w", err)
	}
	state := b.State
	state.SelfKeys = secret
	keys, err := gate.NewKeys(a.account, state)
	if err != nil {
		return nil, fmt.Errorf("the gate's keys: %w", err)
	}
	if inviter, token, ok := bot.JoinableInvite(b.Manifest.Contact); ok { // the author's, which Setup has the bot accept
		keys.Expect(inviter, token)
	}
	a.gateKeys, a.keysOf = keys, of
	return keys, nil
}

// refuse remembers a mail to be counted and deleted. It is never answered.
func (a *actor) refuse(cursor ledger.Cursor, reason, detail string) error {
	a.refused = append(a.refused, ledger.Refusal{Cursor: cursor, Reason: reason})
	a.log.Info("mail refused", "uid", cursor.UID, "reason", reason, "detail", detail)
	return nil
}

// dropRefused counts the refused mails and then deletes them, many at a time: a flood of junk costs few writes to the disk.
func (a *actor) dropRefused(ctx context.Context) error {
	if len(a.refused) == 0 {
		return nil
	}
	if err := a.d.opts.Ledger.Refused(ctx, a.account, a.refused...); err != nil {
		return err
	}
	var uids []uint32
	for _, r := range a.refused {
		uids = append(uids, r.Cursor.UID)
	}
	a.refused = nil
	return a.inbox.Delete(ctx, uids...)
}

// work runs the session of an accepted job, submits what it left in the outbox and clears the mail away.
func (a *actor) work(ctx context.Context, w session.Work) error {
	if err := a.dropRefused(ctx); err != nil { // a session may take long
		return err
	}
	w.Lend = a.d.opts.Slots.Lend
	var committed bool
	memory, err := a.d.opts.Sessions.Memory(w.Bot)
	if err != nil {
		return err
	}
	all := a.several(&w)
	defer all.release()
	running, done := a.hurried(ctx)
	said, over := a.sends(ctx)
	w.Said = said
	err = a.d.opts.Slots.Do(running, a.account, memory, func() (err error) {
		all.began = time.Now()
		committed, err = a.session(running, w, all)
		return err
	})
	done()
	over()
	if err != nil || !committed {
		return err
	}
	if err := a.flush(ctx); err != nil {
		a.log.Warn("the reply waits in the outbox", "err", err)
	}
	return a.clear(ctx, all.jobs...)
}

// sends returns a function that has the outbox flushed beside the session that says something at once, and one that ends this when nothing
// is on its way any more. While it goes on this goroutine must not tell the author of failures, as in Ledger.FailuresTold.
func (a *actor) sends(ctx context.Context) (said, over func()) {
	news := make(chan struct{}, 1)
	var sender sync.WaitGroup
	sender.Go(func() {
		for range news {
			if err := a.flush(ctx); err != nil {
				a.log.Warn("what the bot has said waits in the outbox", "err", err)
			}
		}
	})
	said = func() {
		select {
		case news <- struct{}{}:
		default:
		}
	}
	return said, func() { close(news); sender.Wait() }
}

// clearTime is how long the daemon, when it is told to end, waits until the mail of a committed job is deleted: with a ledger that was
// restored from before the commit, it would be answered again.
const clearTime = 5 * time.Second

// clear deletes the mails of committed jobs from the relay.
func (a *actor) clear(ctx context.Context, jobs ...ledger.Job) error {
	ctx, cancel := lingering(ctx, clearTime)
	defer cancel()
	var uids []uint32
	for _, job := range jobs {
		uids = append(uids, job.Cursor.UID)
	}
	if err := a.inbox.Delete(ctx, uids...); err != nil {
		return err
	}
	crash.At(crash.Deleted)
	var err error
	for _, job := range jobs { // once the mail is deleted, no look at the INBOX reminds of the job
		err = errors.Join(err, a.owe(ctx, func(ctx context.Context) error { return a.d.opts.Ledger.Cleared(ctx, job.ID) }))
	}
	if err != nil {
		return err
	}
	crash.At(crash.Cleared)
	return nil
}

// clearOld notes, at the first look, that the mail of a committed job is not in the INBOX: the daemon before this one ended between the
// deletion and the note of it. What is there is cleared as any other.
func (a *actor) clearOld(ctx context.Context, validity uint32) error {
	if a.old {
		return nil
	}
	jobs, err := a.d.opts.Ledger.Jobs(ctx, a.account, ledger.JobCommitted)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		next, err := a.inbox.List(ctx, job.Cursor.UID-1, 1)
		if err != nil {
			return err
		}
		if job.Cursor.UIDValidity == validity && len(next) > 0 && next[0].UID == job.Cursor.UID {
			continue
		}
		if err := a.d.opts.Ledger.Cleared(ctx, job.ID); err != nil {
			return err
		}
	}
	a.old = true
	return nil
}

// session runs the session of a job, and of all that it takes besides, and reports whether it was committed. A mail that was set aside is not.
func (a *actor) session(ctx context.Context, w session.Work, all *several) (committed bool, err error) {
	attempts, err := a.d.opts.Ledger.Attempt(ctx, w.Job.ID)
	if err != nil {
		return false, err
	}
	if attempts > a.d.opts.MaxAttempts {
		a.log.Error("mail set aside: its sessions keep failing", "uid", w.Job.Cursor.UID, "attempts", attempts-1)
		record := bot.RunRecord{Status: bot.RunInternal, Message: fmt.Sprintf("set aside after %d attempts", attempts-1)}
		return false, a.d.opts.Ledger.Fail(ctx, []int64{w.Job.ID}, record, true)
	}
	w.Job.Attempts, w.Retry = attempts, attempts < a.d.opts.MaxAttempts
	crash.At(crash.Attempted)
	a.d.opts.Outbox.Prepare(ctx, a.account) // the login takes about as long as the session
	outcome, err := a.d.opts.Sessions.Run(ctx, w)
	var undone *session.Undone
	if errors.As(err, &undone) {
		return false, all.undone(ctx, undone)
	}
	if err != nil {
		return false, a.failed(ctx, w, err)
	}
	for i, o := range append([]session.Outcome{outcome}, outcome.More...) {
		a.d.opts.Done(o)
		if o.Word != "" {
			a.answerLate(ctx, all.jobs[i], o.Word)
		}
	}
	return true, nil
}

// retryAfter is how long a run that is to be tried again waits the first time; then four times as long each time. With five attempts
// the last is about 21 minutes after the first.
const retryAfter = 15 * time.Second

// failed records a session that was not finished. The mail waits for the next turn. Only what the mail may have caused counts
// against it.
func (a *actor) failed(ctx context.Context, w session.Work, cause error) error {
	stopped := ctx.Err() != nil
	ctx = context.WithoutCancel(ctx)
	var again *session.Again
	if errors.As(cause, &again) {
		return a.tryLater(ctx, w.Job, again.Record)
	}
	record := bot.RunRecord{Status: bot.RunInternal, Message: cause.Error()}
	var spent *session.Spent
	if errors.As(cause, &spent) {
		record.CPU, record.AtOnce = spent.CPU, spent.AtOnce
	}
	if record.AtOnce > 0 && !stopped {
		return a.tryLater(ctx, w.Job, record) // what was said is said anew each time: that has an end, whoever is at fault
	}
	if stopped || !errors.Is(cause, session.ErrMail) {
		// Not forgiven for want of space, five times, the mail would be set aside.
		cause = errors.Join(cause, a.owe(ctx, func(ctx context.Context) error { return a.d.opts.Ledger.Forgive(ctx, w.Job.ID) }))
	}
	if stopped {
		return cause
	}
	return errors.Join(cause, a.d.opts.Ledger.Fail(ctx, []int64{w.Job.ID}, record, false))
}

// tryLater has a mail wait for its next attempt, and with it all mail of its sender.
func (a *actor) tryLater(ctx context.Context, job ledger.Job, record bot.RunRecord) error {
	pause := retryAfter << (2 * (job.Attempts - 1))
	a.log.Info("the run is tried again later", "uid", job.Cursor.UID, "in", pause, "attempt", job.Attempts, "message", record.Message)
	over := &overBudget{need: need{whose: "another try"}, until: time.Now().Add(pause), contact: contactOf(job.Sender, job.From)}
	return errors.Join(a.d.opts.Ledger.Fail(ctx, []int64{job.ID}, record, false), over)
}

// lingering is a context that ends some time after its parent.
func lingering(ctx context.Context, grace time.Duration) (context.Context, func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}
