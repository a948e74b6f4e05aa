//go:build bench

package bench

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core/coretest"
	"mayfly/internal/sandbox"
	"mayfly/internal/session"
)

// starts measures how long programs take to start, by turns, all of them under the broker's uid.
type starts struct {
	t      *testing.T
	dir    string // which that uid can read
	client *sandbox.Client
	runner *session.Runner
}

// measureStarts gives the rows of the part "start". The first is what the others are compared with.
func measureStarts(t *testing.T, ctx context.Context, n int) []Row {
	s := openStarts(t, ctx)
	script := "export default { message() {} }"
	steps := []struct {
		name string
		run  func() time.Duration
	}{
		{"start: fork and exec of a static Go program", func() time.Duration { return s.bare(s.dir + "/nothing") }},
		{"start: bubblewrap, /usr/bin/true", func() time.Duration { return s.bare("/usr/bin/bwrap", plainBubblewrap()...) }},
		{"start: JavaScript, job given to handler entered", func() time.Duration { return s.script(script, false) }},
		{"start: JavaScript, its worker started before", func() time.Duration { return s.script(script, true) }},
		{"start: python3, bare", func() time.Duration { return s.bare("/usr/bin/python3", "-c", "pass") }},
		{"start: python3, as a native bot", func() time.Duration { return s.native("python3", "-c", "pass") }},
		{"start: sh, bare", func() time.Duration { return s.bare("/usr/bin/sh", "-c", ":") }},
		{"start: sh, as a native bot", func() time.Duration { return s.native("sh", "-c", ":") }},
		{"start: core, bare, to its first answer", s.bareCore},
		{"start: core, in its sandbox, to its first answer", s.sandboxedCore},
	}
	times := make([][]time.Duration, len(steps))
	for range n {
		for i, step := range steps {
			times[i] = append(times[i], step.run())
		}
	}
	var rows []Row
	for i, step := range steps {
		rows = append(rows, Row{Name: step.name, Times: times[i], Base: times[0]})
	}
	return rows
}

func openStarts(t *testing.T, ctx context.Context) *starts {
	s := &starts{t: t, dir: t.TempDir()}
	for dir := s.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.WriteFile(s.dir+"/nothing.go", []byte("package main\n\nfunc main() {}\n"), 0o600))
	build := exec.Command("go", "build", "-o", s.dir+"/nothing", s.dir+"/nothing.go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	broker, err := sandbox.StartBroker(ctx, sandbox.StartOptions{Binary: "../../bin/mayfly-sandbox"})
	must(t, err)
	t.Cleanup(func() { must(t, broker.Close()) })
	s.client = broker.Client()
	s.runner = session.New(session.Options{Limits: session.DefaultLimits(), Landlock: true,
		Interpreters: map[string]string{"python3": "/usr/bin/python3", "sh": "/usr/bin/sh"}})
	return s
}

func plainBubblewrap() []string {
	return strings.Fields("--unshare-all --die-with-parent --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib " +
		"--symlink usr/lib64 /lib64 --proc /proc --dev /dev --tmpfs /tmp -- /usr/bin/true")
}

// bare runs a program to its end, as the broker's user.
func (s *starts) bare(path string, args ...string) time.Duration {
	cmd := s.command(path, args...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	if err != nil {
		s.t.Fatalf("%s: %v: %s", path, err, out)
	}
	return took
}

func (s *starts) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: sandbox.DefaultUID, Gid: sandbox.DefaultUID}}
	return cmd
}

func (s *starts) manifest(m bot.Manifest) bot.Manifest {
	m.Limits = bot.Limits{Memory: 128e6, Wall: 30 * time.Second}
	return m
}

func (s *starts) open(m bot.Manifest) *sandbox.Sandbox {
	spec, err := s.runner.BotSpec(m)
	must(s.t, err)
	box, err := s.client.Open(s.t.Context(), spec)
	must(s.t, err)
	return box
}

