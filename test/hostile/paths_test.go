package hostile

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/elastic/go-seccomp-bpf/arch"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/gateway"
	"mayfly/internal/sandbox"
	"mayfly/internal/session"
	"mayfly/internal/storage"
)

// path is one of the ways in which Mayfly runs a foreign program.
type path struct {
	name   string
	folder string // what is kept of a run
	rules  storage.Rules
	// spec is the production's, with the program in it.
	spec func(w *world, p program, variant string) (sandbox.Spec, error)
	// fill puts the program's files in. It may be nil.
	fill func(w *world, box *sandbox.Sandbox, p program) error
	// serve is the daemon's side of the run, until the program has ended: it reads what the program says, which it does not trust.
	serve func(ctx context.Context, box *sandbox.Sandbox, p program, variant string, o *outcome)
}

func paths() []path {
	return []path{scriptPath(), wasmPath(), nativePath(), corePath()}
}

func pathNames() []string {
	var names []string
	for _, p := range paths() {
		names = append(names, p.name)
	}
	return names
}

// outcome is what is known of a run when it is over.
type outcome struct {
	ended   string // what its author reads, in the words of the manifest
	message string // and the text with it
	log     string // what the program wrote to its stderr, the last of it
	result  sandbox.Result
	kept    map[string]string // what of its folder became a generation; nil when nothing was
	refused error             // why not
	took    time.Duration
	err     error // the run could not be made
	done    string
}

// run runs one variant of a program on a path.
func (w *world) run(client *sandbox.Client, at path, p program, variant string, rules storage.Rules) outcome {
	begun := time.Now()
	var o outcome
	o.err = w.attempt(client, at, p, variant, rules, &o)
	o.took = time.Since(begun)
	return o
}

func (w *world) attempt(client *sandbox.Client, at path, p program, variant string, rules storage.Rules, o *outcome) error {
	spec, err := at.spec(w, p, variant)
	if err != nil {
		return err
	}
	for _, program := range spec.Programs {
		if program.Binary != nil {
			defer program.Binary.Close()
		}
	}
	lower, err := p.limits(at.name, variant)
	if err != nil {
		return err
	}
	lower.apply(&spec, p)
	ctx, cancel := context.WithTimeout(context.Background(), spec.Wall+5*time.Second)
	defer cancel()
	box, err := client.Open(ctx, spec)
	if err != nil {
		return err
	}
	defer box.Close()
	if at.fill != nil {
		if err := at.fill(w, box, p); err != nil {
			return err
		}
	}
	name := spec.Programs[0].Name
	if err := box.Start(name); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := box.Program(name).Stdout.SetReadDeadline(deadline); err != nil { // so that whoever reads it comes back
		return err
	}
	log := newTail(box.Program(name).Stderr, func() { _ = box.Kill() })
	at.serve(ctx, box, p, variant, o)
	exit, err := box.Wait(ctx, name)
	if err != nil && !errors.Is(err, sandbox.ErrDead) {
		return fmt.Errorf("the program did not end: %w", err)
	}
	if err == nil && exit.Signal == syscall.SIGKILL { // the broker learns of an out-of-memory kill at its next look
		select {
		case <-box.Dead():
		case <-time.After(300 * time.Millisecond):
		}
	}
	w.collect(ctx, box, at, rules, o)
	if o.result, err = box.Close(); err != nil {
		return err
	}
	o.log = log.String()
	if log.total > maxLog && o.done == "" {
		o.done = "broken"
	}
	o.judge(exit)
	return nil
}

// apply lowers what the manifest lowers. The directories stay.
func (l limits) apply(spec *sandbox.Spec, p program) {
	switch {
	case l.wall > 0 && p.kind == "js": // the job says it to the worker; a session bounds the CPU time as well
		spec.CPU = l.wall + 5*time.Second
	case l.wall > 0:
		spec.Wall = l.wall
	}
	if l.cpu > 0 {
		spec.CPU = l.cpu
	}
	if l.memory > 0 {
		spec.Memory = l.memory
	}
}

