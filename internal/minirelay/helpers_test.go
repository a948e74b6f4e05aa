package minirelay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

const (
	botAddress  = bot.Address("dicebot01@chat.test")
	userAddress = bot.Address("someuser1@chat.test")
	password    = "long enough"
	deadline    = 20 * time.Second
)

// endpoints are the addresses of a running Private or Relay.
type endpoints struct{ imap, smtp string }

type server interface {
	ServeIMAP(net.Listener) error
	ServeSMTP(net.Listener) error
	Close() error
}

// start serves s on loopback and closes it at the end of the test. Serve must then return nil, or ErrClosed where a short test ended
// before Serve began.
func start(t testing.TB, s server) endpoints {
	t.Helper()
	imapListener, smtpListener := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	serveOn(t, s, imapListener, smtpListener)
	return endpoints{imapListener.Addr().String(), smtpListener.Addr().String()}
}

func serveOn(t testing.TB, s server, imapListener, smtpListener net.Listener) {
	t.Helper()
	errs := make(chan error, 2)
	go func() { errs <- s.ServeIMAP(imapListener) }()
	go func() { errs <- s.ServeSMTP(smtpListener) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for range 2 {
			if err := <-errs; err != nil && !errors.Is(err, ErrClosed) {
				t.Errorf("Serve returned %v after Close", err)
			}
		}
	})
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func privateConfig() PrivateConfig {
	return PrivateConfig{
		Address: botAddress, UIDValidity: 7, UIDNext: 1,
		MaxMail: 1 << 20, MaxTotal: 4 << 20, MaxRecipients: 50,
	}
}

func startPrivate(t testing.TB, cfg PrivateConfig) (*Private, endpoints) {
	t.Helper()
	p := NewPrivate(cfg)
	return p, start(t, p)
}

// raw is a client that speaks lines.
type raw struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, address string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(deadline))
	return &raw{t, c, bufio.NewReader(c)}
}

func (r *raw) line() string {
	r.t.Helper()
	line, err := r.r.ReadString('\n')
	if err != nil {
		r.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// until reads lines up to the one that begins with prefix, and returns them all.
func (r *raw) until(prefix string) []string {
	r.t.Helper()
	var lines []string
	for {
		line := r.line()
		lines = append(lines, line)
		if strings.HasPrefix(line, prefix) {
			return lines
		}
	}
}

// do sends an IMAP command and returns the lines of its answer, of which the last must begin with want.
func (r *raw) do(want, format string, args ...any) []string {
	r.t.Helper()
	fmt.Fprintf(r, "a "+format+"\r\n", args...)
	lines := r.until("a ")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "a "+want) {
		r.t.Fatalf("%s: got %q, want %q", fmt.Sprintf(format, args...), last, "a "+want)
	}
	return lines
}

// say sends an SMTP command and wants an answer that begins so.
func (r *raw) say(want, format string, args ...any) {
	r.t.Helper()
	fmt.Fprintf(r, format+"\r\n", args...)
	for {
		line := r.line()
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			r.t.Fatalf("%s: got %q, want %q", fmt.Sprintf(format, args...), line, want)
		}
		return
	}
}

func login(t testing.TB, address, user string) *raw {
	t.Helper()
	c := dialRaw(t, address)
	c.until("* OK")
	c.do("OK", "LOGIN %q %q", user, password)
	return c
}

func imapClient(t testing.TB, address, user, pass string, o *imapclient.Options) *imapclient.Client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := imapclient.New(conn, o)
	t.Cleanup(func() { c.Close() })
	if err := c.Login(user, pass).Wait(); err != nil {
		t.Fatalf("login as %s: %v", user, err)
	}
	return c
}

// submit sends a mail as user with a real client.
func submit(address, user, pass, from string, to []string, mail []byte) error {
	c, err := smtp.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", user, pass)); err != nil {
		return err
	}
	return c.SendMail(from, to, bytes.NewReader(mail))
}

func wantLine(t testing.TB, lines []string, want string) {
	t.Helper()
	if !slices.Contains(lines, want) {
		t.Errorf("no line %q in\n%s", want, strings.Join(lines, "\n"))
	}
}

func noLine(t testing.TB, lines []string, part string) {
	t.Helper()
	for _, line := range lines {
		if strings.Contains(line, part) {
			t.Errorf("%q must not be in %q", part, line)
		}
	}
}

// eventually waits for ok, which changed may make true.
func eventually(t testing.TB, what string, changed <-chan struct{}, ok func() bool) {
	t.Helper()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("timed out: %s", what)
		}
	}
}

func mailOf(id, body string) []byte {
	return fmt.Appendf(nil, "From: <%s>\r\nMessage-ID: <%s>\r\nSubject: [...]\r\n\r\n%s\r\n", botAddress, id, body)
}
