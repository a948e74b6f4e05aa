//go:build bench

package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core/coretest"
	"mayfly/test/relay"
)

// stages are those of one session: when it woke, and how long after that it reached each of the others.
type stages struct {
	bot  bot.Address
	wake time.Time
	at   map[string]time.Duration
}

// host is a running `mayfly serve`, the one of `make build`. TLS is verified, by the relay's CA.
type host struct {
	t       *testing.T
	dir     string
	command *exec.Cmd
	log     string // path; JSON
	socket  string // where it listens for the hook
}

// startHost starts a host on a real relay. It does not poll: that would open connections to bots that are to be asked while they have none.
func startHost(t *testing.T, r *relay.Relay) *host {
	t.Helper()
	h := newHost(t, r.MasterPassword)
	h.socket = filepath.Join(filepath.Dir(r.Hook), "mayfly")
	h.start(fmt.Sprintf(`
imap = %q
imap_security = "tls"
smtp = %q
smtp_security = "tls"
master_user = %q
`, r.IMAPTLS, r.SubmissionTLS, r.MasterUser), "SSL_CERT_FILE="+r.CAFile)
	return h
}

// newHost is one that does not run yet.
func newHost(t *testing.T, masterPassword string) *host {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "master-password"), []byte(masterPassword), 0o600))
	return &host{t: t, dir: dir, log: filepath.Join(dir, "log"), socket: filepath.Join(dir, "wake")}
}

func (h *host) state() string { return filepath.Join(h.dir, "state") }

// start runs the host with these lines in the table [relay] of its configuration, and returns when it listens.
func (h *host) start(relay string, env ...string) {
	h.t.Helper()
	bin, err := filepath.Abs("../../bin")
	must(h.t, err)
	config := fmt.Sprintf(`
state = %q
core = %q
sandbox = %q
[log]
level = "debug"
format = "json"
[install]
bots = 0
installs_per_hour = 0
[limits]
cpu_per_hour = "0s"
cpu_per_day = "0s"
mails_per_hour = 0
bytes_per_hour = "0B"
[limits.per_user]
mails_per_hour = 1000000
mails_per_day = 1000000
seconds_per_hour = 1000000
bytes_per_hour = "100GB"
[limits.sending]
mails_per_hour = 1000000
bytes_per_hour = "100GB"
mails_per_hour_and_contact = 1000000
bytes_per_hour_and_contact = "100GB"
[relay]
master_password_file = %q
wake_socket = %q
poll = "24h"
%s`, h.state(), coretest.Binary(h.t), filepath.Join(bin, "mayfly-sandbox"), filepath.Join(h.dir, "master-password"), h.socket, relay)
	must(h.t, os.WriteFile(filepath.Join(h.dir, "mayfly.toml"), []byte(config), 0o600))
	log, err := os.Create(h.log)
	must(h.t, err)
	defer log.Close()
	h.command = exec.Command(filepath.Join(bin, "mayfly"), "serve", "-config", filepath.Join(h.dir, "mayfly.toml"))
	h.command.Env = append(os.Environ(), env...)
	h.command.Stdout, h.command.Stderr = log, log
	must(h.t, h.command.Start())
	h.t.Cleanup(h.stop)
	h.awaitReady()
}

// awaitReady waits until the host listens.
func (h *host) awaitReady() {
	h.t.Helper()
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if text, err := os.ReadFile(h.log); err == nil && strings.Contains(string(text), `"msg":"ready"`) {
			return
		}
	}
	h.t.Fatal("the host is not ready after a minute")
}

func (h *host) stop() {
	h.t.Helper()
	must(h.t, h.command.Process.Signal(syscall.SIGTERM))
	timer := time.AfterFunc(30*time.Second, func() { h.command.Process.Kill() })
	defer timer.Stop()
	if err := h.command.Wait(); err != nil {
		h.t.Errorf("mayfly serve: %v", err)
	}
	if h.t.Failed() {
		text, err := os.ReadFile(h.log)
		h.t.Logf("the host's log: %v\n%s", err, text)
	}
}

// sessions reads from the log the stages of all sessions that ran a bot.
func (h *host) sessions() []stages {
	h.t.Helper()
	var all []stages
	for _, line := range h.lines("session stages") {
		if line["handler"] != nil {
			all = append(all, stagesOf(h.t, line))
		}
	}
	return all
}

// lines are those of the log with a message.
func (h *host) lines(msg string) []map[string]any {
	h.t.Helper()
	log, err := os.Open(h.log)
	must(h.t, err)
	defer log.Close()
	var all []map[string]any
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == msg {
			all = append(all, line)
		}
	}
	must(h.t, lines.Err())
	return all
}

func stagesOf(t *testing.T, line map[string]any) stages {
	t.Helper()
	s := stages{at: map[string]time.Duration{}}
	for name, value := range line {
		if ms, ok := value.(float64); ok {
			s.at[name] = time.Duration(ms * float64(time.Millisecond))
		}
	}
	var err error
	s.wake, err = time.Parse(time.RFC3339Nano, line["wake"].(string))
	must(t, err)
	s.bot = bot.Address(line["bot"].(string))
	return s
}
