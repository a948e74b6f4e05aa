//go:build bench

package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/install"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/minirelay"
	"mayfly/internal/user"
)

// wakes is the world of the last part: the embedded relay, whose hook the host has, and a host with many bots, of which one is asked.
type wakes struct {
	t          *testing.T
	host       *host
	imap, smtp string
	ledger     *ledger.Ledger
}

// measureWakes asks one bot n times, on hosts with more and more bots installed.
func measureWakes(t *testing.T, ctx context.Context, n int, installed ...int) []Row {
	var rows []Row
	var base []time.Duration
	for _, many := range installed {
		t.Run(strconv.Itoa(many), func(t *testing.T) {
			w := startWakes(t, ctx, many)
			fmt.Println("  " + w.resting(ctx, many))
			mails := w.ask(ctx, n)
			if base == nil {
				base = mails.took
			}
			rows = append(rows, mails.rows(fmt.Sprintf("wake: one of %d bots", many), base)...)
		})
	}
	return rows
}

func startWakes(t *testing.T, ctx context.Context, installed int) *wakes {
	t.Helper()
	master := rand.Text()
	w := &wakes{t: t, host: newHost(t, master)}
	relay := minirelay.NewRelay(minirelay.RelayConfig{Domain: "chat.test", MasterPassword: master, MaxAccounts: installed + 10, OnChange: w.changed})
	t.Cleanup(func() { must(t, relay.Close()) })
	w.imap, w.smtp = serve(t, relay.ServeIMAP), serve(t, relay.ServeSMTP)
	must(t, os.Mkdir(w.host.state(), 0o700))
	var err error
	w.ledger, err = ledger.Open(ctx, filepath.Join(w.host.state(), "ledger.db"))
	must(t, err)
	t.Cleanup(func() { must(t, w.ledger.Close()) })
	w.makeAccount(ctx, sleeper(0))
	for i := range installed - 1 {
		w.makeAccount(ctx, idle(i))
		must(t, w.ledger.Install(ctx, ledger.Bot{Address: idle(i), Manifest: bot.Manifest{Name: "Bot"}, Digest: "0"}))
	}
	w.host.start(fmt.Sprintf("imap = %q\nsmtp = %q\naccounts = [%q]\n", w.imap, w.smtp, sleeper(0)))
	return w
}

func idle(i int) bot.Address { return bot.Address(fmt.Sprintf("idle%05d@chat.test", i)) }

