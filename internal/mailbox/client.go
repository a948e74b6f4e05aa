// Package mailbox is Mayfly's IMAP client (RFC 9051, and RFC 3501 servers): it looks at a folder, fetches, deletes and appends
// mail, and waits for changes.
//
// Promises:
//   - Every operation honours its context and ends within Server.Timeout (five times that where a whole mail is moved),
//     even if the server says nothing. A Client whose operation was cut off that way is closed; dial again.
//   - Memory is bounded: what a server may send during one operation has a ceiling, and who sends more is cut off.
//   - Nothing loops without waiting: Watch backs off from 1 s to 5 min, with jitter.
//   - Credentials go over TLS, verified, or over loopback; anything else is refused before they are sent.
//
// Folder names are written with "/" between levels, as in Bot/Status, whatever the server's delimiter is.
package mailbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// What the methods' errors wrap.
var (
	ErrNoFolder = errors.New("no such folder")
	ErrVanished = errors.New("the mail is no longer there")
	ErrTooLarge = errors.New("the mail is too large")
	ErrLogin    = errors.New("login refused")
	ErrSilent   = errors.New("the server does not answer")
	ErrFlood    = errors.New("the server sent more than was asked for")
	ErrEnded    = errors.New("the connection has ended")
	ErrInsecure = errors.New("no TLS")
)

// TLSMode says how a connection is protected.
type TLSMode string

// The ways to connect.
const (
	TLS      TLSMode = "tls"      // TLS from the first byte, port 993
	StartTLS TLSMode = "starttls" // STARTTLS before the login, port 143
	Plain    TLSMode = "plain"    // no TLS: loopback only
)

// Server is where a mailbox is.
type Server struct {
	Addr       string // host:port
	TLS        TLSMode
	ServerName string         // in the certificate, where it differs from Addr's host
	RootCAs    *x509.CertPool // nil: the system's
	Timeout    time.Duration  // of one operation; 0: 1 minute
}

// Login is how one logs in. With a Dovecot master user, Username is "addr*master".
type Login struct {
	Username, Password string
}

const (
	defaultTimeout = time.Minute
	longFactor     = 5         // for operations that move a mail: times the timeout
	answerBytes    = 256 << 10 // ceiling of what a server may send in answer to a simple command
	listBytes      = 16 << 20  // and to a search: a million UIDs
	foldersBytes   = 1 << 20   // and to a list of all folders: thousands
	idleRound      = 10 * time.Minute
	pollEvery      = time.Minute
)

// Client is one logged-in connection. It is used by one goroutine at a time.
type Client struct {
	imap    *imapclient.Client
	conn    *meteredConn
	timeout time.Duration
	round   time.Duration // how long one IDLE command lasts; RFC 2177 wants less than 29 minutes
	poll    time.Duration // between NOOPs where there is no IDLE
	arrived chan struct{} // holds a token when mail arrived in the selected folder
	delim   rune          // of the server's folder names; 0: not asked yet
}

// Dial connects and logs in.
func Dial(ctx context.Context, server Server, login Login) (*Client, error) {
	c := &Client{timeout: server.Timeout, round: idleRound, poll: pollEvery, arrived: make(chan struct{}, 1)}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	if err := c.connect(ctx, server); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server.Addr, err)
	}
	if err := c.login(ctx, login); err != nil {
		c.Close()
		return nil, fmt.Errorf("log in to %s as %s: %w", server.Addr, login.Username, err)
	}
	return c, nil
}

func (c *Client) connect(ctx context.Context, server Server) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	host, _, err := net.SplitHostPort(server.Addr)
	if err != nil {
		return fmt.Errorf("%w: want host:port", err)
	}
	config := &tls.Config{ServerName: host, RootCAs: server.RootCAs, NextProtos: []string{"imap"}}
	if server.ServerName != "" {
		config.ServerName = server.ServerName
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", server.Addr)
	if err != nil {
		return err
	}
	if err := c.protect(ctx, conn, server.TLS, config); err != nil {
		conn.Close()
		return err
	}
	return nil
}

