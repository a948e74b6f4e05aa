// Package dispatch decides what happens when: one goroutine owns one bot and does everything that concerns it in order (its
// Bot folder, its waiting mail, its outgoing mail); a fixed number of sessions runs on the host at a time.
//
// Promises:
//   - A wake never blocks and never gets lost: it is remembered until the bot's goroutine has looked.
//   - Mail of one bot is worked off in the order of its UIDs, but for what waits; of one address always. A mail leaves the relay's INBOX only when the ledger says that it
//     is over: refused and counted, or committed.
//   - A session may take up to eight texts that wait for its bot (several.go): by one core, each with a program of its own, and committed
//     together. What is anything else, may change how others are judged, or was tried before, has a session of its own; and so has each
//     mail of one that was undone since a run of it failed, or the host did.
//   - A failure of the host's (relay away, sandbox broken, disk full) keeps the mail where it is and is tried again with backoff,
//     without end. A mail on which core failed, or the daemon died, MaxAttempts times is set aside: it stays in the INBOX, no
//     session touches it, and those behind it have their turn.
//   - A run that asks for it (exit code 75), or that the host's want of memory killed, is tried again after 15 s, 1, 4 and 16 min;
//     mail of the same contact waits behind it. The fifth failure is final, as is any other of the bot's.
//   - Over a budget (Budgets), mail waits in the INBOX before anything is spent on it; it is never dropped for that, and holds up
//     nothing but what comes after it from the same address. So does mail for which core's account has no room, for an hour;
//     smaller mail goes on. So does the second mail of a large message that comes before its first, for a minute.
//   - Over a limit of the ledger's (Limits), mail waits in the INBOX until there is room again; that of a contact is dropped instead if
//     the manifest says so. The contact is told once an hour at most, the bot's author once a day. No run takes more CPU time than its
//     bot has left.
//   - Mail of a bot that the operator has paused stays where it is; each is looked at once, for the host's commands, which are
//     answered as ever.
//   - The host's commands (bot.Word) start nothing, and wait for no limit. Each contact gets so many answers and no more; a /stop counts
//     also where it is not answered, and what waits of the contact is over with it.
//   - A bot with schedules is run for each instant once (package schedule), after the mail that waits for it, unless that takes for longer
//     than five minutes; under the same budgets, limits, slots and retries, and not while it is paused. What was missed is run once, late.
//     A clock that was set is noticed within a minute.
//   - Over the limit of all bots together (HostCPU), the mail of all waits, and so do their schedules.
//   - The memory that the sandboxes of all sessions under way may take together is bounded by Slots.
//   - The mail that is in memory, of all bots together, is bounded by Memory.
//   - A bot for which there is nothing to do holds no connection to the relay; the last one of a bot that had mail is closed after
//     IdleClose. At most Looks bots look at a time whether there is something to do.
//   - Sessions wait for one of Slots. The bot that has held slots for the least time lately goes first, so that one with a thousand mails
//     is ahead of one with a single mail by one session at most; who has waited for a minute goes before that. A session that only
//     waits for the pace of its bot's disk lends its slot.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/session"
)

// Inbox is a connection to the relay for one account.
type Inbox interface {
	Select(ctx context.Context, folder string) (mailbox.Status, error)
	List(ctx context.Context, after uint32, limit int) ([]mailbox.Message, error)
	Fetch(ctx context.Context, uid uint32, max int64) ([]byte, error)
	Delete(ctx context.Context, uids ...uint32) error
	Close() error
}

// Folder handles what lies in the Bot folder of an account: bundles and wishes to uninstall. Tell answers into it which mail the
// relay has refused for good, if any was and it is time; it returns when to call again, zero for after the next flush.
type Folder interface {
	Process(ctx context.Context, account bot.Address, inbox Inbox) error
	Tell(ctx context.Context, account bot.Address, connect func(context.Context) (Inbox, error)) (time.Time, error)
}