func serve(t *testing.T, on func(net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() {
		if err := on(l); err != nil {
			t.Errorf("relay: %v", err)
		}
	}()
	return l.Addr().String()
}

func (w *wakes) login(ctx context.Context, address bot.Address) *mailbox.Client {
	w.t.Helper()
	c, err := mailbox.Dial(ctx, mailbox.Server{Addr: w.imap, TLS: mailbox.Plain}, mailbox.Login{Username: string(address), Password: password})
	must(w.t, err)
	return c
}

// makeAccount logs in to it for the first time, and makes its Bot folder.
func (w *wakes) makeAccount(ctx context.Context, address bot.Address) {
	w.t.Helper()
	c := w.login(ctx, address)
	must(w.t, errors.Join(c.Create(ctx, install.Folder), c.Close()))
}

// changed tells the host, as Dovecot's push script does. A host that does not run is not told.
func (w *wakes) changed(address bot.Address, box string, uid uint32) {
	conn, err := net.Dial("unixgram", w.host.socket)
	if err != nil {
		return
	}
	_, err = fmt.Fprintf(conn, "1\t%s\t%s\t%d\n", address, box, uid)
	if err := errors.Join(err, conn.Close()); err != nil {
		w.t.Errorf("telling of mail: %v", err)
	}
}

// resting waits until the host has looked at every bot, and says what it costs then.
func (w *wakes) resting(ctx context.Context, installed int) string {
	w.t.Helper()
	start := time.Now()
	for i := range installed - 1 {
		for {
			must(w.t, ctx.Err())
			f, err := w.ledger.Folder(ctx, idle(i))
			must(w.t, err)
			if f.Inbox != 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	looked := time.Since(start)
	time.Sleep(time.Second)
	before := w.host.cpu()
	const rest = 5 * time.Second
	time.Sleep(rest)
	return fmt.Sprintf("%d bots: all looked at in %v; then the daemon has %s kB, %d threads, %d sockets, %d child, and takes %.3f%% of a CPU", installed,
		looked.Round(time.Millisecond), w.host.status("VmRSS"), w.host.threads(), w.host.sockets(), len(w.host.children()), 100*(w.host.cpu()-before).Seconds()/rest.Seconds())
}

// asked is what the mails took, and whose CPU time.
type asked struct {
	took            []time.Duration
	core, bot, host time.Duration // of all of them
}

func (w *wakes) ask(ctx context.Context, n int) asked {
	w.t.Helper()
	author := w.login(ctx, sleeper(0))
	invite := installEcho(w.t, ctx, author, sleeper(0))
	must(w.t, author.Close())
	u := startUser(w.t, ctx, ada, w.imap, w.smtp)
	chat, err := u.Join(ctx, invite)
	must(w.t, err)
	w.once(ctx, u, chat) // the first one has a session of the handshake before it
	sessions, before := len(w.host.lines("session committed")), w.host.cpu()
	var a asked
	for range n {
		a.took = append(a.took, w.once(ctx, u, chat))
	}
	time.Sleep(200 * time.Millisecond) // the mail is deleted
	a.host = w.host.cpu() - before
	for _, line := range w.host.lines("session committed")[sessions:] {
		a.core += time.Duration(line["core_cpu"].(float64))
		a.bot += time.Duration(line["cpu"].(float64))
	}
	return a
}

// once is from the relay's 250 to the answer in the user's core.
func (w *wakes) once(ctx context.Context, u *user.User, chat core.ChatID) time.Duration {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err := u.Say(ctx, chat, "hello")
	must(w.t, err)
	_, err = u.Await(ctx, func(e core.Event) bool { return e.Kind == "SmtpMessageSent" })
	must(w.t, err)
	accepted := time.Now()
	_, err = u.Next(ctx)
	must(w.t, err)
	return time.Since(accepted)
}

// rows are the time of a mail with all CPU time of it, and the parts of that.
func (a asked) rows(name string, base []time.Duration) []Row {
	n := time.Duration(len(a.took))
	part := func(what string, all time.Duration) Row {
		return Row{Name: "  CPU time a mail: " + what, Times: []time.Duration{all / n}}
	}
	return []Row{
		{Name: name, Times: a.took, Base: base, CPU: (a.core + a.bot + a.host) / n},
		part("core and the reader of its account", a.core), part("the bot", a.bot), part("daemon and broker", a.host),
	}
}

// cpu is what the daemon and its broker have used.
func (h *host) cpu() time.Duration {
	h.t.Helper()
	var all time.Duration
	for _, pid := range append(h.children(), h.command.Process.Pid) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		must(h.t, err)
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] { // utime and stime of proc(5)
			ticks, err := strconv.Atoi(field)
			must(h.t, err)
			all += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return all
}

func (h *host) children() []int {
	h.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", h.command.Process.Pid))
	must(h.t, err)
	var pids []int
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			must(h.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// status is a field of /proc/PID/status.
func (h *host) status(field string) string {
	h.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.command.Process.Pid))
	must(h.t, err)
	_, rest, _ := strings.Cut(string(text), field+":")
	return strings.Fields(rest + " ?")[0]
}

func (h *host) threads() int {
	n, err := strconv.Atoi(h.status("Threads"))
	must(h.t, err)
	return n
}

func (h *host) sockets() int {
	h.t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.command.Process.Pid))
	must(h.t, err)
	n := 0
	for _, path := range paths {
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}