// judge says how the run ended: a limit before a signal before what the program itself has said.
func (o *outcome) judge(exit sandbox.Exit) {
	switch {
	case o.result.Killed != "":
		o.ended = "killed " + o.result.Killed
	case exit.Code > 128 && exit.Code < 193 && o.done == "": // as shells and bubblewrap tell of a signal
		o.ended = "signal " + signalName(syscall.Signal(exit.Code-128))
	case exit.Signal != 0 && o.done == "":
		o.ended = "signal " + signalName(exit.Signal)
	case o.done != "":
		o.ended = "done " + o.done
	default:
		o.ended = "exit " + strconv.Itoa(exit.Code)
	}
	o.message = strings.TrimSpace(o.message + " " + o.result.Message)
}

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGSYS:
		return "SYS"
	case syscall.SIGKILL:
		return "KILL"
	case syscall.SIGABRT:
		return "ABRT"
	case syscall.SIGSEGV:
		return "SEGV"
	case syscall.SIGPIPE:
		return "PIPE"
	case syscall.SIGXFSZ:
		return "XFSZ"
	}
	return strconv.Itoa(int(s))
}

// collect streams the folder out and makes a generation of it, as a session does.
func (w *world) collect(ctx context.Context, box *sandbox.Sandbox, at path, rules storage.Rules, o *outcome) {
	stream, err := box.Collect(at.folder)
	if err != nil {
		o.refused = err
		return
	}
	defer stream.Close()
	dir, err := os.MkdirTemp(w.dir, "store-")
	if err != nil {
		o.refused = err
		return
	}
	defer os.RemoveAll(dir)
	store, err := storage.Open(dir)
	if err != nil {
		o.refused = err
		return
	}
	defer store.Close()
	if _, _, o.refused = store.Import(ctx, "bot@example.org", storage.Folder, 0, stream, rules); o.refused == nil {
		o.kept, o.refused = readTree(dir)
	}
}

// readTree is what lies on disk, as the daemon's user finds it: names, modes, and the beginning of each file.
func readTree(dir string) (map[string]string, error) {
	kept := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.IsDir() {
			return nil
		}
		kept[strings.TrimPrefix(name, dir)] = info.Mode().String()
		return nil
	})
	return kept, err
}

// tail keeps the first and the last 16 KiB of what a program logs, and lets the rest go.
type tail struct {
	mu          sync.Mutex
	first, last []byte
	total       int
	ended       chan struct{}
}

// maxLog is where package session ends a program that logs without end.
const maxLog = 2 << 20

