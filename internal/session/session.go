// Package session is one wake of one bot, from a mail that the gate has passed to the commit.
//
// A session is a transaction. Core's account and the bot's folder are immutable generations on disk; the session works on
// copies inside two sandboxes, one for core and one for the bot's program. What they leave is streamed out as new
// generations, and one transaction of the ledger names these together with the run record and the mails to send. Whatever
// dies before that transaction leaves everything as it was, and the mail in the relay's INBOX: the session happens again.
//
// The order of a session's steps:
//
//	open      core's sandbox gets its account, the bot's sandbox its bundle and folder; both start at once
//	present   the minirelay, core's only provider, shows the mail under a new UID
//	message   core says what the mail was: a message that a person wrote, or a webxdc update, runs the bot's handler
//	drain     core has fetched everything, and nothing that it wants to send is left in its queues
//	end       the account's state is read, core ends, both copies are streamed out
//	commit    one transaction
//
// A session for a schedule presents no mail: core starts, and the bot is run at once. It may write to contacts that have consented, as
// ever, and no chat has woken it. If it fails, the commit has the record and the schedule's next instant, and nothing else.
//
// A session may go on with other mails of its bot (Work.Next) before its end: each is presented when core has sent all that the one before
// it made the bot say, and runs a program of its own, on the folder that that one has left. There is one commit for all. If anything goes
// wrong after the first mail, the session ends with Undone: core cannot be set back to where it was before a mail.
//
// A bot that fails (throws, loops, runs out of memory) gets its run recorded, and nothing that it did counts: the session is
// repeated with core alone, so that core knows the mail, and that is committed, with a sentence to the user who wrote. So is a run after
// whose calls core failed (dies, does not answer, is not drained): a mail is at fault only where core fails without the bot.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/crash"
	"mayfly/internal/ledger"
	"mayfly/internal/sandbox"
	"mayfly/internal/storage"
)

// Ledger commits a session, and knows who has consented to be written to, and who was told of what.
type Ledger interface {
	Commit(ctx context.Context, commits ...ledger.Commit) error
	Say(ctx context.Context, addr bot.Address, jobIDs []int64, o ledger.Outgoing) error
	Consents(ctx context.Context, addr bot.Address, contact bot.Fingerprint) (bool, error)
	Stopped(ctx context.Context, addr bot.Address, contact bot.Fingerprint, from bot.Address) (bool, error)
	Noticed(ctx context.Context, addr bot.Address, n ledger.Notice) (time.Time, error)
	AddressOf(ctx context.Context, addr bot.Address, contact bot.Fingerprint) (bot.Address, error)
	Standings(ctx context.Context, addr bot.Address, limits ...ledger.Limit) ([]ledger.Standing, error)
	Exceeds(ctx context.Context, addr bot.Address, limits ...ledger.Limit) (*ledger.Exceeded, error)
	ContactAt(ctx context.Context, addr, address bot.Address) (bot.Fingerprint, error)
}

// Outbox keeps the bodies of outgoing mail until they are submitted.
type Outbox interface {
	Stage(data []byte) (path string, err error)
	Discard(path string) error
	DiscardUnnamed(ctx context.Context, paths []string) error
}

// Keys keeps the bots' secret keys, which the gate needs.
type Keys interface {
	Keys(account bot.Address) ([][]byte, error) // wraps keystore.ErrNotFound
	PutKeys(account bot.Address, keys [][]byte) error
}

// Limits bound a session. Those of the bot's run come from its manifest.
type Limits struct {
	CoreMemory  int64         // bytes, of core and the account reader together
	CoreAccount int64         // bytes of core's account folder
	CoreWall    time.Duration // of the whole session
	Incoming    time.Duration // how long core may take to say what a mail was
	Drain       time.Duration // how long core may take to send what it has queued
	Tmpfs       int64         // bytes of each of the bot's folders in the sandbox but its own
	Folder      int64         // bytes of all files of a bot's own folder
	Change      int64         // bytes of the files of that folder which one run changes
	Pids        int
	Log         int // bytes of the bot's log that are kept
	Sending     bot.Sending
	Most        bot.Limits // the operator's, also for bots that were installed under others; what is 0 is no bound
}

