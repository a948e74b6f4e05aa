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
	command *exec.Cmd
	log     string // path; JSON
	socket  string // where it listens for the hook
}

func startHost(t *testing.T, r *relay.Relay) *host {
	t.Helper()
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	dir := t.TempDir()
	h := &host{t: t, log: filepath.Join(dir, "log"), socket: filepath.Join(filepath.Dir(r.Hook), "mayfly")}
	must(t, os.WriteFile(filepath.Join(dir, "master-password"), []byte(r.MasterPassword), 0o600))
	// A poll would open connections to bots that are to be asked while they have none.
	config := fmt.Sprintf(`
state = %q
core = %q
sandbox = %q
[relay]
imap = %q
imap_security = "tls"
smtp = %q
smtp_security = "tls"
master_user = %q
master_password_file = %q
wake_socket = %q
poll = "24h"
[log]
level = "debug"
format = "json"
`, filepath.Join(dir, "state"), coretest.Binary(t), filepath.Join(bin, "mayfly-sandbox"), r.IMAPTLS, r.SubmissionTLS, r.MasterUser,
		filepath.Join(dir, "master-password"), h.socket)
	must(t, os.WriteFile(filepath.Join(dir, "mayfly.toml"), []byte(config), 0o600))
	log, err := os.Create(h.log)
	must(t, err)
	defer log.Close()
	h.command = exec.Command(filepath.Join(bin, "mayfly"), "serve", "-config", filepath.Join(dir, "mayfly.toml"))
	h.command.Env = append(os.Environ(), "SSL_CERT_FILE="+r.CAFile)
	h.command.Stdout, h.command.Stderr = log, log
	must(t, h.command.Start())
	t.Cleanup(h.stop)
	h.awaitReady()
	return h
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
	log, err := os.Open(h.log)
	must(h.t, err)
	defer log.Close()
	var all []stages
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) != nil || line["msg"] != "session stages" || line["handler"] == nil {
			continue
		}
		all = append(all, stagesOf(h.t, line))
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
