package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/crash"
	"mayfly/internal/gateway"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
	"mayfly/internal/sandbox"
	"mayfly/internal/storage"
)

// The folders of a bot's sandbox.
const (
	bundleDir      = "/bundle"
	storageDir     = "/storage"
	attachmentsDir = "/attachments"
	tmpDir         = "/tmp"
)

// programName is what the bot's program is called in its sandbox.
const programName = "bot"

// runtime is how a bundle's program is named and spoken to.
type runtime interface {
	// furnish adds to the sandbox what the program needs, and the program.
	furnish(spec *sandbox.Spec, m bot.Manifest) error
	// ready is called when the files are there: it starts what may wait for its job.
	ready(p *program) error
	// run gives the program its job and sees it to its end. ctx ends at the wall clock. An error is the host's.
	run(ctx context.Context, p *program, c *coreSide, o occasion, timeline *Timeline) (finish, error)
}

// finish is how a run ended, as far as the program and its runtime can say.
type finish struct {
	status  bot.RunStatus // "": the program did not come to say
	message string
	exit    sandbox.Exit
	trouble error // why the program was given up
}

// program is the bot's program in its sandbox. It is opened before core knows what the mail is, so that it waits for its
// job and not the user for it. A session without a run has a program that was never opened.
type program struct {
	r       *Runner
	bot     ledger.Bot
	runtime runtime
	sending *sending
	cpu     time.Duration // what is left of the bot's CPU time; 0: as much as the wall clock allows
	lend    func() (back func())
	say     func(minirelay.Outgoing) bool // takes what is said at once; nil: nothing is
	said    atomic.Int32                  // how much it took
	opened  chan struct{}                 // closed when box and err are set
	box     *sandbox.Sandbox
	err     error
	cancel  context.CancelFunc

	occasion occasion      // what it is run for, once it is
	begun    time.Time     // likewise
	asked    func() string // what core was asked last because of the bot; "": nothing

	log    *tail
	used   time.Duration  // CPU time, known when it is closed
	folder bot.Generation // the new one, after a run that counts
}

func (r *Runner) newProgram(b ledger.Bot) *program {
	return &program{r: r, bot: b, sending: r.newSending(b), runtime: r.runtimeOf(b.Manifest), opened: make(chan struct{}), log: newTail(r.Limits.Log), asked: func() string { return "" }}
}

func (r *Runner) runtimeOf(m bot.Manifest) runtime {
	switch m.Runtime {
	case bot.RuntimeWASM:
		return &pipe{furnisher: wasm}
	case bot.RuntimeNative:
		switch m.Mode {
		case bot.ModeResident:
			return &resident{native(r.Interpreters)}
		case bot.ModeMail:
			return &mailClient{furnisher: native(r.Interpreters)}
		}
		return &pipe{furnisher: native(r.Interpreters), shell: true}
	}
	return &script{}
}

// prestart opens the bot's sandbox in the background when the work may need it.
func (r *Runner) prestart(ctx context.Context, w Work) *program {
	p := r.newProgram(w.Bot)
	p.cpu, p.lend = w.CPU, w.Lend
	if w.Bot.Manifest.AtOnce {
		p.say = r.sayer(ctx, w, p.sending, &p.said)
	}
	ctx, p.cancel = context.WithCancel(ctx)
	if !w.Message && w.Schedule == nil {
		close(p.opened)
		return p
	}
	go func() {
		defer close(p.opened)
		if p.err = r.ensureCompiled(ctx, w.Bot); p.err == nil {
			p.err = p.open(ctx, p.fill)
		}
		if p.err == nil {
			w.Timeline.Mark("sandbox up")
		}
	}()
	return p
}

// BotSpec is the sandbox of a bot's program: what a run of the bot gets.
func (r *Runner) BotSpec(m bot.Manifest) (sandbox.Spec, error) {
	m.Limits = m.Limits.Within(r.Limits.Most)
	spec := sandbox.Spec{
		Name: "bot", Memory: m.Limits.Memory, Pids: r.Limits.Pids,
		// The wall clock of the run itself is run's. A script that loops is to meet that one, which knows its line.
		Wall: r.Limits.CoreWall, CPU: m.Limits.Wall + 5*time.Second, Landlock: r.Landlock,
		Dirs: []sandbox.Dir{
			{Path: bundleDir, Size: r.Limits.Tmpfs, Inodes: 5000},
			{Path: storageDir, Size: r.Limits.Tmpfs, Inodes: 5000, Writable: true},
			{Path: attachmentsDir, Size: maxAttachment, Inodes: 100, Writable: true}, // sealed with the job
			{Path: tmpDir, Size: r.Limits.Tmpfs, Inodes: 10_000, Writable: true},
		},
	}
	return spec, r.runtimeOf(m).furnish(&spec, m)
}