func (c *Client) protect(ctx context.Context, conn net.Conn, mode TLSMode, config *tls.Config) error {
	switch mode {
	case TLS:
		tlsConn := tls.Client(conn, config)
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			return err
		}
		c.start(tlsConn)
		return nil
	case StartTLS:
		return c.startTLS(ctx, conn, config)
	case Plain:
		if remote, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !remote.IP.IsLoopback() {
			return fmt.Errorf(`%w: mode "plain" is for loopback only, use "tls" or "starttls"`, ErrInsecure)
		}
		c.start(conn)
		return nil
	default:
		return fmt.Errorf(`unknown TLS mode %q: want "tls", "starttls" or "plain"`, mode)
	}
}

func (c *Client) start(conn net.Conn) {
	c.conn = newMeteredConn(conn)
	c.imap = imapclient.New(c.conn, c.options(nil))
}

func (c *Client) options(config *tls.Config) *imapclient.Options {
	return &imapclient.Options{TLSConfig: config, UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: c.unasked}}
}

// unasked runs in the reader's goroutine and must not wait.
func (c *Client) unasked(data *imapclient.UnilateralDataMailbox) {
	if data.NumMessages != nil {
		c.signal()
	}
}

// signal leaves a token for Idle, and never waits.
func (c *Client) signal() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// startTLS runs the library's handshake aside, since it can wait for ever on a server that answers nonsense.
func (c *Client) startTLS(ctx context.Context, conn net.Conn, config *tls.Config) error {
	c.conn = newMeteredConn(conn)
	type result struct {
		client *imapclient.Client
		err    error
	}
	done := make(chan result, 1)
	go func() {
		client, err := imapclient.NewStartTLS(c.conn, c.options(config))
		done <- result{client, err}
	}()
	select {
	case r := <-done:
		c.imap = r.client
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) login(ctx context.Context, login Login) error {
	return c.do(ctx, "login", c.timeout, answerBytes, func() error {
		if err := c.imap.WaitGreeting(); err != nil {
			return err
		}
		var refused *imap.Error
		err := c.imap.Login(login.Username, login.Password).Wait()
		if errors.As(err, &refused) && refused.Code != imap.ResponseCodeUnavailable {
			return fmt.Errorf("%w: %s: check the address and the password", ErrLogin, refused.Text)
		}
		if err == nil {
			c.imap.Caps()
		}
		return err
	})
}

// Close ends the connection at once. Nothing is lost by it: every operation that returned has been done.
func (c *Client) Close() error {
	if err := c.imap.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the connection: %w", err)
	}
	return nil
}

// do runs one operation. When the context or the timeout ends first the connection is closed, which ends every wait in the
// library.
func (c *Client) do(ctx context.Context, what string, timeout time.Duration, bytes int64, f func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, ErrSilent)
	defer cancel()
	c.conn.allow(bytes)
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	err := f()
	switch {
	case !stop() && context.Cause(ctx) == ErrSilent:
		return fmt.Errorf("%s: %w within %v", what, ErrSilent, timeout)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case err != nil && c.conn.flooded.Load():
		return fmt.Errorf("%s: %w, %d bytes", what, ErrFlood, bytes)
	case errors.Is(err, net.ErrClosed): // the library closed it when the server did; its error is of the write that came after
		return fmt.Errorf("%s: %w", what, ErrEnded)
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// name translates a folder's name into the server's. It talks to the server, so it is called inside do.
func (c *Client) name(folder string) (string, error) {
	if !strings.Contains(folder, "/") {
		return folder, nil
	}
	if c.delim == 0 {
		root, err := c.imap.List("", "", nil).Collect()
		if err != nil {
			return "", fmt.Errorf("ask for the delimiter of folders: %w", err)
		}
		if len(root) == 0 || root[0].Delim == 0 {
			return "", errors.New("the server has no folders inside folders")
		}
		c.delim = root[0].Delim
	}
	return strings.ReplaceAll(folder, "/", string(c.delim)), nil
}

// meteredConn fails when the server has sent more than it was allowed: the library buffers whatever it is sent.
type meteredConn struct {
	net.Conn
	left    atomic.Int64
	flooded atomic.Bool
}

func newMeteredConn(conn net.Conn) *meteredConn {
	m := &meteredConn{Conn: conn}
	m.allow(answerBytes)
	return m
}

func (m *meteredConn) allow(bytes int64) { m.left.Store(bytes) }

func (m *meteredConn) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if m.left.Add(-int64(n)) < 0 {
		m.flooded.Store(true)
		return 0, ErrFlood
	}
	return n, err
}
