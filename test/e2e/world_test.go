// Package e2e runs the whole path with its real parts: mayfly serve as a process of its own, the broker and sandboxes that it
// makes, the official core for every bot and every user, and the embedded relay, which lives in the test so that it outlives
// the host.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
	"mayfly/internal/install"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/minirelay"
	"mayfly/internal/user"
	"mayfly/test/inject"
)

const domain = "chat.test"

// What TestMain sets up once: where mayfly and mayfly-sandbox are built, and the hosts that were started.
var (
	binaries string
	hostPIDs []int
	hostsMu  sync.Mutex // guards hostPIDs where worlds are parallel
)

func started(pid int) {
	hostsMu.Lock()
	defer hostsMu.Unlock()
	hostPIDs = append(hostPIDs, pid)
}

func TestMain(m *testing.M) {
	inject.Launch()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mayfly-e2e-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binaries = dir
	build := exec.Command("go", "build", "-o", dir+"/", "mayfly/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	if err := adopt(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	before := snapshot()
	code := m.Run()
	if left := leftovers(before); left != "" {
		fmt.Fprintf(os.Stderr, "FAIL: the e2e left behind:\n%s", left)
		return 1
	}
	return code
}

// world is a relay and a host on it.
type world struct {
	t          *testing.T
	ctx        context.Context
	dir        string
	relay      *minirelay.Relay
	imap, smtp string
	config     string
	settings   *strings.Replacer // of lines of the configuration; nil: none

	command *exec.Cmd
	log     *hostLog
	crash   string // the file that says where a process is to be killed; builds with the tag crash read it

	inject func(inject.Call) inject.Answer // decides on the host's calls on its state folder; nil: they happen

	accounts []bot.Address
	opened   *ledger.Ledger
}

// newWorld starts a relay. The host is started with serve, so that bots can be listed in its configuration first.
func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, dir: t.TempDir()}
	master := rand.Text()
	w.relay = minirelay.NewRelay(minirelay.RelayConfig{Domain: domain, MasterUser: "mayfly", MasterPassword: master})
	w.imap = listen(t, w.relay.ServeIMAP)
	w.smtp = listen(t, w.relay.ServeSMTP)
	t.Cleanup(func() {
		if err := w.relay.Close(); err != nil {
			t.Error(err)
		}
	})
	w.write("master-password", master)
	return w
}

func listen(t *testing.T, serve func(net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := serve(l); err != nil {
			t.Errorf("relay: %v", err)
		}
	}()
	return l.Addr().String()
}