// open makes the sandbox, lets fill put the files in, and has the program wait.
func (p *program) open(ctx context.Context, fill func(*sandbox.Sandbox) error) error {
	spec, err := p.r.BotSpec(p.bot.Manifest)
	if err != nil {
		return err
	}
	if p.cpu > 0 {
		spec.CPU = min(spec.CPU, p.cpu)
	}
	if p.bot.Address != "" { // a check has no folder
		if err := p.r.fitFolder(&spec, p.bot); err != nil {
			return err
		}
	}
	box, err := p.r.Sandboxes.Open(ctx, spec)
	if err != nil {
		return err
	}
	p.box = box
	if err := fill(box); err != nil {
		return err
	}
	go p.log.read(box.Program(programName).Stderr, func() { _ = box.Kill() }) // its failure is the sandbox's end
	return p.runtime.ready(p)
}

// fill puts the bundle and the folder into the sandbox.
func (p *program) fill(box *sandbox.Sandbox) error {
	err := putGeneration(box, bundleDir, func(w io.Writer) error {
		return p.r.Storage.ExportBundle(p.bot.Address, p.bot.Digest, w)
	})
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
	}
	if p.bot.Manifest.Runtime == bot.RuntimeWASM {
		err := putGeneration(box, compiledDir, func(w io.Writer) error {
			return p.r.Storage.ExportCompiled(p.bot.Address, p.bot.Digest, p.r.Engine, w)
		})
		if err != nil {
			return fmt.Errorf("compiled module: %w", err)
		}
	}
	if p.bot.Storage == 0 {
		return nil
	}
	err = putGeneration(box, storageDir, func(w io.Writer) error {
		return p.r.Storage.Export(p.bot.Address, storage.Folder, p.bot.Storage, w)
	})
	if err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	return nil
}

// run hands the occasion to the program and sees the run through. A run that does not count is a *runFailed.
func (p *program) run(ctx context.Context, c *coreSide, o occasion, timeline *Timeline) (*bot.RunRecord, error) {
	<-p.opened
	if p.err != nil {
		return nil, host(fmt.Errorf("the bot's sandbox: %w", p.err))
	}
	p.occasion, p.begun = o, time.Now()
	if p.say != nil {
		c.relay.Take(p.say)
	}
	end, err := p.runtime.run(ctx, p, c, o, timeline)
	if err != nil {
		return nil, err
	}
	timeline.Mark("handler done")
	crash.At(crash.Answered)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case <-c.client.Done():
		return nil, errors.New("core ended during the run")
	default:
	}
	record, err := p.judge(ctx, end)
	if err != nil {
		return nil, err
	}
	record.Wall, record.AtOnce, record.Unsent = time.Since(p.begun), c.relay.Taken(), p.sending.unsent(nil)
	if record.Status != bot.RunOK {
		return nil, &runFailed{record: record, message: o.event.Kind == core.IncomingMsg}
	}
	return &record, nil
}

// wait returns when the program has ended, or ended it at ctx's end: that is the trouble.
func (p *program) wait(ctx context.Context) (exit sandbox.Exit, trouble error) {
	exit, trouble = p.box.Wait(ctx, programName)
	if trouble != nil {
		trouble = errors.Join(trouble, p.box.Kill())
	}
	if p.log.flooded() {
		trouble = errOutput
	}
	return exit, trouble
}

// kept is the generation of the bot's folder that the session ends with.
func (p *program) kept() bot.Generation {
	if p.folder != 0 {
		return p.folder
	}
	return p.bot.Storage
}

// close ends the sandbox if it is still there.
func (p *program) close() {
	p.cancel()
	<-p.opened
	if p.box != nil {
		result, _ := p.box.Close() // what the run needed to know has been read by then
		p.used = result.CPU
	}
}

