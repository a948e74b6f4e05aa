package mailbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Idle waits until mail arrives in the selected folder and returns nil, also when it arrived since the last Select or Idle.
// Deletions and flags wake nobody. Else the error is the context's, after which the Client is still good, or the
// connection's. It uses IDLE (RFC 2177), renewed every 10 minutes, which also finds out whether the server is still there;
// where the server has no IDLE, NOOP every minute.
func (c *Client) Idle(ctx context.Context) error {
	caps := c.imap.Caps()
	wait := c.noop
	if caps.Has(imap.CapIdle) || caps.Has(imap.CapIMAP4rev2) {
		wait = c.idle
	}
	for {
		select {
		case <-c.arrived:
			return nil
		default:
		}
		if err := wait(ctx); err != nil {
			return err
		}
	}
}

// idle is one IDLE command, up to the first news.
func (c *Client) idle(ctx context.Context) error {
	var cmd *imapclient.IdleCommand
	err := c.do(ctx, "idle", c.timeout, answerBytes, func() error {
		var err error
		cmd, err = c.imap.Idle()
		return err
	})
	if err != nil {
		return err
	}
	c.pause(ctx, c.round)
	timeout := c.timeout
	if ctx.Err() != nil { // a goodbye should not hold up the end of the program
		timeout = min(timeout, 2*time.Second)
	}
	err = c.do(context.WithoutCancel(ctx), "idle", timeout, answerBytes, func() error {
		return errors.Join(cmd.Close(), cmd.Wait())
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (c *Client) noop(ctx context.Context) error {
	c.pause(ctx, c.poll)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.do(ctx, "poll", c.timeout, answerBytes, func() error { return c.imap.Noop().Wait() })
}

// pause waits for news, which it leaves in place, for the end of the context or of the connection, or for d.
func (c *Client) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.arrived:
		c.signal()
	case <-timer.C:
	case <-ctx.Done():
	case <-c.imap.Closed():
	}
}

const (
	firstDelay = time.Second
	lastDelay  = 5 * time.Minute
	// stable is how long a connection must have lasted for the next delay to start at firstDelay again.
	stable = time.Minute
)

// Watch keeps a connection that waits for mail in one folder, until ctx ends. It calls changed after each time it has
// connected, whenever mail arrives, and each time it finds the folder missing, so that the owner can make it. Failures are
// logged and tried again after 1 s, doubling to 5 min, each time with up to half of it taken off at random.
func Watch(ctx context.Context, dial func(context.Context) (*Client, error), folder string, changed func(), log *slog.Logger) {
	watcher{dial: dial, folder: folder, changed: changed, log: log, first: firstDelay, last: lastDelay, stable: stable}.run(ctx)
}

type watcher struct {
	dial                func(context.Context) (*Client, error)
	folder              string
	changed             func()
	log                 *slog.Logger
	first, last, stable time.Duration
}

func (w watcher) run(ctx context.Context) {
	delay := w.first
	for {
		started := time.Now()
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > w.stable {
			delay = w.first
		}
		pause := delay - rand.N(delay/2+1)
		w.log.Warn("mailbox: watching was interrupted", "folder", w.folder, "error", err, "again_in", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		delay = min(2*delay, w.last)
	}
}

// watch is one connection's life. It returns why it ended.
func (w watcher) watch(ctx context.Context) error {
	c, err := w.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Select(ctx, w.folder); err != nil {
		if errors.Is(err, ErrNoFolder) {
			w.changed()
		}
		return err
	}
	for {
		w.changed()
		if err := c.Idle(ctx); err != nil {
			return err
		}
	}
}