// DefaultLimits fit a relay with 1 GB of memory and two sessions at a time.
func DefaultLimits() Limits {
	return Limits{
		CoreMemory: 256 << 20, CoreAccount: 200 << 20, CoreWall: 90 * time.Second, Incoming: 30 * time.Second, Drain: 15 * time.Second,
		Tmpfs: 32 << 20, Folder: storage.DefaultQuota, Change: storage.DefaultChange, Pids: 64, Log: 64 << 10,
	}
}

// Options wire a Runner.
type Options struct {
	Sandboxes *sandbox.Client
	Core      string // path of deltachat-rpc-server
	Storage   *storage.Store
	Ledger    Ledger
	Outbox    Outbox
	Keys      Keys
	Limits    Limits
	Pacer     *storage.Pacer // of what bots write into their folders
	Log       *slog.Logger

	CoreVersion  string            // what core says of itself, for bots that ask deltachat-rpc-server --version
	Interpreters map[string]string // the paths, below /usr, of those that native bots may name
	Landlock     bool              // nothing runs where the kernel has no Landlock
	Engine       string            // name and version of the engine for WASM: what was compiled by another one is compiled anew
}

// Runner runs sessions. It may run sessions of different bots at the same time.
type Runner struct {
	Options
	doubtful doubtful
}

// New makes a Runner.
func New(o Options) *Runner { return &Runner{Options: o} }

// Work is one session to run.
type Work struct {
	Bot      ledger.Bot
	Job      ledger.Job
	Mail     []byte
	Schedule *Schedule     // what the bot is run for instead of a mail; nil: there is a mail
	Message  bool          // the gate says that it may be a message: the bot may run; otherwise core is alone
	CPU      time.Duration // what is left of the bot's CPU time; 0: no bound but a run's own
	Retry    bool          // a run may be tried again later: the session ends with Again
	Timeline *Timeline

	// Lend, if it is set, is called when the bot's program has ended and the session will do nothing for a while but keep the pace of its
	// disk: its place among the sessions may be another's until back is called, which may wait.
	Lend func() (back func())

	// Next, if it is set, gives another mail of the same bot, whose Work has no Next, to a session that goes well; it knows what the session
	// has used. All that the session does is committed together. It is not for bots that reply at once.
	Next func(ctx context.Context, used Used) (Work, bool)

	Said func() // is called when what a bot that replies at once has said is in the outbox
}

// Outcome is a committed session.
type Outcome struct {
	Bot      bot.Address
	Job      int64
	Run      *bot.RunRecord // nil: no run
	Core     sandbox.Result // its CPU time is what the mail took
	Sent     int            // mails put into the outbox, those said at once included
	Word     bot.Word       // of the host's that the message turned out to be: it waits for its answer
	Timeline *Timeline
	More     []Outcome // of the other mails of the session
}

// Run runs and commits one session. An error is the host's, or Again, or Undone: nothing was committed, and the session may be run again.
func (r *Runner) Run(ctx context.Context, w Work) (Outcome, error) {
	w.Bot.Manifest.Limits = w.Bot.Manifest.Limits.Within(r.Limits.Most)
	started := time.Now()
	outcome, err := r.attempt(ctx, w, nil)
	var failed *runFailed
	if !errors.As(err, &failed) {
		return outcome, err
	}
	failed.record.Schedule = w.Schedule.cron()
	r.Log.Info("the bot failed; nothing that it did counts", "bot", w.Bot.Address, "uid", w.Job.Cursor.UID,
		"status", failed.record.Status, "message", failed.record.Message)
	if failed.again(w) {
		return Outcome{}, &Again{failed.record}
	}
	if w.Schedule != nil {
		return r.commitFailed(ctx, w, failed, started)
	}
	w.Message = false
	outcome, err = r.attempt(ctx, w, failed)
	if err != nil {
		err = &Spent{err, failed.record.CPU, failed.record.AtOnce}
	}
	return outcome, err
}