// Ledger is what dispatch needs of the ledger.
type Ledger interface {
	Bot(ctx context.Context, account bot.Address) (ledger.Bot, error)
	Paused(ctx context.Context, account bot.Address) (ledger.Pause, bool, error)
	JobAt(ctx context.Context, account bot.Address, cursor ledger.Cursor) (ledger.Job, error)
	Accept(ctx context.Context, job ledger.Job) (ledger.Job, error)
	Attempt(ctx context.Context, job int64) (int, error)
	Forgive(ctx context.Context, job int64) error
	Refused(ctx context.Context, account bot.Address, refusals ...ledger.Refusal) error
	Finished(ctx context.Context, account bot.Address, sender bot.Fingerprint, messageID string) (bool, error)
	Announced(ctx context.Context, account bot.Address, messageID string) (bool, error)
	KnowsAddress(ctx context.Context, account, from bot.Address) (bool, error)
	KnowsSender(ctx context.Context, account bot.Address, sender bot.Fingerprint) (bool, error)
	Fail(ctx context.Context, jobs []int64, run bot.RunRecord, setAside bool) error
	Abandon(ctx context.Context, job int64, why string) error
	Cleared(ctx context.Context, job int64) error
	Jobs(ctx context.Context, account bot.Address, state ledger.JobState) ([]ledger.Job, error)
	Exceeds(ctx context.Context, account bot.Address, limits ...ledger.Limit) (*ledger.Exceeded, error)
	Used(ctx context.Context, account bot.Address, s ledger.Subject, r ledger.Resource, span time.Duration) (int64, error)
	Standings(ctx context.Context, account bot.Address, limits ...ledger.Limit) ([]ledger.Standing, error)
	MayNoticeLimit(ctx context.Context, account bot.Address, to ...ledger.Subject) (bool, error)
	Answer(ctx context.Context, a ledger.Answer) error
	Stopped(ctx context.Context, account bot.Address, contact bot.Fingerprint, from bot.Address) (bool, error)
	NoticeLimit(ctx context.Context, a ledger.Answer, to ...ledger.Subject) (bool, error)
	Consents(ctx context.Context, account bot.Address, contact bot.Fingerprint) (bool, error)
	Overran(ctx context.Context, account bot.Address, why string, at time.Time) error
	Schedules(ctx context.Context, account bot.Address) ([]ledger.Schedule, error)
	PlanSchedule(ctx context.Context, account bot.Address, i ledger.Instant) error
	AttemptSchedule(ctx context.Context, account bot.Address, i ledger.Instant) (int, error)
	ForgiveSchedule(ctx context.Context, account bot.Address, i ledger.Instant) error
	FailSchedule(ctx context.Context, account bot.Address, i ledger.Instant, run bot.RunRecord, giveUp bool) error
}

// Sessions runs one session from the mail to the commit.
type Sessions interface {
	Run(ctx context.Context, work session.Work) (session.Outcome, error)
	Fits(b ledger.Bot, unpacked int64) (bool, error) // whether core's account has room for that many bytes more
	Memory(b ledger.Bot) (int64, error)              // bytes that a session's sandboxes may take
}

// Outbox submits what sessions committed, and keeps what the host itself says until then.
type Outbox interface {
	Stage(data []byte) (path string, err error)
	Discard(path string) error
	Prepare(ctx context.Context, account bot.Address) // a session is about to begin
	Flush(ctx context.Context, account bot.Address) error
	Next(account bot.Address) (time.Time, bool)
}

// Keys are the bots' secret keys.
type Keys interface {
	Keys(account bot.Address) ([][]byte, error)
}

// Options wire a Dispatcher.
type Options struct {
	Dial        func(ctx context.Context, account bot.Address) (Inbox, error)
	Folder      Folder
	Ledger      Ledger
	Sessions    Sessions
	Outbox      Outbox
	Keys        Keys
	Bounds      gate.Bounds
	Slots       Slots
	Memory      int64 // bytes of mail that the host holds at a time, of all bots
	Budgets     Budgets
	Limits      Limits
	FromBots    bool             // messages of bots wake those whose manifests ask for them
	HostCPU     *HostCPU         // nil: no bound
	MaxAttempts int              // of one mail on which core fails or the daemon dies
	Backoff     time.Duration    // the pause after a first failure; it doubles up to 5 min
	IdleClose   time.Duration    // after this long without mail the connection to the relay is closed
	Looks       int              // how many bots may look at a time whether there is something to do; each holds a connection
	ScheduleGap time.Duration    // the operator's, between two runs that schedules cause
	Now         func() time.Time // the time of day, for schedules; nil: time.Now
	Done        func(session.Outcome)
	Log         *slog.Logger
}

// tellAgain is how long after a failure the author is told again of what has failed.
const tellAgain = 5 * time.Minute

// Wake says what changed.
type Wake int

