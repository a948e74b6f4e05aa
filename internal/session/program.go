package session

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gateway"
	"mayfly/internal/ledger"
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

// program is the bot's program in its sandbox. It is started before core knows what the mail is, so that it waits for its
// job and not the user for it. A session without a run has a program that was never opened.
type program struct {
	r      *Runner
	bot    ledger.Bot
	opened chan struct{} // closed when box and err are set
	box    *sandbox.Sandbox
	err    error
	cancel context.CancelFunc

	lines  *bufio.Reader
	log    *tail
	folder bot.Generation // the new one, after a run that counts
}

// prestart opens the bot's sandbox in the background when the work may need it.
func (r *Runner) prestart(ctx context.Context, w Work) *program {
	p := &program{r: r, bot: w.Bot, opened: make(chan struct{}), log: newTail(r.Limits.Log)}
	ctx, p.cancel = context.WithCancel(ctx)
	if !w.Message {
		close(p.opened)
		return p
	}
	go func() {
		defer close(p.opened)
		p.err = p.open(ctx, p.fill)
		if p.err == nil {
			w.Timeline.Mark("sandbox up")
		}
	}()
	return p
}

// open makes the sandbox, lets fill put the files in, and starts the worker.
func (p *program) open(ctx context.Context, fill func(*sandbox.Sandbox) error) error {
	m := p.bot.Manifest
	box, err := p.r.Sandboxes.Open(ctx, sandbox.Spec{
		Name: "bot", Memory: m.Limits.Memory, Pids: p.r.Limits.Pids,
		// The wall clock of the run itself is run's. A script that loops is to meet that one, which knows its line.
		Wall: p.r.Limits.CoreWall, CPU: m.Limits.Wall + 5*time.Second,
		Dirs: []sandbox.Dir{
			{Path: bundleDir, Size: p.r.Limits.Tmpfs, Inodes: 5000},
			{Path: storageDir, Size: p.r.Limits.Tmpfs, Inodes: 10_000, Writable: true},
			{Path: attachmentsDir, Size: maxAttachment, Inodes: 100, Writable: true}, // sealed with the job
			{Path: tmpDir, Size: p.r.Limits.Tmpfs, Inodes: 10_000, Writable: true},
		},
		Programs: []sandbox.Program{{Name: "worker", Builtin: "worker", Profile: "worker", Dir: tmpDir}},
	})
	if err != nil {
		return err
	}
	p.box = box
	if err := fill(box); err != nil {
		return err
	}
	if err := box.Start("worker"); err != nil {
		return err
	}
	stdio := box.Program("worker")
	go p.log.read(stdio.Stderr)
	p.lines = bufio.NewReader(stdio.Stdout)
	return p.expectReady()
}

// fill puts the bundle and the folder into the sandbox.
func (p *program) fill(box *sandbox.Sandbox) error {
	err := putGeneration(box, bundleDir, func(w io.Writer) error {
		return p.r.Storage.ExportBundle(p.bot.Address, p.bot.Digest, w)
	})
	if err != nil {
		return fmt.Errorf("bundle: %w", err)
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

// expectReady reads the worker's first line.
func (p *program) expectReady() error {
	line, err := p.lines.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("the worker did not start: %w %s", err, p.log)
	}
	var ready struct{ Method string }
	if err := json.Unmarshal(line, &ready); err != nil || ready.Method != "ready" {
		return fmt.Errorf("the worker's first line is not ready: %.100q", line)
	}
	return nil
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
		_, _ = p.box.Close() // what the run needed to know has been read by then
	}
}

// judge makes the record of a run that has ended, and keeps the folder of one that counts.
func (p *program) judge(ctx context.Context, v *verdict, exit sandbox.Exit, trouble error) (bot.RunRecord, error) {
	status, message := v.result()
	record := bot.RunRecord{Status: status, Message: message, ExitCode: exit.Code, ExitSig: int(exit.Signal)}
	if record.Status == bot.RunOK && (trouble != nil || exit.Code != 0 || exit.Signal != 0) {
		record.Status, record.Message = "", "" // it said so and went on: what ended it counts
	}
	if record.Status == bot.RunOK {
		if err := p.keep(ctx); fullOrBroken(err) {
			return record, host(err)
		} else if err != nil {
			record.Status, record.Message = bot.RunError, "the folder was not kept: "+err.Error()
		}
	}
	result, err := p.box.Close()
	if err != nil {
		return record, host(fmt.Errorf("the bot's sandbox: %w", err))
	}
	<-p.log.ended
	record.CPU, record.Memory, record.OOMKilled, record.Log = result.CPU, result.Memory, result.OOMKilled, p.log.String()
	explain(&record, result, trouble)
	return record, nil
}

// keep makes a new generation of the bot's folder.
func (p *program) keep(ctx context.Context) (err error) {
	p.folder, err = p.r.collect(ctx, p.box, storageDir, p.bot.Address, storage.Folder, p.bot.Storage, folderRules(p.r.Limits))
	return err
}

// explain says what ended a run that could not say so itself.
func explain(record *bot.RunRecord, result sandbox.Result, trouble error) {
	if record.Status != "" {
		return
	}
	switch {
	case errors.Is(trouble, gateway.ErrLine):
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

func folderRules(l Limits) storage.Rules {
	return storage.Rules{Files: 10_000, Depth: 16, Name: 255, Bytes: 100 << 20, File: l.Tmpfs, Change: l.Tmpfs}
}

// verdict takes the worker's notifications.
type verdict struct {
	timeline *Timeline
	mu       sync.Mutex
	status   bot.RunStatus
	message  string
}

func (v *verdict) notify(method string, params json.RawMessage) {
	switch method {
	case "entered":
		v.timeline.Mark("handler")
	case "done":
		var done struct{ Status, Message, Stack string }
		if err := json.Unmarshal(params, &done); err != nil {
			return
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.status, v.message = bot.RunError, bounded(done.Message+"\n"+done.Stack)
		if s := bot.RunStatus(done.Status); s == bot.RunOK || s == bot.RunTimeout {
			v.status = s
		}
	}
}

func bounded(s string) string {
	s = strings.TrimSpace(strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 4000)]
}

func (v *verdict) result() (bot.RunStatus, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.status, v.message
}