// Spent is an error of a session in which the bot's program had used CPU time, or said something that is sent at once. They count, though
// nothing was committed.
type Spent struct {
	Cause  error
	CPU    time.Duration
	AtOnce int
}

func (s *Spent) Error() string { return s.Cause.Error() }
func (s *Spent) Unwrap() error { return s.Cause }

// Again ends a session that was not committed: its run asked for another try later, or died of something that was not its own doing.
type Again struct{ Record bot.RunRecord }

func (a *Again) Error() string { return "to be run again later: " + a.Record.Message }

// exitTempFail is EX_TEMPFAIL of sysexits.h.
const exitTempFail = 75

// again reports whether a failed run is worth another one. With exit code 75 the program says so. SIGKILL, where no limit of the run's
// own was passed, is most likely the kernel's, for want of the host's memory: once. All else is final.
func again(r bot.RunRecord, attempts int) bool {
	killed := r.Status == bot.RunSignal && r.ExitSig == int(syscall.SIGKILL) && !r.OOMKilled
	return r.Status == bot.RunError && r.ExitCode == exitTempFail || killed && attempts <= 1
}

// again reports whether the run is to be tried again later.
func (f *runFailed) again(w Work) bool {
	return w.Retry && (f.core && w.attempts() <= 1 || again(f.record, w.attempts()))
}

// ErrMail is wrapped by errors that the mail itself may have caused, such as that core died of it, or did not come to an end:
// all that happen once the mail is shown to core, but for those that are known to be the host's. A mail that causes them
// again and again is to be set aside.
var ErrMail = errors.New("the session failed on this mail")

// hostFault marks an error that no mail can cause.
type hostFault struct{ error }

func (h hostFault) Unwrap() error { return h.error }

func host(err error) error {
	if err == nil {
		return nil
	}
	return hostFault{err}
}

// culprit is whose an error after the mail was shown is.
type culprit int

const (
	hosts culprit = iota // or it says so itself
	bots                 // core had worked for it
	mails
)

// whose judges an error. asked is what core was asked last because of the bot.
func whose(ctx context.Context, err error, asked string) culprit {
	switch {
	case errors.As(err, new(*runFailed)), errors.As(err, new(hostFault)), ctx.Err() == context.Canceled, fullOrBroken(err):
		return hosts
	case asked != "" && !errors.As(err, new(ownDeath)):
		return bots
	}
	return mails
}

// blame gives an error to whose it is.
func (p *program) blame(ctx context.Context, c *coreSide, run *bot.RunRecord, err error) error {
	switch asked := p.asked(); whose(ctx, err, asked) {
	case hosts:
		return err
	case bots:
		return p.failedCore(c, run, asked, err)
	}
	return fmt.Errorf("%w: %w", ErrMail, err)
}

// failedCore is the end of a run whose calls core did not survive, or did not come to an end with. run is what it was before, or nil.
func (p *program) failedCore(c *coreSide, run *bot.RunRecord, method string, err error) *runFailed {
	p.close()
	result, _ := c.box.Close() // what went wrong is known
	record := bot.RunRecord{Wall: time.Since(p.begun), Log: p.log.String(), AtOnce: c.relay.Taken(), Unsent: p.sending.unsent(nil)}
	if run != nil {
		record = *run
	}
	full := errors.Is(err, storage.ErrRefused)
	switch {
	case result.OOMKilled:
		err = fmt.Errorf("it needed more memory than it has, which pictures of many pixels do: %w", err)
	case full:
		err = fmt.Errorf("the bot has left more with it than the account may hold, in messages and drafts with files: %w", err)
	}
	record.Status, record.Kept, record.CPU = bot.RunError, "", p.used
	record.Message = bounded(fmt.Sprintf("core, which does what the bot calls, failed during this run; the last call was %s: %v", method, err))
	record.CoreCPU, record.CoreMemory = result.CPU, result.Memory
	return &runFailed{record: record, message: p.occasion.event.Kind == core.IncomingMsg, core: !result.OOMKilled && !full}
}

