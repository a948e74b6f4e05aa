package outbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

// SubmitError says that the relay did not take a mail.
type SubmitError struct {
	Code      int    // of the reply, RFC 5321; 0 where there was none
	Enhanced  string // status code, RFC 3463, as "5.1.1"; empty where there was none
	Temporary bool   // it makes sense to try again
	Err       error
}

func (e *SubmitError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *SubmitError) Unwrap() error { return e.Err }

// PartialError says that the relay took a mail, but refused some of its recipients for good.
type PartialError struct {
	Refused map[bot.Address]*SubmitError
}

func (e *PartialError) Error() string {
	var all []string
	for _, addr := range slices.Sorted(maps.Keys(e.Refused)) {
		all = append(all, e.Refused[addr].Error())
	}
	return strings.Join(all, "; ")
}

// TLSMode is how the connection to the relay's submission is protected.
type TLSMode string

// The modes. There is none that tries and goes on without.
const (
	TLSImplicit TLSMode = "tls"      // port 465, RFC 8314
	TLSStart    TLSMode = "starttls" // port 587, RFC 3207
	TLSPlain    TLSMode = "plain"    // only where the peer is on loopback
)

const (
	dialTimeout    = 30 * time.Second
	commandTimeout = time.Minute
	submitTimeout  = 10 * time.Minute // all of one mail
	idleTime       = 30 * time.Second // that a connection is kept for the bot's next mail
)

// SMTP submits mail with AUTH PLAIN (RFC 6409, 4954). The connection is kept for the bot's next mail, 30 seconds. Addr,
// TLS and Credentials must be set. Any refusal before the envelope is temporary: it is not the mail's fault.
type SMTP struct {
	Addr        string // host:port; the host is what the certificate must name
	TLS         TLSMode
	Roots       *x509.CertPool // whom to believe the certificate; nil for the system's
	Credentials func(bot.Address) (user, pass string, err error)

	mu       sync.Mutex
	idle     map[bot.Address]*session
	underway map[bot.Address]chan struct{} // logins of Prepare; closed when they are over
	closed   bool
}

// session is a logged-in connection of one bot.
type session struct {
	*smtp.Client
	conn   net.Conn
	expiry *time.Timer
}

// Submit sends one mail. A recipient that is refused with 4xx puts off the whole mail, so that no other gets it twice; one
// that is refused with 5xx does not keep the others from getting it.
func (s *SMTP) Submit(ctx context.Context, from bot.Address, to []bot.Address, r io.Reader) error {
	if len(to) == 0 {
		return &SubmitError{Err: errors.New("no recipient")}
	}
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	sess, err := s.session(ctx, from)
	if err != nil {
		return &SubmitError{Temporary: true, Err: err}
	}
	// Nothing else bounds the writing of a long mail to a peer that does not read.
	stop := context.AfterFunc(ctx, func() { sess.conn.Close() })
	err = sess.submit(from, to, r)
	if !stop() || !took(err) {
		// Closed without a QUIT: that would end a mail half written, and the relay would take it.
		sess.conn.Close()
		return err
	}
	s.keep(from, sess)
	return err
}

// Prepare logs in for a mail that is likely to come soon, and returns at once. A connection that no mail makes use of is closed
// after 30 seconds; a login that fails is left to Submit, which tells.
func (s *SMTP) Prepare(ctx context.Context, addr bot.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.idle[addr] != nil || s.underway[addr] != nil {
		return
	}
	if s.underway == nil {
		s.underway = map[bot.Address]chan struct{}{}
	}
	done := make(chan struct{})
	s.underway[addr] = done
	go func() {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		if sess, err := s.login(ctx, addr); err == nil {
			s.keep(addr, sess)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.underway, addr)
		close(done)
	}()
}

// Close closes the connections that are kept.
func (s *SMTP) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var err error
	for addr, sess := range s.idle {
		sess.expiry.Stop()
		err = errors.Join(err, sess.conn.Close())
		delete(s.idle, addr)
	}
	return err
}

// session returns the kept connection of a bot if it still lives, or a new one.
func (s *SMTP) session(ctx context.Context, addr bot.Address) (*session, error) {
	s.mu.Lock()
	underway := s.underway[addr]
	s.mu.Unlock()
	if underway != nil {
		select {
		case <-underway:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	sess := s.idle[addr]
	delete(s.idle, addr)
	s.mu.Unlock()
	if sess != nil && sess.expiry.Stop() {
		stop := context.AfterFunc(ctx, func() { sess.conn.Close() })
		err := sess.Noop()
		if stop() && err == nil {
			return sess, nil
		}
		sess.conn.Close()
	}
	return s.login(ctx, addr)
}

func (s *SMTP) keep(addr bot.Address, sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		sess.conn.Close()
		return
	}
	if s.idle == nil {
		s.idle = map[bot.Address]*session{}
	}
	if other := s.idle[addr]; other != nil {
		other.expiry.Stop()
		other.conn.Close()
	}
	s.idle[addr] = sess
	sess.expiry = time.AfterFunc(idleTime, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.idle[addr] == sess {
			delete(s.idle, addr)
		}
		sess.conn.Close()
	})
}

