package wake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"mayfly/internal/bot"
)

// Options say where to listen and whom to call.
type Options struct {
	Path  string // of the socket, at most 100 bytes; its folder must exist and be writable
	Group int    // gid that Dovecot's mail processes run with, which may write to the socket; -1: that of the folder or process

	// Changed is called for every change, as the package's promises say. It should return soon.
	Changed func(account bot.Address, mailbox string, uid uint32)

	Log *slog.Logger
}

// Stats counts datagrams since Listen.
type Stats struct {
	Told      int64 // calls of Changed
	Merged    int64 // changes of a mailbox that waited already: told with it
	Malformed int64 // not of the protocol
	Dropped   int64 // above the bound of waiting mailboxes
}

const complaintEvery = time.Minute // log lines about what was dropped

// Listener is an open socket. Its methods may be called concurrently.
type Listener struct {
	conn    *net.UnixConn
	options Options
	queue   *queue

	malformed, dropped atomic.Int64
	closing            sync.Once
	closed             error
	done               sync.WaitGroup
	stop               context.CancelFunc
}

// Listen makes the socket with mode 0660 and begins to call Changed. What a dead process has left at the path is replaced; a
// socket on which somebody listens, and a file of any other kind, is an error.
func Listen(options Options) (*Listener, error) {
	conn, err := bind(options.Path, options.Group)
	if err != nil {
		return nil, fmt.Errorf("wake: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Listener{conn: conn, options: options, queue: newQueue(), stop: stop}
	l.done.Go(l.read)
	l.done.Go(func() { l.tell(ctx) })
	return l, nil
}

// Close removes the socket and returns when Changed is no longer called; what still waited is forgotten. It must not be
// called from Changed.
func (l *Listener) Close() error {
	l.closing.Do(func() {
		l.stop()
		l.closed = errors.Join(os.Remove(l.options.Path), l.conn.Close())
		l.done.Wait()
	})
	if l.closed != nil {
		return fmt.Errorf("wake: %w", l.closed)
	}
	return nil
}

// Stats returns the counts.
func (l *Listener) Stats() Stats {
	told, merged := l.queue.counts()
	return Stats{Told: told, Merged: merged, Malformed: l.malformed.Load(), Dropped: l.dropped.Load()}
}

// bind makes the socket under another name first, so that nobody can reach it before it has its mode and group.
func bind(path string, group int) (*net.UnixConn, error) {
	if err := requireFree(path); err != nil {
		return nil, err
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: fresh, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("%w: the folder of the socket must exist and be writable", err)
	}
	err = errors.Join(os.Chmod(fresh, 0o660), os.Chown(fresh, -1, group))
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(fresh), conn.Close())
	}
	return conn, nil
}

func requireFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("%s is not a socket: move it away", path)
	}
	conn, err := net.Dial("unixgram", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("%s: another process listens there: stop it first", path)
	}
	return nil
}

// read empties the socket until it is closed.
func (l *Listener) read() {
	var complained time.Time
	buffer := make([]byte, maxLine+1) // one more, to see what is too long
	for {
		n, err := l.conn.Read(buffer)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.options.Log.Error("wake: the socket failed: only polling is left until a restart", "error", err)
			}
			return
		}
		if err := l.take(buffer[:n]); err != nil && time.Since(complained) > complaintEvery {
			complained = time.Now()
			l.options.Log.Warn("wake: a datagram was dropped", "error", err, "malformed", l.malformed.Load(), "dropped", l.dropped.Load())
		}
	}
}

func (l *Listener) take(datagram []byte) error {
	c, err := parse(datagram)
	if err != nil {
		l.malformed.Add(1)
		return err
	}
	if err := l.queue.add(c); err != nil {
		l.dropped.Add(1)
		return err
	}
	return nil
}

// tell calls Changed until ctx ends.
func (l *Listener) tell(ctx context.Context) {
	pace := pace{left: burst, last: time.Now()}
	for {
		if pace.wait(ctx) != nil {
			return
		}
		c, err := l.queue.next(ctx)
		if err != nil {
			return
		}
		l.options.Changed(c.account, c.mailbox, c.uid)
	}
}