// fullOrBroken reports whether a disk of the host's is.
func fullOrBroken(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS)
}

// Fits reports whether core's account has room for so many bytes more. A part of it is kept for core's own work, so that a bot
// whose account is full of large mail still takes small mail until core has deleted what is old.
func (r *Runner) Fits(b ledger.Bot, unpacked int64) (bool, error) {
	used, err := r.Storage.Size(b.Address, storage.Account, b.Account)
	return used+unpacked+accountReserve <= r.Limits.CoreAccount, err
}

// accountReserve is what is kept of core's account for its own work, in bytes.
const accountReserve = 8 << 20

// Memory is the most that the sandboxes of a session may take, with the files in them. For a bot without an address, a bundle that is to
// be checked, it is that of a session, too.
func (r *Runner) Memory(b ledger.Bot) (int64, error) {
	spec, err := r.BotSpec(b.Manifest)
	if err == nil && b.Address != "" {
		err = r.fitFolder(&spec, b)
	}
	return memoryOf(spec) + memoryOf(r.CoreSpec(nil)), err
}

func memoryOf(spec sandbox.Spec) int64 {
	sum := spec.Memory
	for _, d := range spec.Dirs {
		sum += d.Size
	}
	return sum
}

// runFailed ends an attempt whose bot failed, before anything is committed.
type runFailed struct {
	record  bot.RunRecord
	message bool // it was run for a message of a person
	core    bool // core failed during it, by no limit of its own: that may have been the host's fault
}

func (f *runFailed) Error() string {
	return fmt.Sprintf("run failed: %s: %s", f.record.Status, f.record.Message)
}

// attempt is one pass from open to commit. failed is how the bot failed in an earlier attempt, nil if there was none.
func (r *Runner) attempt(ctx context.Context, w Work, failed *runFailed) (done Outcome, err error) {
	started := time.Now()
	parent := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, r.Limits.CoreWall, fmt.Errorf("the session took longer than %s", r.Limits.CoreWall))
	defer cancel()

	program := r.prestart(ctx, w)
	defer func() {
		program.close()
		if cpu, said := program.used, int(program.said.Load()); err != nil && (cpu > 0 || said > 0) && !errors.As(err, new(*runFailed)) && !errors.As(err, new(*Undone)) {
			err = &Spent{err, cpu, said}
		}
	}()
	c, err := r.openCore(ctx, w.Bot)
	if err != nil {
		return Outcome{}, fmt.Errorf("core: %w", err)
	}
	defer c.close()
	w.Timeline.Mark("core up")
	crash.At(crash.Up)

	c.relay.Stages(func(stage string) {
		r.Log.Debug("minirelay", "bot", w.Bot.Address, "uid", w.Job.Cursor.UID, "stage", stage)
	})
	if w.Schedule == nil {
		c.relay.Present(w.Mail)
		crash.At(crash.Presented)
	}
	run, err := r.messages(ctx, c, program, w)
	var stands *runFailed // what it has said is sent, and core's account knows it
	if errors.As(err, &stands) && w.Bot.Manifest.AtOnce && !stands.again(w) {
		run, failed, err = &stands.record, stands, nil
	}
	parts := []part{{work: w, run: run, sending: program.sending, folder: program.kept(), consent: c.wrote, word: c.word, started: started}}
	if err == nil && failed == nil && w.Next != nil && !w.Bot.Manifest.AtOnce {
		if run != nil {
			parts[0].cpu = run.CPU
		} else {
			program.close() // there is memory for one bot's sandbox
		}
		parts, err = r.more(ctx, c, parts[0])
	}
	var end ending
	if err == nil {
		rules := accountRules(r.Limits)
		if program.asked() != "" || len(parts) > 1 {
			rules = afterRun(rules)
		}
		end, err = r.endCore(ctx, c, w.Bot, rules)
	}
	if err == nil {
		end.outgoing, err = strip(ctx, parts, end.outgoing)
		err = host(err)
	}
	if run != nil {
		run.AtOnce = max(run.AtOnce, c.relay.Taken())
	}
	if err != nil {
		r.sweep(w.Bot.Address, w.Bot.Account, w.Bot.Storage)
		if stands != nil {
			return Outcome{}, stands
		}
		if len(parts) > 1 {
			return Outcome{}, undone(parts, c.why(err))
		}
		return Outcome{}, program.blame(parent, c, run, c.why(err))
	}
	if run == nil && failed != nil {
		run = &failed.record
	}
	if c.lost > 0 {
		r.Log.Warn("core gave up messages that the bot sent", "bot", w.Bot.Address, "uid", w.Job.Cursor.UID, "messages", c.lost)
	}
	parts[0].run = run
	if failed != nil {
		parts[0].folder = w.Bot.Storage
	}
	if failed != nil && stands == nil {
		parts[0].unsent = program.sending.unsent(failed.record.Unsent)
	}
	end.consent = parts[0].consent
	r.apologize(ctx, w, failed, &end)
	done, err = r.commit(ctx, parts, end)
	if err != nil && len(parts) > 1 {
		err = undone(parts, err)
	}
	return done, err
}

