package minirelay

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// hostileServers are what a hostile client may talk to.
func hostileServers(t *testing.T) (imapAddresses, smtpAddresses []string, private *Private, check func()) {
	p, a := startPrivate(t, privateConfig())
	_, b := startRelay(t, relayConfig())
	p.Present(mailOf("1@y", "body"))
	check = func() {
		t.Helper()
		login(t, a.imap, "anyone").do("OK", "SELECT INBOX")
		login(t, b.imap, string(userAddress)).do("OK", "SELECT INBOX")
		if err := submit(a.smtp, "any", "any", string(botAddress), []string{string(userAddress)}, []byte("x\r\n")); err != nil {
			t.Errorf("Private serves no more: %v", err)
		}
		if err := submit(b.smtp, string(userAddress), password, string(userAddress), []string{string(userAddress)}, handshake(userAddress)); err != nil {
			t.Errorf("Relay serves no more: %v", err)
		}
	}
	return []string{a.imap, b.imap}, []string{a.smtp, b.smtp}, p, check
}

// attack sends what it can of input and reads until want has come or the server ends the connection. Where nothing is wanted,
// a moment of silence is enough: what counts is that the server lives on.
func attack(t *testing.T, address string, input io.Reader, want string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	go func() {
		io.Copy(c, input)
	}()
	patience := deadline
	if want == "" {
		patience = 50 * time.Millisecond
	}
	var got []byte
	buf := make([]byte, 64<<10)
	for {
		c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil || len(got) > 1<<20 || want != "" && bytes.Contains(got, []byte(want)) {
			return string(got)
		}
	}
}

type endless struct{ what string }

func (e endless) Read(b []byte) (int, error) {
	return copy(b, strings.Repeat(e.what, len(b)/len(e.what)+1)), nil
}

