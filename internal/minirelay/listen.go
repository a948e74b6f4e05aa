package minirelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// ErrClosed is returned by the Serve methods when Close has been called before.
var ErrClosed = errors.New("minirelay: closed")

// errSpent ends the accepting of connections for good.
var errSpent = errors.New("minirelay: no more connections")

var errBudget = errors.New("minirelay: the connection has sent more than it may")

// connLimits bound the connections of one listener.
type connLimits struct {
	conns   int           // at a time; further ones are closed at once
	total   int           // in all; further ones wait in vain, which costs less than to refuse them; 0 means no bound
	bytes   int64         // read from one connection in its life; 0 means no bound
	silence time.Duration // the longest wait for input outside IDLE; 0 leaves it to the protocol's server
}

// guard owns listeners and connections, so that close can end them all and wait for whoever serves them. The servers of
// go-imap and go-smtp do not wait, and miss connections that were accepted a moment ago.
type guard struct {
	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*guardedConn]struct{}
	waits     []func() // for servers that can wait for their goroutines: go-smtp's work on for a moment after Close
	wg        sync.WaitGroup
}

func newGuard() *guard {
	return &guard{listeners: make(map[net.Listener]struct{}), conns: make(map[*guardedConn]struct{})}
}

// serve runs a server's accept loop on l until close. It owns l from the call on.
func (g *guard) serve(l net.Listener, limits connLimits, accept func(net.Listener) error) error {
	if !g.addListener(l) {
		return errors.Join(ErrClosed, l.Close())
	}
	defer g.wg.Done()
	err := accept(&guardedListener{Listener: l, guard: g, limits: limits})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || errors.Is(err, errSpent) { // then l stays open until close
		return nil
	}
	delete(g.listeners, l)
	if err != nil {
		return fmt.Errorf("minirelay: accept on %s: %w", l.Addr(), err)
	}
	return nil
}

func (g *guard) addListener(l net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.listeners[l] = struct{}{}
	g.wg.Add(1)
	return true
}

// enter counts one more goroutine that close waits for, until leave. It says false when it is too late.
func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Add(1)
	}
	return !g.closed
}

func (g *guard) leave() { g.wg.Done() }

// close ends all listeners and connections and returns when their goroutines are done. It may be called twice.
func (g *guard) close() error {
	var errs []error
	g.mu.Lock()
	g.closed = true
	for l := range g.listeners {
		errs = append(errs, l.Close())
	}
	clear(g.listeners)
	for c := range g.conns {
		// The inner connection: the wrapper's Close is how its server says that it is done. It may have been closed
		// a moment ago, and what else could go wrong with the closing of a socket does not matter.
		_ = c.Conn.Close()
	}
	waits := g.waits
	g.mu.Unlock()
	g.wg.Wait()
	for _, wait := range waits {
		wait()
	}
	return errors.Join(errs...)
}

// serveSMTP is serve for a server of go-smtp.
func (g *guard) serveSMTP(l net.Listener, limits connLimits, server *smtp.Server, wrap func(net.Listener) net.Listener) error {
	g.mu.Lock()
	g.waits = append(g.waits, sync.OnceFunc(func() {
		// All listeners and connections are closed, so this returns when the last goroutine has noticed.
		_ = server.Shutdown(context.Background())
	}))
	g.mu.Unlock()
	return g.serve(l, limits, func(l net.Listener) error { return server.Serve(wrap(l)) })
}

type guardedListener struct {
	net.Listener
	guard    *guard
	limits   connLimits
	open     atomic.Int64
	accepted int // one goroutine accepts
}

// Accept returns the next connection within the limits.
func (l *guardedListener) Accept() (net.Conn, error) {
	for {
		if l.limits.total > 0 && l.accepted >= l.limits.total {
			return nil, errSpent
		}
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.accepted++
		if gc := l.admit(c); gc != nil {
			return gc, nil
		}
		c.Close()
	}
}

func (l *guardedListener) admit(c net.Conn) *guardedConn {
	g := l.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || l.open.Load() >= int64(l.limits.conns) {
		return nil
	}
	l.open.Add(1)
	g.wg.Add(1)
	gc := &guardedConn{Conn: c, listener: l}
	g.conns[gc] = struct{}{}
	return gc
}

// guardedConn counts what is read, and shortens the deadlines that a server sets. One goroutine reads it.
type guardedConn struct {
	net.Conn
	listener *guardedListener
	read     int64
	idling   atomic.Bool
	once     sync.Once
}

func (c *guardedConn) Read(b []byte) (int, error) {
	budget := c.listener.limits.bytes
	if budget > 0 && c.read >= budget {
		return 0, errBudget
	}
	n, err := c.Conn.Read(b)
	c.read += int64(n)
	return n, err
}

// SetReadDeadline sets t, or the limit of silence if that comes first and the client is not in IDLE.
func (c *guardedConn) SetReadDeadline(t time.Time) error {
	if silence := c.listener.limits.silence; silence > 0 && !c.idling.Load() {
		if latest := time.Now().Add(silence); t.IsZero() || t.After(latest) {
			t = latest
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// setIdling is called when IDLE begins and ends.
func (c *guardedConn) setIdling(on bool) {
	c.idling.Store(on)
	if on {
		// go-imap may have set its deadline before: RFC 3501 section 5.4 grants 30 minutes.
		c.Conn.SetReadDeadline(time.Now().Add(idleSilence))
	}
}

const idleSilence = 31 * time.Minute

func (c *guardedConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = c.Conn.Close()
		g := c.listener.guard
		g.mu.Lock()
		delete(g.conns, c)
		g.mu.Unlock()
		c.listener.open.Add(-1)
		g.wg.Done()
	})
	return err
}

// debugLog is what go-imap and go-smtp log to. All of it can be provoked by a client, so it is debug output, and cut.
type debugLog struct{ log *slog.Logger }

const logLine = 2048

func (d debugLog) Printf(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	d.log.Debug(s[:min(len(s), logLine)])
}

func (d debugLog) Println(args ...any) { d.Printf("%s", fmt.Sprintln(args...)) }

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