// What a wake is about.
const (
	WakeInbox  Wake = 1 << iota // new mail in the INBOX
	WakeFolder                  // a change of the Bot folder
)

// Dispatcher owns the goroutines of all bots.
type Dispatcher struct {
	opts  Options
	host  lanes               // the host's budget
	held  *semaphore.Weighted // bytes of mail in memory, of Memory
	looks *semaphore.Weighted // bots that look whether there is something to do, of Looks

	mu     sync.Mutex
	actors map[bot.Address]*actor
	closed bool
	group  sync.WaitGroup
}

// New makes a Dispatcher without bots.
func New(opts Options) *Dispatcher {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Dispatcher{
		opts: opts, host: opts.Budgets.Host.lanes(), held: semaphore.NewWeighted(opts.Memory), looks: semaphore.NewWeighted(int64(opts.Looks)),
		actors: map[bot.Address]*actor{},
	}
}

// Wake tells the goroutine of account that something changed, and starts that goroutine when there is none yet. It never
// blocks. ctx ends the goroutine, not the wake.
func (d *Dispatcher) Wake(ctx context.Context, account bot.Address, what Wake) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.locked(ctx, account)
	if d.closed {
		return
	}
	if a.wakes == 0 {
		a.wokenAt = time.Now()
	}
	a.wakes |= what
	select {
	case a.signal <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) newActor(account bot.Address) *actor {
	return &actor{
		d: d, account: account, signal: make(chan struct{}, 1), chores: make(chan func()), budget: newBudget(d.opts.Budgets, d.host),
		retries: map[string]retry{}, log: d.opts.Log.With("bot", account),
	}
}

// Wait takes no more wakes and returns when all goroutines have ended, which they do when their context ends.
func (d *Dispatcher) Wait() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.group.Wait()
}

// keysOf says which state of which installation the parsed keys are of.
type keysOf struct {
	generation  bot.Generation
	fingerprint bot.Fingerprint
	installed   int64
	contact     string // of the manifest
}

// actor is the one goroutine of one bot.
type actor struct {
	d       *Dispatcher
	account bot.Address
	signal  chan struct{}
	chores  chan func() // of Do
	log     *slog.Logger

	wakes   Wake // this and the next three are guarded by Dispatcher.mu
	wokenAt time.Time
	end     func() // ends the session under way, or its waiting; nil where there is none
	hurries int    // callers of DoNow

	inbox      Inbox
	current    mailbox.Message   // is worked on
	queue      []mailbox.Message // come after it in the INBOX, as far as they were listed
	aloneUntil time.Time         // sessions take one mail each

	failures int  // turns in a row that failed
	worked   bool // the last look found mail to work on
	looking  bool // holds one of Dispatcher.looks
	budget   *budget
	waitlist waitlist
	refused  []ledger.Refusal                 // to be counted and deleted
	old      bool                             // jobs that a daemon before this one has not cleared are
	unpaid   []func(context.Context) error    // what the ledger could not take down, to be done in the next turn
	waiting  time.Duration                    // until mail that waits may be looked at; 0: none does
	tellAt   time.Time                        // when the author is to be told of what has failed; zero: nothing is known of any
	words    map[ledger.Subject]*rate.Limiter // of the host's own answers
	heard    heard                            // of a bot that is paused
	plan     plan                             // of its schedules
	retries  map[string]retry                 // of schedules
	clash    clash
	gateKeys *gate.Keys
	keysOf   keysOf
}

func (a *actor) take() (Wake, time.Time) {
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	wakes := a.wakes
	a.wakes = 0
	return wakes, a.wokenAt
}

// again puts wakes back that a failed turn has not worked off.
func (a *actor) again(wakes Wake) {
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	a.wakes |= wakes
}

func (a *actor) serve(ctx context.Context) {
	defer a.hangUp()
	defer a.looked()
	for ctx.Err() == nil {
		wakes, at := a.take()
		err := a.turn(ctx, wakes, at)
		if err != nil || !a.worked {
			a.hangUp()
		}
		a.looked()
		if err == nil || ctx.Err() != nil {
			a.failures = 0
			a.rest(ctx)
			continue
		}
		a.again(wakes)
		a.failures++
		pause := a.backoff()
		a.log.Warn("will try again", "in", pause.Round(time.Millisecond), "failures", a.failures, "err", err)
		a.sleep(ctx, pause)
	}
}

