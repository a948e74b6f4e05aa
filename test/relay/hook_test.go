//go:build relay

package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/mailbox"
	"mayfly/internal/wake"
)

// told is what the hook has told.
type told struct {
	account bot.Address
	mailbox string
	uid     uint32
	at      time.Time
}

func (x told) String() string { return fmt.Sprintf("%s %s %d", x.account, x.mailbox, x.uid) }

// listen opens the daemon's side of the hook.
func listen(t testing.TB, r *Relay) (<-chan told, *wake.Listener) {
	t.Helper()
	heard := make(chan told, 1000)
	l, err := wake.Listen(wake.Options{Path: r.Hook, Group: r.HookGroup, Log: slog.New(slog.DiscardHandler),
		Changed: func(account bot.Address, mailbox string, uid uint32) {
			heard <- told{account, mailbox, uid, time.Now()}
		}})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return heard, l
}

func hear(t testing.TB, heard <-chan told, want ...string) {
	t.Helper()
	var got []string
	for range want {
		select {
		case x := <-heard:
			got = append(got, x.String())
		case <-time.After(30 * time.Second):
			t.Fatalf("the hook told %q, want %q", got, want)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the hook told %q, want %q", got, want)
	}
}

// requireSilence waits for a delivery that is told: what was not told before it never will be.
func requireSilence(t testing.TB, r *Relay, heard <-chan told, uid uint32) {
	t.Helper()
	deliver(t, r, ada, text("a mark"))
	hear(t, heard, fmt.Sprintf("%s INBOX %d", ada, uid))
}

func TestHookTellsOfDeliveries(t *testing.T) {
	r := Start(t)
	login(t, r, dice)
	login(t, r, ada)
	heard, l := listen(t, r)
	deliver(t, r, dice, text("one"))
	deliver(t, r, dice, text("two"))
	deliver(t, r, ada, text("three"))
	hear(t, heard, string(dice)+" INBOX 1", string(dice)+" INBOX 2", string(ada)+" INBOX 1")
	if s := l.Stats(); s.Malformed != 0 {
		t.Errorf("malformed datagrams: %+v", s)
	}
	requireQuiet(t, r)
}

func TestHookTellsOfBotFolders(t *testing.T) {
	r := Start(t)
	ctx := t.Context()
	c := login(t, r, dice)
	login(t, r, ada)
	heard, _ := listen(t, r)
	must(t, c.Append(ctx, "Bot", []byte(text("a bundle"))))
	hear(t, heard, string(dice)+" Bot 1")
	must(t, c.Append(ctx, "Bot", []byte(text("an update"))))
	hear(t, heard, string(dice)+" Bot 2")
	must(t, c.Append(ctx, "Bot/drafts", []byte(text("below"))))
	hear(t, heard, string(dice)+" Bot.drafts 1")
	must(t, c.Append(ctx, "INBOX", []byte(text("a mail by IMAP"))))
	hear(t, heard, string(dice)+" INBOX 1")
	// What Mayfly writes itself, and what is not Mayfly's.
	must(t, c.Append(ctx, "Bot/Status", []byte(text("installed"))))
	must(t, c.Append(ctx, "Bottle", []byte(text("a message"))))
	requireSilence(t, r, heard, 1)

	imap := dialRaw(t, r)
	imap.do("RENAME Bottle Bot.more")
	hear(t, heard, string(dice)+" Bot.more 0")
	imap.do("RENAME Bot Away")
	hear(t, heard, string(dice)+" Bot 0")
	imap.do("RENAME Away Bot")
	hear(t, heard, string(dice)+" Bot 0")
	imap.do("SELECT INBOX")
	imap.do("COPY 1 Bot")
	hear(t, heard, string(dice)+" Bot 3")
	imap.do("DELETE Bot")
	hear(t, heard, string(dice)+" Bot 0")
	requireSilence(t, r, heard, 2)
	requireQuiet(t, r)
}

// requireQuiet looks for complaints of Dovecot about scripts.
func requireQuiet(t testing.TB, r *Relay) {
	t.Helper()
	for line := range strings.Lines(r.Logs()) {
		if strings.Contains(line, "lua") || strings.Contains(line, "Error") || strings.Contains(line, "Panic") {
			t.Errorf("Dovecot logged: %s", line)
		}
	}
}

// raw is IMAP by hand, for what mailbox.Client does not do.
type raw struct {
	t    *testing.T
	conn net.Conn
}

func dialRaw(t *testing.T, r *Relay) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", r.IMAP)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	i := &raw{t, conn}
	i.await("* OK")
	i.do(`LOGIN ` + string(dice) + ` "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(password) + `"`)
	return i
}

func (i *raw) do(command string) {
	i.t.Helper()
	_, err := fmt.Fprintf(i.conn, "x %s\r\n", command)
	must(i.t, err)
	i.await("x OK")
}

func (i *raw) await(answer string) {
	i.t.Helper()
	must(i.t, i.conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	var got strings.Builder
	buffer := make([]byte, 4096)
	for !strings.HasPrefix(got.String(), answer) && !strings.Contains(got.String(), "\n"+answer) {
		n, err := i.conn.Read(buffer)
		got.Write(buffer[:n])
		if err != nil {
			i.t.Fatalf("IMAP answered %q, want %q", got.String(), answer)
		}
	}
}

// TestHookNeverDelays: the receiver is missing, hangs with a full queue, or is no socket, and deliveries are made as without the
// hook. The times are printed.
func TestHookNeverDelays(t *testing.T) {
	const n = 40
	off := StartWith(t, Config{NoHook: true})
	on := Start(t)
	for _, r := range []*Relay{off, on} {
		login(t, r, dice)
		for range 5 {
			deliver(t, r, dice, text("warm"))
		}
	}
	var lines []string
	compare := func(name string) {
		var without, with []time.Duration
		for range n { // by turns, so that the machine's load meets both
			without = append(without, deliver(t, off, dice, text(name)))
			with = append(with, deliver(t, on, dice, text(name)))
		}
		lines = append(lines, fmt.Sprintf("%-28s %s   hook off at the same time %s", name, spread(with), spread(without)))
	}

	compare("nobody listens:")
	heard, l := listen(t, on)
	deliver(t, on, dice, text("a mark"))
	<-heard
	compare("the daemon listens:")
	if s := l.Stats(); s.Told+s.Merged != n+1 {
		t.Errorf("the hook told %+v of %d deliveries", s, n+1)
	}
	must(t, l.Close())

	hanging, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: on.Hook, Net: "unixgram"})
	must(t, err)
	must(t, os.Chmod(on.Hook, 0o666))
	fill(t, on.Hook)
	compare("the receiver hangs, is full:")
	must(t, hanging.Close())
	must(t, os.Remove(on.Hook))

	must(t, os.WriteFile(on.Hook, nil, 0o666))
	compare("a file, no socket:")
	must(t, os.Remove(on.Hook))

	stream, err := net.Listen("unix", on.Hook)
	must(t, err)
	must(t, os.Chmod(on.Hook, 0o666))
	compare("a stream socket:")
	must(t, stream.Close())

	for _, r := range []*Relay{off, on} {
		requireQuiet(t, r)
	}
	t.Logf("LMTP delivery, %d by turns, median and p95:\n%s", n, strings.Join(lines, "\n"))
}