func (w *world) write(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// newAccount makes an account on the relay, as an author does by logging in, and has the host watch its Bot folder.
func (w *world) newAccount(name string) (bot.Address, *mailbox.Client) {
	w.t.Helper()
	address := bot.Address(name + "@" + domain)
	client, err := mailbox.Dial(w.ctx, mailbox.Server{Addr: w.imap, TLS: "plain"}, mailbox.Login{Username: string(address), Password: rand.Text()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { client.Close() })
	w.accounts = append(w.accounts, address)
	return address, client
}

// serve starts the host. Its log is kept and printed when the test fails.
func (w *world) serve() {
	w.t.Helper()
	accounts, err := json.Marshal(w.accounts)
	if err != nil {
		w.t.Fatal(err)
	}
	config := fmt.Sprintf(`
state = %q
core = %q
sandbox = %q
[relay]
imap = %q
smtp = %q
master_password_file = %q
accounts = %s
[log]
level = "debug"
format = "json"
`, filepath.Join(w.dir, "state"), coretest.Binary(w.t), filepath.Join(binaries, "mayfly-sandbox"), w.imap, w.smtp,
		filepath.Join(w.dir, "master-password"), accounts)
	if w.settings != nil {
		config = w.settings.Replace(config)
	}
	w.config = w.write("mayfly.toml", config)
	w.command = w.serveCommand()
	w.log = &hostLog{news: make(chan struct{}, 1)}
	w.command.Stderr = w.log
	w.command.Stdout = w.log
	start := w.command.Start
	if w.inject != nil {
		start = func() error { return inject.Start(w.command, filepath.Join(w.dir, "state"), w.inject) }
	}
	if err := start(); err != nil {
		w.t.Fatal(err)
	}
	started(w.command.Process.Pid)
	w.t.Cleanup(w.stop)
	w.await(0, `"msg":"ready"`)
}

func (w *world) serveCommand() *exec.Cmd {
	c := exec.Command(filepath.Join(binaries, "mayfly"), "serve", "-config", w.config)
	c.Env = append(os.Environ(), "MAYFLY_CRASH="+w.crash)
	return c
}

// stop ends the host as an operator does, and requires that it ends well.
func (w *world) stop() {
	w.t.Helper()
	if w.command == nil {
		return
	}
	if err := w.command.Process.Signal(syscall.SIGTERM); err != nil {
		w.t.Error(err)
	}
	w.end(true)
	w.checkState()
}

// kill ends the host with SIGKILL.
func (w *world) kill() {
	w.t.Helper()
	if err := w.command.Process.Kill(); err != nil {
		w.t.Fatal(err)
	}
	w.end(false)
}

func (w *world) end(clean bool) {
	timer := time.AfterFunc(30*time.Second, func() { w.command.Process.Kill() })
	err := w.command.Wait()
	timer.Stop()
	w.command = nil
	if clean && err != nil {
		w.t.Errorf("mayfly serve: %v", err)
	}
	if w.t.Failed() {
		w.t.Logf("the host's log:\n%s", w.log)
	}
}

// await waits until a line of the host's log, after the offset, holds all of the texts.
func (w *world) await(after int, texts ...string) {
	w.t.Helper()
	if err := w.log.await(w.ctx, 60*time.Second, after, texts); err != nil {
		w.t.Fatalf("no line with %q in the host's log: %v\n%s", texts, err, w.log)
	}
}

// hostLog keeps the log of the host.
type hostLog struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func (l *hostLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
	return l.text.Write(b)
}

func (l *hostLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// offset is where the next line begins.
func (l *hostLog) offset() int { return len(l.String()) }

func (l *hostLog) await(ctx context.Context, limit time.Duration, after int, texts []string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		for line := range strings.Lines(l.String()[after:]) {
			if containsAll(line, texts) {
				return nil
			}
		}
		select {
		case <-l.news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func containsAll(line string, texts []string) bool {
	for _, t := range texts {
		if !strings.Contains(line, t) {
			return false
		}
	}
	return true
}

// files are a bundle, by path.
type files map[string]string

// script is a bundle of one module. The manifest's name is the bot's.
func script(name, source string) files {
	return files{"main.js": source, "bot.toml": fmt.Sprintf(`
name = %q
summary = "made for a test"
version = "1.0.0"
contact = "mailto:author@example.org"
runtime = "js"
main = "main.js"
[limits]
wall = "5s"
`, name)}
}

// with adds lines to the manifest.
func (f files) with(lines string) files {
	f["bot.toml"] += lines
	return f
}

// append puts a bundle into the Bot folder as an author does.
func (w *world) append(client *mailbox.Client, address bot.Address, f files) {
	w.t.Helper()
	var list []bundle.File
	for path, text := range f {
		list = append(list, bundle.File{Path: path, Data: []byte(text)})
	}
	b, err := bundle.FromFiles(list, bundle.DefaultCeilings())
	if err != nil {
		w.t.Fatal(err)
	}
	mail, err := install.Compose(b, address)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := client.Append(w.ctx, install.Folder, mail); err != nil {
		w.t.Fatal(err)
	}
}

// status waits for the n-th answer in Bot/Status (from 1) and returns it whole.
func (w *world) status(client *mailbox.Client, n int) string {
	w.t.Helper()
	for w.ctx.Err() == nil {
		if _, err := client.Select(w.ctx, install.StatusFolder); err == nil {
			list, err := client.List(w.ctx, 0, 100)
			if err != nil {
				w.t.Fatal(err)
			}
			if len(list) >= n {
				mail, err := client.Fetch(w.ctx, list[n-1].UID, 1<<20)
				if err != nil {
					w.t.Fatal(err)
				}
				return string(mail)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.t.Fatalf("no answer %d in %s\n%s", n, install.StatusFolder, w.log)
	return ""
}

// installed waits for the first answer and returns the invite link in it.
func (w *world) installed(client *mailbox.Client) string {
	w.t.Helper()
	mail := w.status(client, 1)
	if !strings.Contains(mail, "Mayfly-State: installed") {
		w.t.Fatalf("not installed:\n%s", mail)
	}
	mail = strings.ReplaceAll(strings.ReplaceAll(mail, "=\r\n", ""), "=3D", "=") // quoted-printable
	at := strings.Index(mail, "https://i.delta.chat/#")
	if at < 0 {
		w.t.Fatalf("no invite link in:\n%s", mail)
	}
	return strings.Fields(mail[at:])[0]
}

// start makes a bot: an account, a bundle, the host if it does not run yet.
func (w *world) start(name string, f files) (address bot.Address, invite string) {
	w.t.Helper()
	address, client := w.newAccount(name)
	w.append(client, address, f)
	if w.command == nil {
		w.serve()
	} else {
		w.stop()
		w.serve()
	}
	return address, w.installed(client)
}

// person is a user with a real core.
type person struct {
	*user.User
	w *world
}

func (w *world) person(name string) *person {
	w.t.Helper()
	host, imapPort := split(w.t, w.imap)
	_, smtpPort := split(w.t, w.smtp)
	u, err := user.Start(w.ctx, coretest.Binary(w.t), filepath.Join(w.dir, name), name, core.Transport{
		Addr: name + "@" + domain, Password: rand.Text(), IMAPServer: host, IMAPPort: imapPort, SMTPServer: host, SMTPPort: smtpPort,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := u.Close(); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
	})
	return &person{u, w}
}

func split(t *testing.T, address string) (string, uint16) {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return a.IP.String(), uint16(a.Port)
}

func (p *person) join(invite string) core.ChatID {
	p.w.t.Helper()
	chat, err := p.Join(p.w.ctx, invite)
	if err != nil {
		p.w.t.Fatalf("%v\nthe host's log:\n%s", err, p.w.log)
	}
	return chat
}

// meet joins another person by invite.
func (p *person) meet(other *person) core.ChatID {
	p.w.t.Helper()
	invite, err := other.Invite(p.w.ctx, other.Account)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return p.join(invite)
}

// group makes a group with those whom the person has chats with.
func (p *person) group(name string, chats ...core.ChatID) core.ChatID {
	p.w.t.Helper()
	group, err := p.CreateGroup(p.w.ctx, p.Account, name)
	if err != nil {
		p.w.t.Fatal(err)
	}
	for _, chat := range chats {
		full, err := p.FullChat(p.w.ctx, p.Account, chat)
		if err == nil {
			err = p.AddContactToChat(p.w.ctx, p.Account, group, full.ContactIDs[0])
		}
		if err != nil {
			p.w.t.Fatal(err)
		}
	}
	return group
}

func (p *person) say(chat core.ChatID, text string) core.MsgID {
	p.w.t.Helper()
	id, err := p.Say(p.w.ctx, chat, text)
	if err != nil {
		p.w.t.Fatal(err)
	}
	return id
}

// hear waits for the next message and requires that it is encrypted and signed.
func (p *person) hear() core.Message {
	p.w.t.Helper()
	return p.hearWithin(time.Minute)
}

func (p *person) hearWithin(limit time.Duration) core.Message {
	p.w.t.Helper()
	ctx, cancel := context.WithTimeout(p.w.ctx, limit)
	defer cancel()
	m, err := p.Next(ctx)
	if err != nil {
		p.w.t.Fatalf("%v\nthe host's log:\n%s", err, p.w.log)
	}
	if !m.Authentic() {
		p.w.t.Fatalf("a message without a padlock: %+v", m)
	}
	return m
}

func (p *person) expect(text string) core.Message {
	p.w.t.Helper()
	m := p.hear()
	if m.Text != text {
		p.w.t.Fatalf("heard %q, want %q", m.Text, text)
	}
	return m
}

// whole waits until an attachment has come, which is a mail of its own, and returns the message with it.
func (p *person) whole(m core.Message) core.Message {
	p.w.t.Helper()
	for m.DownloadState != "Done" {
		_, err := p.Await(p.w.ctx, func(e core.Event) bool { return e.MsgID == m.ID })
		if err == nil {
			m, err = p.GetMessage(p.w.ctx, p.Account, m.ID)
		}
		if err != nil {
			p.w.t.Fatalf("waiting for the attachment of %+v: %v", m, err)
		}
	}
	return m
}

// ledger opens the host's ledger beside the host.
func (w *world) ledger() *ledger.Ledger {
	w.t.Helper()
	if w.opened != nil {
		return w.opened
	}
	l, err := ledger.Open(w.ctx, filepath.Join(w.dir, "state", "ledger.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	w.opened = l
	return l
}

// run returns the newest run of a bot.
func (w *world) run(address bot.Address) ledger.Run {
	w.t.Helper()
	runs, err := w.ledger().Runs(w.ctx, address, 1)
	if err != nil || len(runs) == 0 {
		w.t.Fatalf("runs of %s: %v, %v", address, runs, err)
	}
	return runs[0]
}

// awaitJobs waits until n jobs of a bot are over and their mails deleted from the relay.
func (w *world) awaitJobs(address bot.Address, n int) {
	w.t.Helper()
	var jobs []ledger.Job
	err := w.poll(func() bool {
		var err error
		if jobs, err = w.ledger().Jobs(w.ctx, address, ledger.JobCleared); err != nil {
			w.t.Fatal(err)
		}
		return len(jobs) >= n
	})
	if err != nil {
		w.t.Fatalf("%d jobs are over, want %d\n%s", len(jobs), n, w.log)
	}
}

// poll waits until a condition holds.
func (w *world) poll(holds func() bool) error {
	for start := time.Now(); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			return context.DeadlineExceeded
		}
	}
	return nil
}

// awaitDelivered waits until the relay has put n mails into INBOXes since it was started.
func (w *world) awaitDelivered(n int64) {
	w.t.Helper()
	if err := w.poll(func() bool { return w.relay.Stats().Delivered >= n }); err != nil {
		w.t.Fatalf("the relay delivered %d mails, want %d", w.relay.Stats().Delivered, n)
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