// sleep waits out a backoff. A wake does not shorten it; it is remembered. What Do wants is done meanwhile.
func (a *actor) sleep(ctx context.Context, d time.Duration) {
	over := time.After(d)
	for {
		select {
		case <-over:
			return
		case f := <-a.chores:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// rest returns at the next wake, when the outbox, a schedule or mail over a budget is due, or when ctx ends.
func (a *actor) rest(ctx context.Context) {
	var due, over, idle, tell <-chan time.Time
	if at, ok := a.d.opts.Outbox.Next(a.account); ok {
		due = time.After(time.Until(at))
	}
	if a.waiting > 0 {
		over = time.After(a.waiting)
	}
	if !a.tellAt.IsZero() {
		tell = time.After(time.Until(a.tellAt))
	}
	if a.inbox != nil {
		idle = time.After(a.d.opts.IdleClose)
	}
	tick := a.plan.tick(a.d.now())
	for {
		select {
		case <-a.signal:
			return
		case f := <-a.chores:
			f()
			return
		case <-due:
			return
		case <-tell:
			return
		case <-tick:
			if a.plan.reached(a.d.now()) {
				return
			}
			tick = a.plan.tick(a.d.now())
		case <-over:
			a.again(WakeInbox)
			return
		case <-ctx.Done():
			return
		case <-idle:
			a.hangUp()
			idle = nil
		}
	}
}

// backoff doubles with every failure, with a jitter of half of it.
func (a *actor) backoff() time.Duration {
	d := min(a.d.opts.Backoff<<min(a.failures-1, 20), 5*time.Minute)
	return d/2 + rand.N(d/2+1)
}

func (a *actor) hangUp() {
	if a.inbox == nil {
		return
	}
	if err := a.inbox.Close(); err != nil {
		a.log.Debug("closing the connection to the relay", "err", err)
	}
	a.inbox = nil
}

// turn works off everything that waits for this bot.
func (a *actor) turn(ctx context.Context, wakes Wake, wokenAt time.Time) error {
	if err := a.pay(ctx); err != nil {
		return err
	}
	if wakes != 0 {
		a.worked = false
		if err := a.connect(ctx); err != nil {
			return err
		}
	}
	var folderErr error // does not keep the running version from its mail
	if wakes&WakeFolder != 0 {
		if err := a.d.opts.Folder.Process(ctx, a.account, a.inbox); err != nil {
			folderErr = fmt.Errorf("the Bot folder: %w", err)
			a.hangUp() // an append that is refused, since the account is full, ends the connection
			if err := a.connect(ctx); err != nil {
				return errors.Join(folderErr, err)
			}
		}
	}
	if wakes != 0 {
		if err := a.mails(ctx, wokenAt); err != nil {
			return errors.Join(folderErr, err)
		}
	}
	if err := a.scheduled(ctx); err != nil {
		return errors.Join(folderErr, err)
	}
	err := a.flush(ctx)
	if a.tell(ctx) && err == nil {
		err = a.flush(ctx)
	}
	return errors.Join(folderErr, err)
}

// tell lets the author know what has failed, and reports whether there may be a mail to send. That it fails, since the relay is away or
// the mailbox full, holds nothing else up.
func (a *actor) tell(ctx context.Context) bool {
	var err error
	told := false
	a.tellAt, err = a.d.opts.Folder.Tell(ctx, a.account, func(ctx context.Context) (Inbox, error) {
		told = true
		err := a.connect(ctx)
		return a.inbox, err
	})
	if err != nil && ctx.Err() == nil {
		a.tellAt = time.Now().Add(tellAgain)
		a.log.Warn("the author could not be told of what has failed", "again_in", tellAgain, "err", err)
		a.hangUp()
	}
	return told
}

func (a *actor) connect(ctx context.Context) error {
	if a.inbox != nil {
		return nil
	}
	if err := a.look(ctx); err != nil {
		return err
	}
	inbox, err := a.d.opts.Dial(ctx, a.account)
	if err != nil {
		return err
	}
	a.inbox = inbox
	return nil
}

// look waits until few enough others look at what there is. It ends with looked, which is when there is mail to work on, or nothing.
func (a *actor) look(ctx context.Context) error {
	if a.looking {
		return nil
	}
	err := a.d.looks.Acquire(ctx, 1)
	a.looking = err == nil
	return err
}

func (a *actor) looked() {
	if a.looking {
		a.d.looks.Release(1)
	}
	a.looking = false
}

func (a *actor) flush(ctx context.Context) error {
	if err := a.d.opts.Outbox.Flush(ctx, a.account); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// mails works off the INBOX. What no bot is installed for stays there.
func (a *actor) mails(ctx context.Context, wokenAt time.Time) error {
	a.waiting = 0
	if _, err := a.d.opts.Ledger.Bot(ctx, a.account); errors.Is(err, ledger.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	status, err := a.inbox.Select(ctx, "INBOX")
	if err != nil {
		return err
	}
	if err := a.clearOld(ctx, status.UIDValidity); err != nil {
		return err
	}
	a.waitlist.begin(status.UIDValidity)
	defer a.waitlist.end()
	a.refused = nil // what a failed turn has left is judged again
	var after uint32
	paused := false
	for !a.waitlist.full() {
		waiting, err := a.inbox.List(ctx, after, 100)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			a.waitlist.complete()
			break
		}
		after = waiting[len(waiting)-1].UID
		for a.queue = waiting; len(a.queue) > 0; wokenAt = time.Now() {
			m := a.queue[0]
			a.current, a.queue = m, a.queue[1:]
			if done, err := a.interrupted(ctx); done || err != nil {
				return err
			}
			if !paused { // once is for all of this look: what was passed over is not to come after what is behind it
				if paused, err = a.paused(ctx); err != nil {
					return errors.Join(err, a.dropRefused(ctx))
				}
			}
			if a.overdue() {
				if err := a.scheduled(ctx); err != nil {
					return err
				}
			}
			if err := a.next(ctx, ledger.Cursor{UIDValidity: status.UIDValidity, UID: m.UID}, m.Size, paused, wokenAt); err != nil {
				return fmt.Errorf("mail %d: %w", m.UID, err)
			}
		}
		if err := a.dropRefused(ctx); err != nil {
			return err
		}
	}
	for whose, n := range a.waitlist.added {
		a.log.Info("mail waits: over a budget", "budget", whose, "mails", n, "for", a.waiting.Round(time.Second))
	}
	return nil
}

// owe does something to the ledger: now or, where the disk is full or fails, in the next turn, before anything else.
func (a *actor) owe(ctx context.Context, do func(context.Context) error) error {
	err := do(ctx)
	if err != nil && !errors.Is(err, ledger.ErrJobState) {
		a.unpaid = append(a.unpaid, do)
	}
	return err
}

func (a *actor) pay(ctx context.Context) error {
	for len(a.unpaid) > 0 {
		if err := a.unpaid[0](ctx); err != nil && !errors.Is(err, ledger.ErrJobState) { // the bot's jobs may be gone with it
			return err
		}
		a.unpaid = a.unpaid[1:]
	}
	return nil
}

// next works off one mail, or leaves it for later. That of a bot that is paused is only listened to.
func (a *actor) next(ctx context.Context, cursor ledger.Cursor, size int64, paused bool, wokenAt time.Time) error {
	waited := a.waitlist.knows(cursor.UID)
	over := a.waitlist.has(cursor.UID, a.announced(ctx))
	if over != nil {
		a.later(over)
		return nil
	}
	var err error
	if paused {
		err = a.overhear(ctx, cursor, size, waited)
	} else {
		err = a.hold(ctx, size, func() error { return a.mail(ctx, cursor, wokenAt) })
	}
	if errors.As(err, &over) {
		a.later(over)
		return nil
	}
	return err
}

// hold waits until the host has memory for a mail of a size, and calls f.
func (a *actor) hold(ctx context.Context, size int64, f func() error) error {
	weight := a.weight(size)
	if err := a.d.held.Acquire(ctx, weight); err != nil {
		return err
	}
	defer a.d.held.Release(weight)
	return f()
}

// weight is the memory that a mail of a size takes.
func (a *actor) weight(size int64) int64 {
	const least = 64 << 10 // servers may be wrong about a size, and a mail is not all that its work needs
	return min(max(size, least), a.d.opts.Memory)
}

// leastWait is how long the next look at mail that waits for a budget is away: then there is room for more than one.
const leastWait = 2 * time.Second

// later remembers when a mail that has to wait may be looked at.
func (a *actor) later(over *overBudget) {
	wait := max(over.wait(), leastWait)
	if a.waiting == 0 || wait < a.waiting {
		a.waiting = wait
	}
}