// fill sends datagrams until the queue of a socket is full.
func fill(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unixgram", path)
	must(t, err)
	defer conn.Close()
	for n := range 10_000 {
		must(t, conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		if _, err := conn.Write([]byte("x")); err != nil {
			if n == 0 {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the queue is never full")
}

func spread(times []time.Duration) string {
	sorted := slices.Sorted(slices.Values(times))
	return fmt.Sprintf("%v %v", sorted[len(sorted)/2].Round(10*time.Microsecond), sorted[len(sorted)*95/100].Round(10*time.Microsecond))
}

// TestHookIsFasterThanIdle prints how long after the begin of a delivery each tells.
func TestHookIsFasterThanIdle(t *testing.T) {
	const n = 10
	r := Start(t)
	c := login(t, r, dice)
	_, err := c.Select(t.Context(), "INBOX")
	must(t, err)
	heard, _ := listen(t, r)
	var hook, idle []time.Duration
	first := 0
	for range n {
		woken := make(chan error, 1)
		go func(ctx context.Context, c *mailbox.Client) { woken <- c.Idle(ctx) }(t.Context(), c)
		time.Sleep(50 * time.Millisecond) // so that it idles
		start := time.Now()
		deliver(t, r, dice, text("hello"))
		x := <-heard
		hook = append(hook, x.at.Sub(start))
		must(t, <-woken)
		idle = append(idle, time.Since(start))
		if hook[len(hook)-1] < idle[len(idle)-1] {
			first++
		}
	}
	t.Logf("told after, median and p95 of %d: hook %s, IDLE %s", n, spread(hook), spread(idle))
	if first < n*8/10 { // by turns, so that the machine's load meets both
		t.Errorf("the hook was first %d times of %d: there is no use for it", first, n)
	}
}