func TestHostileClientsGetErrorsAndBoundedMemory(t *testing.T) {
	imaps, smtps, _, check := hostileServers(t)
	selected := "a LOGIN " + string(userAddress) + " \"" + password + "\"\r\nb SELECT INBOX\r\n"
	many := func(s string, n int) string { return strings.Repeat(s, n) }
	attacks := []struct {
		what  string
		input io.Reader
		want  string
	}{
		{"endless line", endless{"x"}, ""},
		{"endless line after login", io.MultiReader(strings.NewReader(selected+"c "), endless{"x"}), ""},
		{"endless commands", io.MultiReader(strings.NewReader(selected), endless{"c NOOP\r\n"}), "c OK"},
		{"huge literal", strings.NewReader(selected + "c CREATE {99999999999}\r\n"), ""},
		{"huge literal, not synchronized", io.MultiReader(strings.NewReader(selected+"c LOGIN {99999999999+}\r\n"), endless{"x"}), ""},
		{"huge APPEND", strings.NewReader(selected + "c APPEND Sent {999999999}\r\n"), "NO"},
		{"literal that does not come", strings.NewReader(selected + "c APPEND Sent {1000}\r\nabc"), "+"},
		{"number out of range", strings.NewReader(selected + "c FETCH 99999999999999999999 (UID)\r\n"), "c "},
		{"negative literal", strings.NewReader(selected + "c CREATE {-1}\r\n"), "c "},
		{"zero in a set", strings.NewReader(selected + "c UID FETCH 0 (UID)\r\n"), "c "},
		{"search result reference", strings.NewReader(selected + "c UID FETCH $ (UID)\r\n"), "c BAD"},
		{"search result reference in a search", strings.NewReader(selected + "c SEARCH UID $\r\n"), "c "},
		{"partial out of range", strings.NewReader(selected + "c FETCH 1 BODY[]<9223372036854775807.9223372036854775807>\r\n"), "c OK"},
		{"part path", strings.NewReader(selected + "c FETCH 1 BODY[" + many("1.", 10000) + "1]\r\n"), "c "},
		{"amplification", strings.NewReader(selected + "c FETCH 1 (" + many("BODY[] ", 5000) + "UID)\r\n"), "c NO [LIMIT]"},
		{"many literals", strings.NewReader(selected + "c FETCH 1 BODY[HEADER.FIELDS (" + many("{1+}\r\nx ", 7000) + "x)]\r\n"), ""},
		{"deep lists", strings.NewReader(selected + "c SEARCH " + many("(", 40000) + "\r\n"), ""},
		{"deep negation", strings.NewReader(selected + "c SEARCH " + many("NOT ", 12000) + "ALL\r\n"), "c OK"},
		{"exponential LIST", strings.NewReader(selected + `c LIST "" "` + many("*%", 4000) + `x"` + "\r\n"), "c OK"},
		{"NUL and high bytes", strings.NewReader(selected + "c CREATE \"\x00\xff\xfe&Jjo-\"\r\n"), "c "},
		{"mailbox name in bad UTF-7", strings.NewReader(selected + "c CREATE \"&&&\"\r\n"), "c "},
		{"IDLE that does not end so", strings.NewReader(selected + "c IDLE\r\nnever\r\nd CLOSE\r\ne IDLE\r\nDONE\r\n"), "d OK"},
		{"command before login", strings.NewReader("a SELECT INBOX\r\n"), "a BAD"},
		{"HTTP", strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\n\r\n"), "BYE"},
		{"TLS", strings.NewReader("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), ""},
		{"nothing", strings.NewReader(""), "OK"},
	}
	for i, address := range imaps {
		for _, a := range attacks {
			if i > 0 && !rewind(a.input) {
				continue
			}
			if got := attack(t, address, a.input, a.want); !strings.Contains(got, a.want) {
				t.Errorf("%s: got …%q, want %q", a.what, got[max(0, len(got)-200):], a.want)
			}
		}
	}
	for _, address := range smtps {
		for _, a := range []struct {
			input io.Reader
			want  string
		}{
			{endless{"x"}, "500"},
			{io.MultiReader(strings.NewReader("EHLO x\r\n"), endless{"MAIL FROM:<x@y>\r\n"}), ""},
			{strings.NewReader("EHLO x\r\nMAIL FROM:<" + many("a", 1900) + "\r\n"), "501"},
			{strings.NewReader("EHLO x\r\nAUTH PLAIN !!!!\r\nAUTH PLAIN AA==\r\n"), "454"},
			{strings.NewReader("EHLO x\r\nBDAT 99999999999999999999 LAST\r\nBDAT -1\r\n"), "50"},
			{strings.NewReader("EHLO x\r\nDATA\r\nRCPT TO:<a@b>\r\n\x00\xff\r\n"), "502"},
			{strings.NewReader("EHLO x\r\nMAIL FROM:<" + string(botAddress) + ">\r\nRCPT TO:<a@b>\r\nDATA\r\nhalf a mail"), ""},
			{strings.NewReader("EHLO x\r\nMAIL FROM:<" + string(botAddress) + ">\r\nRCPT TO:<a@b>\r\nBDAT 100\r\nhalf"), ""},
		} {
			if got := attack(t, address, a.input, a.want); !strings.Contains(got, a.want) {
				t.Errorf("got %.300q, want %q", got, a.want)
			}
		}
	}
	check()
}

func rewind(r io.Reader) bool {
	s, ok := r.(io.Seeker)
	if !ok {
		_, ok = r.(endless)
		return ok
	}
	_, err := s.Seek(0, io.SeekStart)
	return err == nil
}

// A core that opens connections without end gets no more of them, and its old ones still work.
func TestConnectionsAreBounded(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	var open []*raw
	for range privateConns {
		open = append(open, login(t, at.imap, "anyone"))
	}
	for range 50 {
		c := dialRaw(t, at.imap)
		if line, err := c.r.ReadString('\n'); err == nil {
			t.Fatalf("one more connection got %q", line)
		}
	}
	open[0].do("OK", "SELECT INBOX")
	open[1].Close()
	p.Present(mailOf("1@y", "body"))
	wantLine(t, open[0].do("OK", "NOOP"), "* 1 EXISTS")
	eventually(t, "a slot comes free", tick(t), func() bool {
		c := dialRaw(t, at.imap)
		line, err := c.r.ReadString('\n')
		return err == nil && strings.HasPrefix(line, "* OK")
	})
}

func tick(t *testing.T) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		for t.Context().Err() == nil {
			time.Sleep(5 * time.Millisecond)
			select {
			case c <- struct{}{}:
			case <-t.Context().Done():
			}
		}
	}()
	return c
}

// One connection may not make us read and parse without end.
func TestInputOfAConnectionIsBounded(t *testing.T) {
	_, at := startPrivate(t, privateConfig())
	c := login(t, at.imap, "anyone")
	go io.Copy(io.Discard, c.r)
	n, err := io.Copy(c.Conn, io.LimitReader(endless{"c NOOP\r\n"}, 16*privateIMAPBytes))
	if err == nil || n >= 16*privateIMAPBytes {
		t.Errorf("%d bytes were read", n)
	}
}

// The largest mail of each connection at a time must not add up.
func TestMailIsReceivedOneAtATime(t *testing.T) {
	cfg := privateConfig()
	cfg.MaxMail, cfg.MaxTotal = 8<<20, 8<<20
	_, at := startPrivate(t, cfg)
	half := bytes.Repeat([]byte("a line of a mail that does not end\r\n"), 6<<20/36)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 6 {
		c := dialRaw(t, at.smtp)
		c.until("220")
		c.say("250", "EHLO core")
		c.say("250", "MAIL FROM:<%s>", botAddress)
		c.say("250", "RCPT TO:<%s>", userAddress)
		c.say("354", "DATA")
		go c.Write(half)
	}
	time.Sleep(200 * time.Millisecond)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("%d MB are held for half-sent mails", grown>>20)
	}
}

