package outbox

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// relay is a real submission server that can be told to misbehave.
type relay struct {
	t      *testing.T
	server *smtp.Server
	addr   string
	roots  *x509.CertPool

	mu       sync.Mutex
	taken    [][]byte
	rcpts    [][]string
	logins   int
	tries    int // DATA
	dataErr  error
	dataErrs int // how often dataErr is answered
	cuts     int // how many connections are cut after DATA
	rcptErrs map[string]error
	during   func()
	hang     bool
}

func newRelay(t *testing.T) *relay { return startRelay(t, TLSPlain, "127.0.0.1") }

// startRelay serves as mode says, with a certificate for name.
func startRelay(t *testing.T, mode TLSMode, name string) *relay {
	r := &relay{t: t, rcptErrs: map[string]error{}}
	r.server = smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &relaySession{relay: r, conn: c}, nil }))
	r.server.Domain = "relay.example"
	r.server.AllowInsecureAuth = mode == TLSPlain
	r.server.ReadTimeout = 10 * time.Second
	r.server.ErrorLog = quiet{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.addr = l.Addr().String()
	if mode != TLSPlain {
		r.server.TLSConfig = r.certificate(name)
	}
	if mode == TLSImplicit {
		l = tls.NewListener(l, r.server.TLSConfig)
	}
	var served sync.WaitGroup
	served.Go(func() { r.server.Serve(l) })
	// The server knows its listener only when Serve has begun.
	t.Cleanup(func() { r.server.Close(); l.Close(); served.Wait() })
	return r
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func (r *relay) certificate(name string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(r.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(r.t, err)
	cert, err := x509.ParseCertificate(der)
	must(r.t, err)
	r.roots = x509.NewCertPool()
	r.roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func (r *relay) client(mode TLSMode) *SMTP {
	return &SMTP{Addr: r.addr, TLS: mode, Roots: r.roots, Credentials: func(addr bot.Address) (string, string, error) {
		return string(addr) + "*mayfly", "secret", nil
	}}
}

func (r *relay) answerData(err error, times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dataErr, r.dataErrs = err, times
}

func (r *relay) cutAfterData(times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts = times
}

func (r *relay) onData(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.during = do
}

func (r *relay) bodies() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

type relaySession struct {
	relay *relay
	conn  *smtp.Conn
	user  string
	rcpts []string
}

func (s *relaySession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *relaySession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if password != "secret" {
			return smtp.ErrAuthFailed
		}
		s.user = username
		s.relay.mu.Lock()
		defer s.relay.mu.Unlock()
		s.relay.logins++
		return nil
	}), nil
}

func (s *relaySession) Mail(from string, _ *smtp.MailOptions) error {
	if s.user != from+"*mayfly" {
		return smtp.ErrAuthRequired
	}
	return nil
}

func (s *relaySession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if err := s.relay.rcptErrs[to]; err != nil {
		return err
	}
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (s *relaySession) Data(in io.Reader) error {
	data, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	r := s.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tries++
	if r.during != nil {
		r.during()
	}
	if r.hang {
		// Held until the client gives up.
		r.mu.Unlock()
		s.conn.Conn().Read(make([]byte, 1))
		r.mu.Lock()
		return errors.New("hung up")
	}
	if r.dataErrs > 0 {
		r.dataErrs--
		return r.dataErr
	}
	r.taken, r.rcpts = append(r.taken, data), append(r.rcpts, s.rcpts)
	if r.cuts > 0 {
		r.cuts--
		s.conn.Conn().Close()
	}
	return nil
}

func (s *relaySession) Reset()        { s.rcpts = nil }
func (s *relaySession) Logout() error { return nil }

func submit(t *testing.T, c *SMTP, to ...bot.Address) error {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	return c.Submit(t.Context(), dice, to, strings.NewReader(string(mail("one"))))
}

// temporary checks that err puts the mail off, and says why.
func temporary(t *testing.T, err error, says string) {
	t.Helper()
	var failed *SubmitError
	if !errors.As(err, &failed) || !failed.Temporary || !strings.Contains(err.Error(), says) {
		t.Errorf("got %#v: %v, want a temporary one that says %q", failed, err, says)
	}
}

func TestTLSIsVerified(t *testing.T) {
	for _, mode := range []TLSMode{TLSImplicit, TLSStart} {
		t.Run(string(mode), func(t *testing.T) {
			r := startRelay(t, mode, "127.0.0.1")
			must(t, submit(t, r.client(mode), user))
			if len(r.bodies()) != 1 {
				t.Error("nothing arrived")
			}
			unknown := r.client(mode)
			unknown.Roots = x509.NewCertPool()
			temporary(t, submit(t, unknown, user), "certificate")

			other := startRelay(t, mode, "other.example")
			temporary(t, submit(t, other.client(mode), user), "certificate")
			if other.logins != 0 || len(other.bodies()) != 0 {
				t.Error("the password was shown to a stranger")
			}
		})
	}
}

func TestNoTLSIsNeverAFallback(t *testing.T) {
	r := newRelay(t)
	temporary(t, submit(t, r.client(TLSStart), user), "STARTTLS")
	temporary(t, submit(t, r.client(TLSImplicit), user), "tls")
	temporary(t, submit(t, r.client("none"), user), "unknown TLS mode")
	if r.logins != 0 {
		t.Error("the password was shown in the clear")
	}
}

func TestPlainOnlyOnLoopback(t *testing.T) {
	c := newRelay(t).client(TLSPlain)
	for _, addr := range []string{"192.0.2.1:25", "[2001:db8::1]:25", "[::ffff:192.0.2.1]:25"} {
		c.Addr = addr
		temporary(t, submit(t, c, user), "not on loopback")
	}
}

func TestRefusedLoginIsNotTheMailsFault(t *testing.T) {
	r := newRelay(t)
	c := r.client(TLSPlain)
	c.Credentials = func(bot.Address) (string, string, error) { return "x", "wrong", nil }
	temporary(t, submit(t, c, user), "535")
	c.Credentials = func(bot.Address) (string, string, error) { return "", "", errors.New("no such key") }
	temporary(t, submit(t, c, user), "no such key")
}

func TestReplies(t *testing.T) {
	for code, isTemporary := range map[int]bool{421: true, 450: true, 452: true, 550: false, 552: false, 554: false} {
		r := newRelay(t)
		r.answerData(&smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 7, 1}, Message: "no"}, 1)
		var failed *SubmitError
		err := submit(t, r.client(TLSPlain), user)
		if !errors.As(err, &failed) || failed.Code != code || failed.Temporary != isTemporary || failed.Enhanced != fmt.Sprintf("%d.7.1", code/100) {
			t.Errorf("%d: %+v", code, failed)
		}
	}
}

