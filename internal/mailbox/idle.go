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
	for {
		if news, err := c.idleOnce(ctx); news || err != nil {
			return err
		}
	}
}

// idleOnce is one IDLE command or one NOOP. It reports whether mail arrived.
func (c *Client) idleOnce(ctx context.Context) (news bool, err error) {
	if c.hasArrived() {
		return true, nil
	}
	caps := c.imap.Caps()
	wait := c.noop
	if caps.Has(imap.CapIdle) || caps.Has(imap.CapIMAP4rev2) {
		wait = c.idle
	}
	if err := wait(ctx); err != nil {
		return false, err
	}
	return c.hasArrived(), nil
}

// hasArrived takes the token.
func (c *Client) hasArrived() bool {
	select {
	case <-c.arrived:
		return true
	default:
		return false
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

// RenewAfter is how long Watch keeps one connection. Relays delete accounts that nobody logs in to (chatmail after 90 days),
// and a connection that is held for months is one login; so Watch logs in at least once a day for every account.
const RenewAfter = 24 * time.Hour

// Watch keeps a connection that waits for mail in one folder, until ctx ends. It calls changed after each time it has
// connected, whenever mail arrives, and each time it finds the folder missing, or there again. It never makes a folder: where
// it is missing, Watch looks for it again after 1 s, doubling to 5 min, until somebody has made it. After each 10 minutes without
// news it selects the folder anew, since not every server tells who idles that the folder was removed or made again.
// A connection older than RenewAfter is ended, and Watch logs in again at once. Failures are logged and tried again after 1 s,
// doubling to 5 min, each time with up to half of it taken off at random.
func Watch(ctx context.Context, dial func(context.Context) (*Client, error), folder string, changed func(), log *slog.Logger) {
	watcher{dial: dial, folder: folder, changed: changed, log: log, first: firstDelay, last: lastDelay, stable: stable, renew: RenewAfter}.run(ctx)
}

type watcher struct {
	dial                       func(context.Context) (*Client, error)
	folder                     string
	changed                    func()
	log                        *slog.Logger
	first, last, stable, renew time.Duration
}

// errRenew ends a connection that is old enough.
var errRenew = errors.New("time to log in again")

func (w watcher) run(ctx context.Context) {
	delay := w.first
	for {
		started := time.Now()
		err := w.watch(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > w.stable || errors.Is(err, errRenew) {
			delay = w.first
		}
		if errors.Is(err, errRenew) {
			continue
		}
		pause := jitter(delay)
		w.log.Warn("mailbox: watching was interrupted", "folder", w.folder, "error", err, "again_in", pause.Round(time.Millisecond))
		if sleep(ctx, pause) != nil {
			return
		}
		delay = min(2*delay, w.last)
	}
}

func jitter(d time.Duration) time.Duration { return d - rand.N(d/2+1) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch is one connection's life. It returns why it ended.
func (w watcher) watch(ctx context.Context) error {
	c, err := w.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	w.renew = jitter(w.renew) // a thousand accounts that came at once must not come back at once
	end := time.Now().Add(w.renew)
	seen, err := w.open(ctx, c, end)
	for news := true; err == nil; {
		if news {
			w.changed()
		}
		if time.Now().After(end) {
			return errRenew
		}
		if news, err = c.idleOnce(ctx); news || err != nil {
			continue
		}
		before := seen
		seen, err = w.open(ctx, c, end)
		news = seen.UIDValidity != before.UIDValidity || seen.UIDNext != before.UIDNext
	}
	return err
}

// open selects the folder. While it is missing it looks again and again, and says so the first time.
func (w watcher) open(ctx context.Context, c *Client, end time.Time) (Status, error) {
	delay := w.first
	for tries := 0; ; tries++ {
		status, err := c.Select(ctx, w.folder)
		if !errors.Is(err, ErrNoFolder) {
			return status, err
		}
		if tries == 0 {
			w.log.Debug("mailbox: the folder is missing", "folder", w.folder)
			w.changed()
		}
		if time.Now().After(end) {
			return status, errRenew
		}
		if err := sleep(ctx, jitter(delay)); err != nil {
			return status, err
		}
		delay = min(2*delay, w.last)
	}
}
