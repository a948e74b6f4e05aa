//go:build relay

package relay

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
	"mayfly/internal/install"
	"mayfly/internal/mailbox"
	"mayfly/internal/user"
)

// binaries is the folder of mayfly and mayfly-sandbox, which TestMain builds.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if os.Getenv(doomed) != "" { // it will be killed, and needs no host
		return m.Run()
	}
	var err error
	if binaries, err = os.MkdirTemp("", "mayfly-relay-bin-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binaries)
	build := exec.Command("go", "build", "-o", binaries+"/", "mayfly/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// host is a running `mayfly serve` on a relay, with TLS verified on both sides by the system's CAs, which SSL_CERT_FILE names.
type host struct {
	t       *testing.T
	dir     string
	command *exec.Cmd
	log     string // path
}

// serve starts it with more lines for the section [relay] of its configuration.
func serve(t *testing.T, r *Relay, lines string) *host {
	t.Helper()
	h := configure(t, r, lines)
	h.start(r)
	return h
}

// byHook are the lines for a host that is told by the hook.
func byHook(r *Relay) string {
	return fmt.Sprintf("wake_socket = %q\nwake_group = %q", r.Hook, mailGroup)
}

// configure lays out what a host needs to be started.
func configure(t *testing.T, r *Relay, lines string) *host {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "master-password"), []byte(r.MasterPassword), 0o600))
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
%s
[log]
level = "debug"
`, filepath.Join(dir, "state"), coretest.Binary(t), filepath.Join(binaries, "mayfly-sandbox"), r.IMAPTLS, r.SubmissionTLS, r.MasterUser,
		filepath.Join(dir, "master-password"), lines)
	must(t, os.WriteFile(filepath.Join(dir, "mayfly.toml"), []byte(config), 0o600))

	return &host{t: t, dir: dir, log: filepath.Join(dir, "log")}
}

// start starts the host, to be stopped at the end of the test at the latest.
func (h *host) start(r *Relay) {
	h.t.Helper()
	log, err := os.OpenFile(h.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(h.t, err)
	defer log.Close()
	h.command = exec.Command(filepath.Join(binaries, "mayfly"), "serve", "-config", filepath.Join(h.dir, "mayfly.toml"))
	h.command.Env = append(os.Environ(), "SSL_CERT_FILE="+r.CAFile)
	h.command.Stdout, h.command.Stderr = log, log
	must(h.t, h.command.Start())
	h.t.Cleanup(h.stop)
}

// stop ends the host as an operator does, and requires that it ends well.
func (h *host) stop() {
	h.t.Helper()
	if h.command == nil {
		return
	}
	defer func() { h.command = nil }()
	must(h.t, h.command.Process.Signal(syscall.SIGTERM))
	timer := time.AfterFunc(30*time.Second, func() { h.command.Process.Kill() })
	defer timer.Stop()
	if err := h.command.Wait(); err != nil {
		h.t.Errorf("mayfly serve: %v", err)
	}
	if h.t.Failed() {
		h.t.Logf("the host's log:\n%s", h.text())
	}
}

// text is what the host has logged.
func (h *host) text() string {
	h.t.Helper()
	text, err := os.ReadFile(h.log)
	must(h.t, err)
	return string(text)
}

// invite waits for the first answer in Bot/Status and returns the link in it.
func invite(t *testing.T, ctx context.Context, c *mailbox.Client) string {
	t.Helper()
	mail := answer(t, ctx, c, 1)
	if !strings.Contains(mail, "Mayfly-State: installed") {
		t.Fatalf("not installed:\n%s", mail)
	}
	return regexp.MustCompile(`https://i\.delta\.chat/#\S+`).FindString(mail)
}

// answer waits for the n-th answer in Bot/Status, from 1, and returns it with its quoted-printable undone.
func answer(t *testing.T, ctx context.Context, c *mailbox.Client, n int) string {
	t.Helper()
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if _, err := c.Select(ctx, install.StatusFolder); err != nil {
			continue // not made yet
		}
		list, err := c.List(ctx, 0, 100)
		must(t, err)
		if len(list) < n {
			continue
		}
		mail, err := c.Fetch(ctx, list[n-1].UID, 1<<20)
		must(t, err)
		return strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(string(mail))
	}
	t.Fatalf("no answer %d in %s", n, install.StatusFolder)
	return ""
}

func person(t *testing.T, ctx context.Context, r *Relay, address bot.Address) *user.User {
	t.Helper()
	imap, err := net.ResolveTCPAddr("tcp", r.IMAP)
	must(t, err)
	submission, err := net.ResolveTCPAddr("tcp", r.SubmissionPlain)
	must(t, err)
	u, err := user.Start(ctx, coretest.Binary(t), filepath.Join(t.TempDir(), "core"), address.Local(), core.Transport{
		Addr: string(address), Password: password,
		IMAPServer: "127.0.0.1", IMAPPort: uint16(imap.Port), SMTPServer: "127.0.0.1", SMTPPort: uint16(submission.Port),
	})
	must(t, err)
	t.Cleanup(func() { must(t, u.Close()) })
	return u
}

// TestWholePath: an author appends a bundle, the host installs it as the relay's master user, a user joins by the invite link
// and gets replies, and the bot's INBOX is empty in the end. The host hears of it all by IDLE, and then by the hook, when it is
// told of no account beforehand.
func TestWholePath(t *testing.T) {
	t.Run("by IDLE", func(t *testing.T) {
		r := Start(t)
		author := login(t, r, dice)
		wholePath(t, r, author, func() { serve(t, r, fmt.Sprintf("accounts = [%q]", dice)) })
	})
	t.Run("by hook", func(t *testing.T) {
		r := Start(t)
		h := serve(t, r, byHook(r))
		h.awaitReady()
		author := login(t, r, dice)
		wholePath(t, r, author, func() {})
	})
}

// awaitReady waits until the host listens.
func (h *host) awaitReady() {
	h.t.Helper()
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
		if strings.Contains(h.text(), "msg=ready") {
			return
		}
	}
	h.t.Fatal("the host is not ready after a minute")
}

// put appends a bundle as its author does.
func put(t *testing.T, ctx context.Context, author *mailbox.Client, account bot.Address, b *bundle.Bundle) {
	t.Helper()
	mail, err := install.Compose(b, account)
	must(t, err)
	must(t, author.Append(ctx, install.Folder, mail))
}

func wholePath(t *testing.T, r *Relay, author *mailbox.Client, appended func()) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	b, err := bundle.FromDir("../../examples/dice", bundle.DefaultCeilings())
	must(t, err)
	put(t, ctx, author, dice, b)
	appended()
	link := invite(t, ctx, author)

	u := person(t, ctx, r, ada)
	chat, err := u.Join(ctx, link)
	must(t, err)
	var took []time.Duration
	for range 5 {
		start := time.Now()
		_, err := u.Say(ctx, chat, "2d6")
		must(t, err)
		m, err := u.Next(ctx)
		must(t, err)
		took = append(took, time.Since(start))
		if !m.Authentic() || !regexp.MustCompile(`[1-6].*[1-6].*=.*\d+`).MatchString(m.Text) {
			t.Errorf("dice said %+v", m)
		}
	}
	t.Logf("a user's core said, the bot's reply in the user's core: median and p95 of %d: %s", len(took), spread(took))
	requireEmpty(t, ctx, author)
}

// requireEmpty waits until the account's INBOX holds nothing.
func requireEmpty(t *testing.T, ctx context.Context, c *mailbox.Client) {
	t.Helper()
	for {
		status, err := c.Select(ctx, "INBOX")
		must(t, err)
		if status.Messages == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