func newTail(r io.Reader, stop func()) *tail {
	t := &tail{ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		buf := make([]byte, 8<<10)
		for {
			n, err := r.Read(buf)
			if t.add(buf[:n]); t.total > maxLog {
				stop()
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return t
}

func (t *tail) add(b []byte) {
	const most = 16 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total += len(b)
	if room := most - len(t.first); room > 0 {
		n := min(room, len(b))
		t.first = append(t.first, b[:n]...)
		b = b[n:]
	}
	t.last = append(t.last, b...)
	if len(t.last) > most {
		t.last = append(t.last[:0], t.last[len(t.last)-most:]...)
	}
}

func (t *tail) String() string {
	select {
	case <-t.ended:
	case <-time.After(time.Second):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.first) + string(t.last)
}

// corePath is core's sandbox with a hostile program in core's place: a core that a mail has taken over.
func corePath() path {
	return path{
		name: "core", folder: "/account",
		rules: session.AccountRules(session.DefaultLimits()),
		spec: func(w *world, _ program, _ string) (sandbox.Spec, error) {
			binary, err := os.Open(w.native)
			if err != nil {
				return sandbox.Spec{}, err
			}
			return production().CoreSpec(binary), nil
		},
		serve: func(ctx context.Context, box *sandbox.Sandbox, p program, variant string, o *outcome) {
			stdio := box.Program("core")
			fmt.Fprintf(stdio.Stdin, "%s %s\n", p.name, variant)
			client := core.New(stdio.Stdin, stdio.Stdout)
			if err := client.Call(ctx, "get_all_account_ids", nil); err != nil && !errors.Is(err, core.ErrEnded) {
				o.message = err.Error()
			}
			<-client.Done()
		},
	}
}

// scriptPath is the worker, with a hostile script; or, for the programs of testdata/engine, with an engine that has been taken over.
func scriptPath() path {
	return path{
		name: "script", folder: "/storage",
		rules: folderRulesOf(session.DefaultLimits()),
		spec: func(_ *world, p program, _ string) (sandbox.Spec, error) {
			spec, err := botSpec(bot.RuntimeJS, "main.js")
			if err != nil || p.kind != "engine" {
				return spec, err
			}
			return takenOver(spec, p)
		},
		fill: func(_ *world, box *sandbox.Sandbox, p program) error {
			if p.kind == "engine" {
				return nil
			}
			return putMain(box, "/bundle", "main.js", p.file)
		},
		serve: serveWorker,
	}
}

// takenOver puts the probe into the engine's place, under the engine's profile.
func takenOver(spec sandbox.Spec, p program) (sandbox.Spec, error) {
	attempts, err := engineAttempts(p.file)
	spec.Programs[0].Builtin, spec.Programs[0].Args = "probe", attempts
	return spec, err
}

// engineAttempts are the lines of a program for an engine that has been taken over: what package stage's Probe understands, and system
// calls by name.
func engineAttempts(file string) ([]string, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	var attempts []string
	for _, l := range lines(file) {
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		name, args, isCall := strings.Cut(strings.TrimPrefix(l, "call "), " ")
		if !strings.HasPrefix(l, "call ") {
			attempts = append(attempts, l)
			continue
		}
		number, ok := info.SyscallNames[name]
		if !ok {
			return nil, fmt.Errorf("%s: no system call %q", file, name)
		}
		attempt := "call=" + strconv.Itoa(number)
		if isCall {
			attempt += "," + strings.Join(strings.Fields(args), ",")
		}
		attempts = append(attempts, attempt)
	}
	return attempts, nil
}

func putMain(box *sandbox.Sandbox, dir, name, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return box.Put(dir, tarOf(name, data))
}

func tarOf(name string, data []byte) io.Reader {
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	_ = tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o755, Typeflag: tar.TypeReg})
	_, _ = tw.Write(data)
	_ = tw.Close()
	return &b
}

// serveWorker gives the worker its job and answers its calls by the gateway, before a core that answers nothing.
func serveWorker(ctx context.Context, box *sandbox.Sandbox, p program, variant string, o *outcome) {
	stdio := box.Program("bot")
	if p.kind == "engine" {
		serveProbe(stdio, o)
		return
	}
	lower, _ := p.limits("script", variant)
	wall := 30 * time.Second
	if lower.wall > 0 {
		wall = lower.wall
	}
	lines := bufio.NewReader(stdio.Stdout)
	if _, err := lines.ReadSlice('\n'); err != nil { // ready
		o.message = err.Error()
		return
	}
	job, _ := json.Marshal(map[string]any{"job": map[string]any{
		"event": "message", "main": "main.js", "account": 1, "deadline_ms": wall.Milliseconds(), "heap": programMemory * 3 / 4,
		"bot": map[string]string{"name": "Hostile", "address": "bot@example.org", "version": "1"}, "attachment": nil,
		"message": map[string]any{"id": 12, "chatId": 10, "text": variant}, "chat": map[string]any{"id": 10},
	}})
	if _, err := stdio.Stdin.Write(append(job, '\n')); err != nil {
		o.message = err.Error()
		return
	}
	v := &verdict{}
	g := gateway.New(gateway.Options{Core: deafCore{}, Files: noFiles{}, Account: 1, Chats: []uint32{10}, CorePaths: "/account/core/",
		Limits: gateway.DefaultLimits(), Notify: v.notify})
	ctx, cancel := context.WithTimeout(ctx, wall+time.Second)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		err := g.Serve(ctx, lines, stdio.Stdin)
		if err != nil {
			cancel() // the bot broke the protocol: there is nothing more to wait for
		}
		served <- err
	}()
	if _, err := box.Wait(ctx, "bot"); err != nil { // as a session does
		o.done = "late"
		_ = box.Kill() // the Wait that follows finds out
	}
	if err := <-served; errors.Is(err, gateway.ErrLine) {
		o.done, o.message = "broken", err.Error()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.status != "" && o.done == "" {
		o.done, o.message = v.status, v.message
	}
}

// serveProbe puts the probe's reports into the words of other programs.
func serveProbe(stdio sandbox.Stdio, o *outcome) {
	var report struct {
		Attempt string
		Done    bool
		Errno   syscall.Errno
		Text    string
	}
	var log strings.Builder
	for dec := json.NewDecoder(io.LimitReader(stdio.Stdout, 1<<20)); dec.Decode(&report) == nil; report.Text, report.Errno = "", 0 {
		how := "held"
		if report.Done {
			how = "BROKE"
		}
		fmt.Fprintf(&log, "trying: %s\n%s: %s: %s\n", report.Attempt, how, report.Attempt, report.Text)
	}
	o.message = log.String()
}

// verdict is what the worker says about its script.
type verdict struct {
	mu              sync.Mutex
	status, message string
}

func (v *verdict) notify(method string, params json.RawMessage) {
	var done struct{ Status, Message, Stack string }
	if method != "done" || json.Unmarshal(params, &done) != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.status, v.message = done.Status, done.Message
}

// deafCore is a core that has nothing to tell.
type deafCore struct{}

func (deafCore) Done() <-chan struct{} { return nil }

func (deafCore) Raw(_ context.Context, method string, _ json.RawMessage) (json.RawMessage, error) {
	if strings.HasPrefix(method, "send_") || method == "misc_send_text_message" {
		return json.RawMessage("101"), nil
	}
	return json.RawMessage("null"), nil
}

type noFiles struct{}

func (noFiles) Take(context.Context, string, string, int64) (string, int64, error) {
	return "", 0, errors.New("no such file")
}
func (noFiles) Show(string) (string, bool) { return "", false }

// nativePath is a program under bubblewrap: an interpreter of the host's with the author's file, or the author's own executable.
func nativePath() path {
	return path{
		name: "native", folder: "/storage",
		rules: folderRulesOf(session.DefaultLimits()),
		spec: func(_ *world, p program, variant string) (sandbox.Spec, error) {
			switch p.kind {
			case "py":
				return botSpec(bot.RuntimeNative, "", "python3", "main", variant)
			case "sh":
				return botSpec(bot.RuntimeNative, "", "sh", "main", variant)
			}
			return botSpec(bot.RuntimeNative, "", "main", p.name, variant)
		},
		fill: func(w *world, box *sandbox.Sandbox, p program) error {
			if p.kind == "c" {
				return putMain(box, "/bundle", "main", w.native)
			}
			return putMain(box, "/bundle", "main", p.file)
		},
		serve: func(ctx context.Context, box *sandbox.Sandbox, _ program, _ string, o *outcome) {
			servePipe(box, "From: user@example.org\r\n\r\nhello\r\n", o)
		},
	}
}

// servePipe gives a program its mail, and ends it when it prints more than it may.
func servePipe(box *sandbox.Sandbox, mail string, o *outcome) {
	stdio := box.Program("bot")
	go func() {
		io.WriteString(stdio.Stdin, mail)
		stdio.Stdin.Close()
	}()
	const maxOutput = 1 << 20
	if n, _ := io.Copy(io.Discard, io.LimitReader(stdio.Stdout, maxOutput+1)); n > maxOutput {
		o.done = "broken"
		_ = box.Kill() // the Wait that follows finds out
	}
}

// wasmPath is a WASM module, compiled as at its installation.
func wasmPath() path {
	return path{
		name: "wasm", folder: "/storage", rules: folderRulesOf(session.DefaultLimits()),
		spec: func(_ *world, p program, _ string) (sandbox.Spec, error) {
			spec, err := botSpec(bot.RuntimeWASM, "main.wasm")
			if err != nil || p.kind != "engine" {
				return spec, err
			}
			return takenOver(spec, p)
		},
		fill: func(w *world, box *sandbox.Sandbox, p program) error {
			if p.kind == "engine" {
				return nil
			}
			if err := putMain(box, "/bundle", "main.wasm", w.wasm); err != nil {
				return err
			}
			return box.Put("/compiled", bytes.NewReader(w.compiled))
		},
		serve: func(_ context.Context, box *sandbox.Sandbox, p program, variant string, o *outcome) {
			if p.kind == "engine" {
				serveProbe(box.Program("bot"), o)
				return
			}
			servePipe(box, p.name+" "+variant+"\n", o)
		},
	}
}

// compile compiles the module of the WASM programs in a sandbox, as an installation does.
func (w *world) compile(ctx context.Context) error {
	box, err := w.broker.Client().Open(ctx, production().CompileSpec(manifest(bot.RuntimeWASM, "main.wasm")))
	if err != nil {
		return err
	}
	defer box.Close()
	if err := putMain(box, "/bundle", "main.wasm", w.wasm); err != nil {
		return err
	}
	if err := box.Start("bot"); err != nil {
		return err
	}
	said, _ := io.ReadAll(io.LimitReader(box.Program("bot").Stdout, 1<<20))
	if exit, err := box.Wait(ctx, "bot"); err != nil || exit.Code != 0 {
		return fmt.Errorf("compile the WASM programs: %+v, %w: %s", exit, err, said)
	}
	stream, err := box.Collect("/compiled")
	if err != nil {
		return err
	}
	defer stream.Close()
	w.compiled, err = io.ReadAll(stream)
	return err
}

// programMemory is what a bot has of memory, by default.
const programMemory = 128 << 20

// production is what makes the Specs of sessions.
func production() *session.Runner {
	return session.New(session.Options{
		Limits: session.DefaultLimits(), Landlock: true,
		Interpreters: map[string]string{"python3": "/usr/bin/python3", "sh": "/usr/bin/sh"},
	})
}

// folderRulesOf are those of a session, but for its pace.
func folderRulesOf(l session.Limits) storage.Rules {
	return storage.FolderRules(l.Folder, l.Change, nil)
}

func manifest(runtime bot.Runtime, main string, command ...string) bot.Manifest {
	return bot.Manifest{Name: "Hostile", Version: "1", Runtime: runtime, Main: main, Command: command, Mode: bot.ModePipe,
		Limits: bot.Limits{Memory: programMemory, Wall: 30 * time.Second}}
}

// botSpec is what a run of a bot gets that has stored nothing yet.
func botSpec(runtime bot.Runtime, main string, command ...string) (sandbox.Spec, error) {
	spec, err := production().BotSpec(manifest(runtime, main, command...))
	for i := range spec.Dirs {
		if d := &spec.Dirs[i]; d.Path == "/storage" {
			d.Size, d.Inodes = shared.room.Bytes, shared.room.Inodes
		}
	}
	return spec, err
}

// openVictim opens somebody else's bot, with secrets, which waits for its job while the programs run.
func (w *world) openVictim(ctx context.Context) error {
	spec, err := botSpec(bot.RuntimeJS, "main.js")
	if err != nil {
		return err
	}
	spec.Wall = cageTime
	box, err := w.broker.Client().Open(ctx, spec)
	if err != nil {
		return err
	}
	w.victim = box
	for _, dir := range []string{"/bundle", "/storage"} {
		if err := box.PutFile(dir+"/note", int64(len(canary)), strings.NewReader(canary)); err != nil {
			return err
		}
	}
	if err := box.Start("bot"); err != nil {
		return err
	}
	_, err = bufio.NewReader(box.Program("bot").Stdout).ReadSlice('\n')
	return err
}
