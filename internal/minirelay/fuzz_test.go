package minirelay

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/bot"
)

// tape is a connection whose client has said all it will say, and does not care for answers.
type tape struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
}

func (c *tape) Write(b []byte) (int, error)      { return len(b), nil }
func (c *tape) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// once is a listener with one connection.
type once struct {
	conns  chan net.Conn
	closer sync.Once
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *once) Close() error   { l.closer.Do(func() { close(l.closed) }); return nil }
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

// play runs a server over the tape until it ends the connection, which it must do at the end of the input.
func play(t *testing.T, input []byte, serve func(net.Listener) error, stop func() error) {
	t.Helper()
	c := &tape{Reader: bytes.NewReader(input), closed: make(chan struct{})}
	l := &once{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- c
	served := make(chan error, 1)
	go func() { served <- serve(l) }()
	select {
	case <-c.closed:
	case <-time.After(deadline):
		t.Error("the server is still busy with the input")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// panics fails the test when go-imap or go-smtp logs that it has recovered a panic of ours. (go-smtp has one of its own:
// after too many errors it drops the session, but still serves the commands that it has buffered.)
type panics struct{ t *testing.T }

func (p panics) Enabled(context.Context, slog.Level) bool { return true }
func (p panics) WithAttrs([]slog.Attr) slog.Handler       { return p }
func (p panics) WithGroup(string) slog.Handler            { return p }
func (p panics) Handle(_ context.Context, r slog.Record) error {
	_, stack, _ := strings.Cut(r.Message, "runtime/panic.go")
	if strings.Contains(r.Message, "panic") && strings.Contains(stack, "minirelay.") {
		p.t.Error(r.Message)
	}
	return nil
}

func fuzzPrivate(t *testing.T) *Private {
	cfg := privateConfig()
	cfg.MaxMail, cfg.MaxTotal, cfg.MaxRecipients = 200, 300, 3
	cfg.Log = slog.New(panics{t})
	p := NewPrivate(cfg)
	p.Present(mailOf("1@y", "first"))
	p.Present([]byte("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nsecond\r\n--x--\r\n"))
	return p
}

func FuzzPrivateIMAP(f *testing.F) {
	const hello = "a LOGIN u p\r\nb SELECT INBOX\r\n"
	for _, seed := range []string{
		hello + "c UID FETCH 1:500 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE)])\r\nd UID FETCH 1 (FLAGS BODY.PEEK[])\r\n",
		hello + "c UID STORE 1 +FLAGS (\\Deleted)\r\nd CLOSE\r\ne SELECT INBOX\r\nf IDLE\r\nDONE\r\ng LOGOUT\r\n",
		hello + "c IDLE\r\nx\r\nd IDLE\r\n",
		hello + "c FETCH 1:*,2:1 (BODY[1.2.HEADER]<0.5> BODY[TEXT] ENVELOPE BODYSTRUCTURE)\r\nd FETCH $ ALL\r\n",
		hello + "c UID SEARCH OR NOT UID 1:* (SINCE 1-Jan-2026 HEADER Subject {1}\r\nx) LARGER 3\r\nd SEARCH RETURN (MIN SAVE) $\r\n",
		hello + "c STORE 1 FLAGS.SILENT \\Seen $Junk\r\nd EXPUNGE\r\ne UID EXPUNGE 1:*\r\nf COPY 1 X\r\ng UID MOVE 1 X\r\n",
		hello + "c APPEND X (\\Seen) \" 1-Jan-2026 00:00:00 +0000\" {3+}\r\nabc\r\nd APPEND INBOX {3}\r\nabc\r\n",
		"a AUTHENTICATE PLAIN AHUAcA==\r\nb LIST (SUBSCRIBED) \"\" (\"*\" %) RETURN (STATUS (MESSAGES))\r\nc LSUB \"\" *\r\n",
		"a LOGIN {1}\r\nu {1+}\r\np\r\nb STATUS \"&AOQ-\" (MESSAGES UIDNEXT APPENDLIMIT DELETED-STORAGE SIZE)\r\nc ENABLE UTF8=ACCEPT\r\n",
		"a LOGIN u p\r\nb CREATE x\r\nc RENAME x y\r\nd DELETE y\r\ne SELECT z\r\nf FETCH 1 ALL\r\ng UNSELECT\r\nh SELECT \"\"\r\n",
		"a UID\r\n\r\n \r\n)(\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p := fuzzPrivate(t)
		play(t, input, p.ServeIMAP, p.Close)
		if p.UIDNext() != 3 {
			t.Errorf("the client has minted a UID: %d", p.UIDNext())
		}
		if len(p.Outgoing()) > 0 || p.Settled() {
			t.Error("IMAP has sent mail, or is in IDLE without a connection")
		}
	})
}

func FuzzPrivateSMTP(f *testing.F) {
	const hello = "EHLO core\r\nAUTH PLAIN AHUAcA==\r\nMAIL FROM:<" + string(botAddress) + "> SIZE=100\r\n"
	for _, seed := range []string{
		hello + "RCPT TO:<" + string(userAddress) + ">\r\nDATA\r\nMessage-ID: <1@x>\r\n\r\n..hi\r\n.\r\nQUIT\r\n",
		hello + "RCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n",
		hello + "RCPT TO:<a@b>\r\nBDAT 100\r\nabc",
		hello + "RCPT TO:<\"odd name\"@b>\r\nRCPT TO:<@x,@y:z@b>\r\nDATA\r\n" + strings.Repeat("x", 201) + "\r\n.\r\nRSET\r\n",
		"EHLO x\r\nAUTH LOGIN\r\ndQ==\r\ncA==\r\nAUTH LOGIN dQ==\r\n*\r\nMAIL FROM:<> BODY=8BITMIME AUTH=<>\r\nVRFY x\r\nNOOP\r\n",
		"HELO\r\nDATA\r\nBDAT 1 LAST\r\n\x00\r\nSTARTTLS\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p := fuzzPrivate(t)
		play(t, input, p.ServeSMTP, p.Close)
		total := 0
		for _, o := range p.Outgoing() {
			total += len(o.Data)
			if o.From != botAddress || len(o.To) == 0 || len(o.To) > 3 || len(o.Data) > 200 {
				t.Errorf("took %+v", o)
			}
			for _, to := range o.To {
				if again, err := bot.ParseAddress(string(to)); err != nil || again != to {
					t.Errorf("recipient %q", to)
				}
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if total > 300 || p.transactions != 0 {
			t.Errorf("%d bytes taken, %d transactions left open", total, p.transactions)
		}
	})
}

func FuzzHeaderFields(f *testing.F) {
	f.Add([]byte("From: a@b\r\nMessage-ID:\r\n <1@x>\r\n\r\nbody"))
	f.Add([]byte("from : \"x\\\"\" <A@B>, c@d\nFrom:\n\n"))
	f.Add([]byte("\n\nFrom: a@b\r\n"))
	f.Add([]byte("Message-ID: <a>\r\n\tb: c\rd\r\n"))
	f.Fuzz(func(t *testing.T, mail []byte) {
		for _, value := range append(headerFields(mail, "from"), messageID(mail)) {
			if strings.ContainsAny(value, "\r\n") {
				t.Errorf("a line break in %q", value)
			}
		}
		if from, ok := fromAddress(mail); ok {
			if again, err := bot.ParseAddress(string(from)); err != nil || again != from {
				t.Errorf("sender %q", from)
			}
		}
	})
}