func TestRecipients(t *testing.T) {
	const gone, greylisted = bot.Address("gone@relay.example"), bot.Address("slow@relay.example")
	r := newRelay(t)
	r.rcptErrs[string(gone)] = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody"}
	r.rcptErrs[string(greylisted)] = &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "later"}
	c := r.client(TLSPlain)

	var partial *PartialError
	err := submit(t, c, gone, user)
	if !errors.As(err, &partial) || partial.Refused[gone].Code != 550 || len(partial.Refused) != 1 || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("one of two is gone: %v", err)
	}
	if len(r.rcpts) != 1 || !slices.Equal(r.rcpts[0], []string{string(user)}) {
		t.Errorf("delivered to %v", r.rcpts)
	}
	temporary(t, submit(t, c, user, greylisted), "later")
	var failed *SubmitError
	if err := submit(t, c, gone); !errors.As(err, &failed) || failed.Temporary || failed.Code != 550 {
		t.Errorf("the only one is gone: %v", err)
	}
	if err := submit(t, c); !errors.As(err, &failed) || failed.Temporary {
		t.Errorf("nobody: %v", err)
	}
	if len(r.bodies()) != 1 {
		t.Errorf("%d mails went out", len(r.bodies()))
	}
}

func TestMailForSomeIsSent(t *testing.T) {
	h := newHouse(t)
	h.relay.rcptErrs["gone@relay.example"] = &smtp.SMTPError{Code: 550, Message: "nobody"}
	h.say("one")
	data := mail("two")
	path, err := h.box.Stage(data)
	must(t, err)
	out := h.waiting()[0]
	out.To, out.Path, out.Size = []bot.Address{"gone@relay.example", user}, path, int64(len(data))
	commitOne(h, out)
	h.flush()
	h.received("one", "two")
	if len(h.waiting())+len(h.dead()) != 0 || !strings.Contains(h.log.String(), "nobody") {
		t.Errorf("%v %v %s", h.waiting(), h.dead(), h.log.String())
	}
}

