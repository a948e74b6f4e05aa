package wake

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("x", maxMailbox)
	for _, c := range []struct {
		datagram string
		want     change
	}{
		{"1\tdice@chat.test\tINBOX\t42\n", change{"dice@chat.test", "INBOX", 42}},
		{"1\tdice@chat.test\tINBOX\t42", change{"dice@chat.test", "INBOX", 42}},
		{"1\tdice@chat.test\tInbox\t42.0\n", change{"dice@chat.test", "INBOX", 42}},
		{"1\tDice@Chat.Test\tBot\t0\n", change{"dice@chat.test", "Bot", 0}},
		{"1\tdice@[127.0.0.1]\tBot.entwürfe\t4294967295\n", change{"dice@[127.0.0.1]", "Bot.entwürfe", 4294967295}},
		{"1\tdice@chat.test\t" + long + "\t1\n", change{"dice@chat.test", long, 1}},
	} {
		got, err := parse([]byte(c.datagram))
		if err != nil || got != c.want {
			t.Errorf("%q: got %+v, %v; want %+v", c.datagram, got, err, c.want)
		}
	}
}

func malformed() []string {
	return []string{
		"", "\n", "1", "1\t\t\t", "1\tdice@chat.test\tINBOX\n",
		"2\tdice@chat.test\tINBOX\t42\n",
		"1\tdice@chat.test\tINBOX\t42\tmore\n",
		"1\tdice@chat.test\tINBOX\t42\n1\tdice@chat.test\tINBOX\t43\n",
		"1\tdice@chat.test\tINBOX\t42\n\n",
		"1\t../../etc\tINBOX\t42\n",
		"1\tdice@chat.test\t\t42\n",
		"1\tdice@chat.test\tIN\x00BOX\t42\n",
		"1\tdice@chat.test\tIN\rBOX\t42\n",
		"1\tdice@chat.test\t\xff\xfe\t42\n",
		"1\tdice@chat.test\t" + strings.Repeat("x", maxMailbox+1) + "\t42\n",
		"1\tdice@chat.test\tINBOX\t\n",
		"1\tdice@chat.test\tINBOX\t-1\n",
		"1\tdice@chat.test\tINBOX\t+1\n",
		"1\tdice@chat.test\tINBOX\t4294967296\n",
		"1\tdice@chat.test\tINBOX\t42.5\n",
		"1\tdice@chat.test\tINBOX\t4e2\n",
		"1\tdice@chat.test\tINBOX\tnan\n",
		strings.Repeat("1\tdice@chat.test\tINBOX\t42\n", 100),
	}
}

func TestParseRefuses(t *testing.T) {
	for _, datagram := range malformed() {
		if got, err := parse([]byte(datagram)); !errors.Is(err, errMalformed) {
			t.Errorf("%q: got %+v, %v", datagram, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("1\tdice@chat.test\tINBOX\t42\n"))
	f.Add([]byte("1\tdice@chat.test\tBot.Status\t42.0"))
	for _, datagram := range malformed() {
		f.Add([]byte(datagram))
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		c, err := parse(datagram)
		if err != nil {
			return
		}
		again, err := parse(fmt.Appendf(nil, "1\t%s\t%s\t%d\n", c.account, c.mailbox, c.uid))
		if err != nil || again != c {
			t.Errorf("%q was read as %+v, which is read as %+v, %v", datagram, c, again, err)
		}
	})
}

// ear is a listener and what it was told.
type ear struct {
	*Listener
	t    *testing.T
	path string

	mu   sync.Mutex
	told []change
	hold chan struct{} // where not nil, Changed waits for it to be closed
}

func listen(t *testing.T, hold chan struct{}) *ear {
	t.Helper()
	e := &ear{t: t, path: filepath.Join(t.TempDir(), "wake"), hold: hold}
	var err error
	e.Listener, err = Listen(Options{Path: e.path, Group: -1, Changed: e.changed, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *ear) changed(account bot.Address, mailbox string, uid uint32) {
	e.mu.Lock()
	e.told = append(e.told, change{account, mailbox, uid})
	e.mu.Unlock()
	if e.hold != nil {
		<-e.hold
	}
}

// send sends datagrams as Dovecot does: without waiting.
func (e *ear) send(datagrams ...string) (refused int) {
	e.t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		e.t.Fatal(err)
	}
	defer syscall.Close(fd)
	for _, d := range datagrams {
		err := syscall.Sendto(fd, []byte(d), 0, &syscall.SockaddrUnix{Name: e.path})
		if err == syscall.EAGAIN {
			refused++
		} else if err != nil {
			e.t.Fatal(err)
		}
	}
	return refused
}

// sendAll sends datagrams and waits where the queue of the socket is full.
func (e *ear) sendAll(datagrams ...string) {
	e.t.Helper()
	for _, d := range datagrams {
		for e.send(d) == 1 {
			time.Sleep(time.Millisecond)
		}
	}
}

func (e *ear) await(what string, holds func() bool) {
	e.t.Helper()
	for start := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			e.t.Fatalf("%s: %+v", what, e.Stats())
		}
	}
}