func (s *SMTP) login(ctx context.Context, addr bot.Address) (*session, error) {
	user, pass, err := s.Credentials(addr)
	if err != nil {
		return nil, fmt.Errorf("the password of %s: %w", addr, err)
	}
	conn, err := s.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("submission at %s: %w", s.Addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	client, err := s.greet(conn)
	if err == nil {
		err = client.Auth(sasl.NewPlainClient("", user, pass))
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("submission at %s as %s: %w", s.Addr, user, err)
	}
	return &session{Client: client, conn: conn}, nil
}

func (s *SMTP) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	if s.TLS == TLSPlain {
		d.Control = onlyLoopback
	}
	return d.DialContext(ctx, "tcp", s.Addr)
}

// onlyLoopback sees the address that a name was resolved to, before anything is sent there.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	peer, err := netip.ParseAddrPort(address)
	if err == nil && !peer.Addr().Unmap().IsLoopback() {
		err = fmt.Errorf("%s is not on loopback: passwords go there by %q or %q only", address, TLSImplicit, TLSStart)
	}
	return err
}

// greet puts SMTP on a connection, protected as configured.
func (s *SMTP) greet(conn net.Conn) (*smtp.Client, error) {
	config, err := s.tlsConfig()
	if err != nil {
		return nil, err
	}
	var client *smtp.Client
	switch s.TLS {
	case TLSImplicit:
		client = smtp.NewClient(tls.Client(conn, config))
	case TLSStart:
		client, err = smtp.NewClientStartTLS(conn, config)
	case TLSPlain:
		client = smtp.NewClient(conn)
	default:
		err = fmt.Errorf("unknown TLS mode %q: want %q, %q or %q", s.TLS, TLSImplicit, TLSStart, TLSPlain)
	}
	if err != nil {
		return nil, err
	}
	client.CommandTimeout = commandTimeout
	client.SubmissionTimeout = submitTimeout
	return client, nil
}

func (s *SMTP) tlsConfig() (*tls.Config, error) {
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, err
	}
	return &tls.Config{ServerName: host, RootCAs: s.Roots}, nil
}

func (sess *session) submit(from bot.Address, to []bot.Address, r io.Reader) error {
	if err := sess.Mail(string(from), nil); err != nil {
		return submitError("MAIL FROM", err)
	}
	refused, err := sess.recipients(to)
	if err != nil {
		return err
	}
	w, err := sess.Data()
	if err != nil {
		return submitError("DATA", err)
	}
	if _, err := io.Copy(w, r); err != nil {
		return submitError("sending the mail", err)
	}
	if err := w.Close(); err != nil {
		return submitError("the mail", err)
	}
	if len(refused) > 0 {
		return &PartialError{Refused: refused}
	}
	return nil
}

// recipients returns those that were refused for good; an error when one has to wait, or when none is left.
func (sess *session) recipients(to []bot.Address) (map[bot.Address]*SubmitError, error) {
	refused := map[bot.Address]*SubmitError{}
	var last *SubmitError
	for _, addr := range to {
		err := sess.Rcpt(string(addr), nil)
		if err == nil {
			continue
		}
		last = submitError("RCPT TO "+string(addr), err)
		if last.Temporary {
			return nil, last
		}
		refused[addr] = last
	}
	if len(refused) == len(to) {
		return nil, &SubmitError{Code: last.Code, Enhanced: last.Enhanced, Err: &PartialError{Refused: refused}}
	}
	return refused, nil
}

// submitError reads a reply. All but a 5xx is temporary: a broken connection says nothing about the mail.
func submitError(step string, err error) *SubmitError {
	e := &SubmitError{Temporary: true, Err: fmt.Errorf("%s: %w", step, err)}
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		return e
	}
	e.Code = reply.Code
	e.Temporary = reply.Code < 500
	words := fmt.Sprint(reply.Code, " ")
	if c := reply.EnhancedCode; c[0] > 0 {
		e.Enhanced = fmt.Sprintf("%d.%d.%d", c[0], c[1], c[2])
		words += e.Enhanced + " "
	}
	e.Err = fmt.Errorf("%s: %s%s", step, words, reply.Message)
	return e
}