// Silence is cut, but for IDLE.
func TestSilenceEndsAConnection(t *testing.T) {
	g := newGuard()
	l := listen(t, "127.0.0.1:0")
	gl := &guardedListener{Listener: l, guard: g, limits: connLimits{conns: 2, silence: 50 * time.Millisecond}}
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := gl.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, idle := range []bool{false, true} {
		c.(*guardedConn).setIdling(idle)
		c.SetReadDeadline(time.Now().Add(time.Hour)) // as go-imap does
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		select {
		case err := <-read:
			if idle {
				t.Errorf("idling was cut: %v", err)
			}
		case <-time.After(300 * time.Millisecond):
			if !idle {
				t.Error("silence was not cut")
			}
		}
	}
	c.Close()
	l.Close()
	if err := g.close(); err != nil {
		t.Error(err)
	}
}

func TestMatchList(t *testing.T) {
	for _, c := range []struct {
		name, ref, pattern string
		want               bool
	}{
		{"INBOX", "", "*", true},
		{"INBOX", "", "%", true},
		{"INBOX", "", "INBOX", true},
		{"INBOX", "", "inbox2", false},
		{"INBOX", "", "", false},
		{"Bot/Status", "", "*", true},
		{"Bot/Status", "", "%", false},
		{"Bot/Status", "", "%/%", true},
		{"Bot/Status", "Bot/", "%", true},
		{"Bot/Status", "", "Bot*us", true},
		{"Bot/Status", "", "Bot%us", false},
		{"Bot/Status", "", "*t*t*t*", true},
		{"Bot/Status", "", "*t*t*t*t*", false},
		{strings.Repeat("a", 255), "", strings.Repeat("*%", 250) + "b", false},
		{"x", "", strings.Repeat("*", longestPattern+1), false},
	} {
		if got := matchList(c.name, "/", c.ref, c.pattern); got != c.want {
			t.Errorf("matchList(%.20q, %q, %.20q) = %t", c.name, c.ref, c.pattern, got)
		}
	}
}

func TestHeaderFields(t *testing.T) {
	for _, c := range []struct{ mail, name, want string }{
		{"A: 1\r\nB: 2\r\n\r\nB: 3\r\n", "b", `["2"]`},
		{"b : 1\r\n folded\r\n\tagain\r\nB:2\r\n\r\n", "b", `["1 folded\tagain" "2"]`},
		{"A: 1\nB: 2\n\nB: 3\n", "b", `["2"]`},
		{"no header", "b", `[]`},
		{"", "b", `[]`},
		{":\r\n:\r\n\r\n", "", `["" ""]`},
		{strings.Repeat("X: y\r\n", maxHeader) + "B: 2\r\n", "b", `[]`},
	} {
		if got := fmt.Sprintf("%q", headerFields([]byte(c.mail), c.name)); got != c.want {
			t.Errorf("%.40q: got %s, want %s", c.mail, got, c.want)
		}
	}
}