func (e *ear) heard() []change {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]change(nil), e.told...)
}

func TestChangesAreTold(t *testing.T) {
	e := listen(t, nil)
	info, err := os.Stat(e.path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket: %v, %v; want mode 0660", info.Mode(), err)
	}
	e.sendAll("1\tdice@chat.test\tINBOX\t7\n")
	e.await("the first", func() bool { return len(e.heard()) == 1 })
	e.sendAll("1\techo@chat.test\tBot\t0\n")
	e.await("the second", func() bool { return len(e.heard()) == 2 })
	want := []change{{"dice@chat.test", "INBOX", 7}, {"echo@chat.test", "Bot", 0}}
	if got := e.heard(); got[0] != want[0] || got[1] != want[1] {
		t.Errorf("told %+v, want %+v", got, want)
	}
}

func TestMalformedIsCountedAndDropped(t *testing.T) {
	e := listen(t, nil)
	hostile := malformed()
	e.sendAll(hostile...)
	e.sendAll("1\tdice@chat.test\tINBOX\t7\n")
	e.await("the good one", func() bool { return len(e.heard()) == 1 })
	if got := e.Stats().Malformed; got != int64(len(hostile)) {
		t.Errorf("counted %d malformed, want %d", got, len(hostile))
	}
}

// TestASlowCallbackFillsNothing: the callback hangs while ten thousand changes of one account and one of another come in.
func TestASlowCallbackFillsNothing(t *testing.T) {
	hold := make(chan struct{})
	e := listen(t, hold)
	e.sendAll("1\tfirst@chat.test\tINBOX\t1\n")
	e.await("the callback", func() bool { return len(e.heard()) == 1 })
	for uid := range 10_000 {
		e.sendAll(fmt.Sprintf("1\tnoisy@chat.test\tINBOX\t%d\n", 10_000-uid))
	}
	e.sendAll("1\tquiet@chat.test\tINBOX\t5\n", "1\tnoisy@chat.test\tINBOX\t3\n")
	e.await("the socket is not emptied", func() bool { return e.Stats().Merged == 10_000 })
	close(hold)
	e.await("the rest", func() bool { return len(e.heard()) == 3 })
	want := []change{{"first@chat.test", "INBOX", 1}, {"noisy@chat.test", "INBOX", 10_000}, {"quiet@chat.test", "INBOX", 5}}
	for i, got := range e.heard() {
		if got != want[i] {
			t.Errorf("told %+v, want %+v", got, want[i])
		}
	}
}

func TestWaitingMailboxesAreBounded(t *testing.T) {
	hold := make(chan struct{})
	e := listen(t, hold)
	e.sendAll("1\tfirst@chat.test\tINBOX\t1\n")
	e.await("the callback", func() bool { return len(e.heard()) == 1 })
	for n := range maxWaiting + 3 {
		e.sendAll(fmt.Sprintf("1\tbot%d@chat.test\tINBOX\t1\n", n))
	}
	e.await("what comes above the bound", func() bool { return e.Stats().Dropped == 3 })
	close(hold)
}

func TestCallsArePaced(t *testing.T) {
	e := listen(t, nil)
	start := time.Now()
	for n := range burst + 300 {
		e.sendAll(fmt.Sprintf("1\tbot%d@chat.test\tINBOX\t1\n", n))
	}
	e.await("all", func() bool { return len(e.heard()) == burst+300 })
	if took := time.Since(start); took < 300*time.Second/perSecond-50*time.Millisecond {
		t.Errorf("%d calls took %v: more than %d a second", burst+300, took, perSecond)
	}
}

func TestCloseRemovesTheSocket(t *testing.T) {
	e := listen(t, nil)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestListenTakesOverFromTheDeadOnly(t *testing.T) {
	again := func(path string) error {
		l, err := Listen(Options{Path: path, Group: -1, Changed: func(bot.Address, string, uint32) {}, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = l.Close()
		}
		return err
	}
	e := listen(t, nil)
	if err := again(e.path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("beside a living one: %v", err)
	}
	dead := filepath.Join(t.TempDir(), "wake")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dead, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := again(dead); err != nil {
		t.Errorf("after a dead one: %v", err)
	}
	file := filepath.Join(t.TempDir(), "wake")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := again(file); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("over a file: %v", err)
	}
}