// judge makes the record of a run that has ended, and keeps the folder of one that counts.
func (p *program) judge(ctx context.Context, end finish) (bot.RunRecord, error) {
	record := bot.RunRecord{Status: end.status, Message: end.message, ExitCode: end.exit.Code, ExitSig: int(end.exit.Signal)}
	if record.Status == bot.RunOK && (end.trouble != nil || end.exit != sandbox.Exit{}) {
		record.Status, record.Message = "", "" // it said so and went on: what ended it counts
	}
	var dead error
	if record.Status == bot.RunOK {
		kept, err := p.keep(ctx)
		if fullOrBroken(err) {
			return record, host(err)
		}
		if errors.Is(err, sandbox.ErrDead) {
			dead = err
		}
		record.Kept = kept
		if err != nil {
			record.Status, record.Message, record.Kept = bot.RunError, bounded(storage.Explain(err)), ""
		}
	}
	if record.Status == "" && errors.Is(end.trouble, sandbox.ErrDead) {
		dead = end.trouble
	}
	record.MaxRSS = p.box.MaxRSS(programName)
	result, err := p.box.Close()
	if err != nil {
		return record, host(fmt.Errorf("the bot's sandbox: %w", err))
	}
	if dead != nil && result.Killed == "" {
		return record, ownDeath{fmt.Errorf("the bot's sandbox: %w", dead)} // by no limit of the bot's: it is not to blame
	}
	<-p.log.ended
	record.CPU, record.Memory, record.OOMKilled, record.Log = result.CPU, result.Memory, result.OOMKilled, p.log.String()
	explain(&record, result, end.trouble)
	return record, nil
}

// ownDeath marks an error that is no failure of core's.
type ownDeath struct{ error }

func (o ownDeath) Unwrap() error { return o.error }

// keep makes a new generation of the bot's folder, and says what is in it. Its error has words for the author.
func (p *program) keep(ctx context.Context) (string, error) {
	rules, back := p.r.folderRules(), func() {}
	if p.lend != nil {
		rules.Slow = func() { back = p.lend() }
	}
	generation, stats, err := p.r.collect(ctx, p.box, storageDir, p.bot.Address, storage.Folder, p.bot.Storage, rules)
	back()
	p.folder = generation
	return stats.String(), err
}

// explain says what ended a run that could not say so itself.
func explain(record *bot.RunRecord, result sandbox.Result, trouble error) {
	if record.Status != "" {
		return
	}
	switch {
	case errors.Is(trouble, gateway.ErrLine), errors.Is(trouble, errOutput):
		record.Status, record.Message = bot.RunError, trouble.Error()
	case result.OOMKilled:
		record.Status, record.Message = bot.RunSignal, "killed: the program used more memory than [limits] memory allows"
	case result.Killed == "wall" || errors.Is(trouble, context.DeadlineExceeded):
		record.Status, record.Message = bot.RunTimeout, "killed: the program ran longer than [limits] wall allows"
	case result.Killed == "cpu":
		record.Status, record.Message = bot.RunTimeout, "killed: the program used more CPU time than a run may"
	case result.Killed != "":
		record.Status, record.Message = bot.RunTimeout, "killed: "+result.Message
	case record.ExitSig != 0:
		record.Status, record.Message = bot.RunSignal, fmt.Sprintf("killed by signal %d", record.ExitSig)
	default:
		record.Status, record.Message = bot.RunError, fmt.Sprintf("ended with code %d without a result", record.ExitCode)
	}
}

func (r *Runner) folderRules() storage.Rules {
	return storage.FolderRules(r.Limits.Folder, r.Limits.Change, r.Pacer)
}

// fitFolder makes room for the bot's folder and what may change in it, and no more: the room counts as the run's memory.
func (r *Runner) fitFolder(spec *sandbox.Spec, b ledger.Bot) error {
	room, err := r.Storage.Room(b.Address, storage.Folder, b.Storage, r.folderRules())
	if err != nil {
		return err
	}
	for i := range spec.Dirs {
		if d := &spec.Dirs[i]; d.Path == storageDir {
			d.Size, d.Inodes = room.Bytes, room.Inodes
		}
	}
	return nil
}