// script runs a handler in a sandbox of its own, and measures until it is entered: from the opening of the sandbox on, or from the
// job on when the worker was started before.
func (s *starts) script(source string, before bool) time.Duration {
	began := time.Now()
	box := s.open(s.manifest(bot.Manifest{Runtime: bot.RuntimeJS, Main: "main.js"}))
	defer box.Close()
	must(s.t, box.Put("/bundle", oneFile(s.t, "main.js", source)))
	must(s.t, box.Start("bot"))
	lines := bufio.NewReader(box.Program("bot").Stdout)
	s.expect(lines, "ready")
	if before {
		began = time.Now()
	}
	_, err := io.WriteString(box.Program("bot").Stdin, `{"job":{"event":"message","main":"main.js","account":1,"deadline_ms":30000,`+
		`"bot":{"name":"Bench","address":"bench@chat.test","version":"1"},"message":{"id":1,"chatId":1,"text":"hello"},`+
		`"chat":{"id":1},"contact":{"id":10},"attachment":null}}`+"\n")
	must(s.t, err)
	s.expect(lines, "entered")
	return time.Since(began)
}

func (s *starts) expect(lines *bufio.Reader, method string) {
	line, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(line, method) {
		s.t.Fatalf("want %s, got %q, %v", method, line, err)
	}
}

func oneFile(t *testing.T, name, text string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o600}))
	_, err := io.WriteString(w, text)
	must(t, err)
	must(t, w.Close())
	return &b
}

// native runs an interpreter as a native bot's program, from the opening of the sandbox to the program's end.
func (s *starts) native(command ...string) time.Duration {
	began := time.Now()
	box := s.open(s.manifest(bot.Manifest{Runtime: bot.RuntimeNative, Command: command}))
	defer box.Close()
	must(s.t, box.Start("bot"))
	exit, err := box.Wait(s.t.Context(), "bot")
	took := time.Since(began)
	if err != nil || exit != (sandbox.Exit{}) {
		s.t.Fatalf("%s: %+v, %v", command, exit, err)
	}
	return took
}

const firstQuestion = `{"jsonrpc":"2.0","id":1,"method":"get_all_account_ids","params":[]}` + "\n"

func (s *starts) bareCore() time.Duration {
	accounts, err := os.MkdirTemp(s.dir, "accounts")
	must(s.t, err)
	must(s.t, os.Chown(accounts, sandbox.DefaultUID, sandbox.DefaultUID))
	executable := s.dir + "/core"
	if _, err := os.Stat(executable); err != nil { // where its user can reach it
		out, err := exec.Command("cp", coretest.Binary(s.t), executable).CombinedOutput()
		if err != nil {
			s.t.Fatalf("%v: %s", err, out)
		}
	}
	cmd := s.command(executable)
	cmd.Env = []string{"DC_ACCOUNTS_PATH=" + accounts + "/core", "TMPDIR=" + accounts}
	stdin, err := cmd.StdinPipe()
	must(s.t, err)
	stdout, err := cmd.StdoutPipe()
	must(s.t, err)
	began := time.Now()
	must(s.t, cmd.Start())
	_, err = io.WriteString(stdin, firstQuestion)
	must(s.t, err)
	s.expect(bufio.NewReader(stdout), `"result"`)
	took := time.Since(began)
	must(s.t, stdin.Close())
	must(s.t, cmd.Wait())
	return took
}

func (s *starts) sandboxedCore() time.Duration {
	binary, err := os.Open(coretest.Binary(s.t))
	must(s.t, err)
	defer binary.Close()
	began := time.Now()
	box, err := s.client.Open(s.t.Context(), s.runner.CoreSpec(binary))
	must(s.t, err)
	defer box.Close()
	must(s.t, box.Start("core"))
	_, err = io.WriteString(box.Program("core").Stdin, firstQuestion)
	must(s.t, err)
	s.expect(bufio.NewReader(box.Program("core").Stdout), `"result"`)
	return time.Since(began)
}