// Every byte arrives, dots at the start of a line included (RFC 5321, 4.5.2).
func TestDotsAndLinesArriveAsTheyAre(t *testing.T) {
	r := newRelay(t)
	body := "Subject: dots\r\n\r\n.\r\n..\r\n.hidden\r\na.\r\n\r\n.\r\n" + strings.Repeat("x", 998) + "\r\n.end\r\n"
	c := r.client(TLSPlain)
	t.Cleanup(func() { c.Close() })
	must(t, c.Submit(t.Context(), dice, []bot.Address{user}, strings.NewReader(body)))
	if got := string(r.bodies()[0]); got != body {
		t.Errorf("got %q", got)
	}
}

// A body that cannot be read to its end must not arrive as a shorter mail.
func TestBrokenBodyIsNotSent(t *testing.T) {
	r := newRelay(t)
	c := r.client(TLSPlain)
	t.Cleanup(func() { c.Close() })
	broken := io.MultiReader(strings.NewReader(string(mail("half"))), errorReader{})
	temporary(t, c.Submit(t.Context(), dice, []bot.Address{user}, broken), "disk")
	must(t, submit(t, c, user))
	if got := r.bodies(); len(got) != 1 || string(got[0]) != string(mail("one")) {
		t.Errorf("got %q", got)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("disk") }

// TestPreparedLoginIsUsed: a mail that comes while the login is under way waits for it, one that comes later uses it, and neither
// makes another.
func TestPreparedLoginIsUsed(t *testing.T) {
	r := newRelay(t)
	c := r.client(TLSPlain)
	for range 5 {
		c.Prepare(t.Context(), dice)
	}
	must(t, submit(t, c, user))
	c.Prepare(t.Context(), dice)
	must(t, submit(t, c, user))
	if r.logins != 1 || len(r.bodies()) != 2 {
		t.Errorf("%d logins, %d mails", r.logins, len(r.bodies()))
	}
}

// TestPreparedLoginFails: the mail says why, and that it is to be tried again.
func TestPreparedLoginFails(t *testing.T) {
	r := newRelay(t)
	c := r.client(TLSPlain)
	c.Credentials = func(bot.Address) (string, string, error) { return "dice", "wrong", nil }
	c.Prepare(t.Context(), dice)
	var failed *SubmitError
	if err := submit(t, c, user); !errors.As(err, &failed) || !failed.Temporary {
		t.Errorf("with a wrong password: %v", err)
	}
}

// TestCloseEndsPreparedLogins: a login that is over after Close is not kept.
func TestCloseEndsPreparedLogins(t *testing.T) {
	r := newRelay(t)
	c := r.client(TLSPlain)
	c.Prepare(t.Context(), dice)
	underway := c.underway[dice]
	must(t, c.Close())
	<-underway
	if len(c.idle) != 0 {
		t.Error("a connection is kept after Close")
	}
}

func TestDeadKeptConnectionIsReplaced(t *testing.T) {
	r := newRelay(t)
	c := r.client(TLSPlain)
	must(t, submit(t, c, user))
	c.idle[dice].conn.Close()
	must(t, submit(t, c, user))
	if r.logins != 2 || len(r.bodies()) != 2 {
		t.Errorf("%d logins, %d mails", r.logins, len(r.bodies()))
	}
}

func TestSilentServerEndsWithTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	c := newRelay(t).client(TLSPlain)
	c.Addr = l.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	started := time.Now()
	if err := c.Submit(ctx, dice, []bot.Address{user}, strings.NewReader("")); err == nil || time.Since(started) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(started))
	}
}

func commitOne(h *house, out ledger.Outgoing) {
	h.t.Helper()
	must(h.t, h.ledger.Commit(h.t.Context(), ledger.Commit{Bot: dice, UIDNext: 1, Outgoing: []ledger.Outgoing{out}}))
}