// kindHandshake is the gate's verdict on mails whose answers go to stopped contacts too: core alone makes them, no bot has a part in it.
const kindHandshake = "handshake"

// commit stages the outgoing mails and names everything in one transaction.
func (r *Runner) commit(ctx context.Context, parts []part, end ending) (Outcome, error) {
	b := parts[0].work.Bot
	outgoing, err := r.stage(b.Address, end.outgoing)
	if err != nil {
		return Outcome{}, err
	}
	for i := range outgoing {
		outgoing[i].Exempt = parts[0].work.Job.Kind == kindHandshake
	}
	doubtful := r.doubtful.take()
	crash.At(crash.Staged)
	closeLast(parts, end)
	commits := commitsOf(parts, end, outgoing)
	if err := r.Ledger.Commit(ctx, commits...); err != nil {
		r.doubtful.put(doubtful)
		return Outcome{}, r.uncommitted(b, outgoing, err)
	}
	r.settle(ctx, doubtful)
	crash.At(crash.Committed)
	r.sweep(b.Address, end.account, commits[0].Storage)
	var done []Outcome
	for i, p := range parts {
		p.work.Timeline.Mark("commit")
		core := end.core
		core.CPU = p.coreCPU
		done = append(done, Outcome{Bot: b.Address, Job: p.work.Job.ID, Run: p.run, Core: core, Sent: len(commits[i].Outgoing), Word: p.word,
			Timeline: p.work.Timeline})
	}
	done[0].Sent, done[0].More = done[0].Sent+end.atOnce, done[1:]
	return done[0], nil
}

// uncommitted cleans up after a commit that the ledger refused. After any other failure nobody knows what the disk holds, until a
// later commit has taken its place: then, or at the next start, what the ledger does not name is deleted.
func (r *Runner) uncommitted(b ledger.Bot, outgoing []ledger.Outgoing, err error) error {
	if errors.Is(err, ledger.ErrRemoved) || errors.Is(err, ledger.ErrStale) || errors.Is(err, ledger.ErrJobState) {
		r.discard(outgoing)
		r.sweep(b.Address, b.Account, b.Storage)
	} else {
		r.doubtful.add(outgoing)
	}
	return fmt.Errorf("commit: %w", err)
}

// sweep deletes all generations but those that the ledger names. What it misses is deleted at the next start.
func (r *Runner) sweep(address bot.Address, account, folder bot.Generation) {
	_, err := r.Storage.Sweep(address, storage.Account, account)
	_, err2 := r.Storage.Sweep(address, storage.Folder, folder)
	if err := errors.Join(err, err2); err != nil {
		r.Log.Warn("old generations not deleted; the next start tries again", "bot", address, "err", err)
	}
}
