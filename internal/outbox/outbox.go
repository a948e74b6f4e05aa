// Package outbox hands committed mail to the relay's submission, in order for each bot, and tries again where that fails.
//
// A mail is a file <dir>/<32 hex digits>.eml, mode 0600: headers and body as they go out, with CRLF line ends. It is fsynced
// (Stage) before the ledger's commit names it. The ledger says what is to be sent; a file that it does not name is left
// over from a session that was not committed, and is deleted at start (Sweep).
//
// Promises:
//   - A bot's mails leave in the order in which they were said. A temporary failure stops the bot's later mails too.
//   - Every try sends the same bytes, with the same Message-ID, to the same recipients, but for those who have stopped the bot by
//     then: they get nothing but handshakes and the host's own words. A mail goes out once, but for one
//     case that SMTP leaves open (RFC 5321, 6.1): a connection, or Mayfly, that dies after the last byte and before the
//     answer is recorded. Then it goes out again, and the receiving core knows it by its Message-ID.
//   - Temporary failures (4xx, no connection, a certificate that cannot be verified, a refused login) wait 30 s, doubling
//     to 1 h, and are given up after 127 tries, which is five days. 5xx is final. What was given up, for all recipients or for
//     some, the ledger counts with the relay's words, for the bot's author.
package outbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/crash"
	"mayfly/internal/ledger"
)

// Ledger is what the outbox needs of package ledger.
type Ledger interface {
	Outbox(ctx context.Context, addr bot.Address, limit int) ([]ledger.Outgoing, error)
	OutboxPaths(ctx context.Context) ([]string, error)
	StoppedAddresses(ctx context.Context, addr bot.Address, of []bot.Address) ([]bot.Address, error)
	Sent(ctx context.Context, id int64) error
	SentToSome(ctx context.Context, id int64, why string) error
	Deferred(ctx context.Context, id int64, until time.Time, why string) error
	Undeliverable(ctx context.Context, id int64, why string) error
}

// Submitter hands one mail to the relay. It returns nil when the relay has taken it for every recipient, *PartialError when
// it has taken it for some, *SubmitError when for none.
type Submitter interface {
	Submit(ctx context.Context, from bot.Address, to []bot.Address, r io.Reader) error
	Prepare(ctx context.Context, from bot.Address) // a mail is likely to come soon; returns at once
}

const (
	firstWait   = 30 * time.Second
	longestWait = time.Hour
	maxAttempts = 127
	graceTime   = 5 * time.Second // that a mail on its way gets when the daemon is told to end
	batch       = 50              // mails read from the ledger at a time
)

// Outbox sends what the ledger says is unsent. Its methods may be called concurrently.
type Outbox struct {
	root      *os.Root
	ledger    Ledger
	submitter Submitter
	log       *slog.Logger
	now       func() time.Time
	grace     time.Duration

	mu    sync.Mutex
	next  map[bot.Address]time.Time
	turns map[bot.Address]chan struct{}
	taken map[int64]error // what the relay answered to mails that it took, until the ledger has it: not to be submitted again
}

// New opens the outbox whose files are in dir, and makes dir where it is missing.
func New(dir string, l Ledger, s Submitter, log *slog.Logger) (*Outbox, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("outbox: %w: it must be writable by mayfly's user", bot.DiskError(err, dir))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", bot.DiskError(err, dir))
	}
	return &Outbox{
		root: root, ledger: l, submitter: s, log: log, now: time.Now, grace: graceTime,
		next: map[bot.Address]time.Time{}, turns: map[bot.Address]chan struct{}{}, taken: map[int64]error{},
	}, nil
}

// Close releases the folder.
func (o *Outbox) Close() error { return o.root.Close() }

func (o *Outbox) failed(what string, err error) error {
	return fmt.Errorf("outbox: %s: %w", what, bot.DiskError(err, o.root.Name()))
}

// Stage writes a mail into a new file and returns its path, relative to the folder, when it is durable. Headers and body of
// data have CRLF line ends. It is sent when a ledger.Commit has named the path; if none will, Discard it.
func (o *Outbox) Stage(data []byte) (path string, err error) {
	b := make([]byte, 16)
	rand.Read(b)
	path = hex.EncodeToString(b) + ".eml"
	if err := o.write(path, data); err != nil {
		return "", o.failed("stage", errors.Join(err, o.remove(path)))
	}
	return path, nil
}

func (o *Outbox) write(path string, data []byte) error {
	f, err := o.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := o.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Discard deletes a staged file that no commit has named.
func (o *Outbox) Discard(path string) error {
	if err := o.remove(path); err != nil {
		return o.failed("discard", err)
	}
	return nil
}

// DiscardUnnamed deletes those of some staged files that the ledger does not name: of commits that have failed, when a later one has not.
func (o *Outbox) DiscardUnnamed(ctx context.Context, paths []string) error {
	named, err := o.ledger.OutboxPaths(ctx)
	if err != nil {
		return o.failed("discard", err)
	}
	for _, path := range paths {
		if !slices.Contains(named, path) {
			err = errors.Join(err, o.remove(path))
		}
	}
	if err != nil {
		return o.failed("discard", err)
	}
	return nil
}

func (o *Outbox) remove(path string) error {
	if err := o.root.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Sweep deletes, at start, the files that the ledger does not name. No file may be staged and uncommitted.
func (o *Outbox) Sweep(ctx context.Context) error {
	named, err := o.ledger.OutboxPaths(ctx)
	if err != nil {
		return o.failed("sweep", err)
	}
	entries, err := fs.ReadDir(o.root.FS(), ".")
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".eml") && !slices.Contains(named, e.Name()) {
			err = errors.Join(err, o.remove(e.Name()))
		}
	}
	if err != nil {
		return o.failed("sweep", err)
	}
	return nil
}

// SweepOld deletes, beside work, the files that the ledger does not name and that are older than an age: a session that stages a file
// names it within minutes. It returns how many.
func (o *Outbox) SweepOld(ctx context.Context, age time.Duration) (removed int, err error) {
	entries, err := fs.ReadDir(o.root.FS(), ".") // before the ledger is asked: what comes later is not here
	if err != nil {
		return 0, o.failed("sweep", err)
	}
	paths, err := o.ledger.OutboxPaths(ctx)
	if err != nil {
		return 0, o.failed("sweep", err)
	}
	named := map[string]bool{}
	for _, p := range paths {
		named[p] = true
	}
	for _, e := range entries {
		info, e2 := e.Info()
		if e2 != nil || named[e.Name()] || !strings.HasSuffix(e.Name(), ".eml") || o.now().Sub(info.ModTime()) < age {
			continue
		}
		if e2 := o.remove(e.Name()); e2 != nil {
			err = errors.Join(err, o.failed("sweep", e2))
			continue
		}
		removed++
	}
	return removed, err
}

// Next says when to flush a bot's mail again; false: when there is new mail. At start nothing is known: flush every bot once.
func (o *Outbox) Next(addr bot.Address) (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, ok := o.next[addr]
	return t, ok
}

// Flush sends what is due of one bot, in order, up to the first temporary failure; then Next says when to call again. A
// failure to deliver is no error: it is logged, and the ledger has it. An error means that the ledger, the disk or ctx ended
// the work; a mail that is on its way when ctx ends gets 5 seconds more. A second Flush of the same bot waits for the first.
func (o *Outbox) Flush(ctx context.Context, addr bot.Address) error {
	turn := o.turn(addr)
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return fmt.Errorf("outbox: flush %s: %w", addr, ctx.Err())
	}
	next, err := o.flush(ctx, addr)
	o.setNext(addr, next)
	if err != nil {
		return o.failed("flush "+string(addr), err)
	}
	return nil
}

// Prepare makes ready for mail of a bot that is likely to come soon, and returns at once.
func (o *Outbox) Prepare(ctx context.Context, addr bot.Address) { o.submitter.Prepare(ctx, addr) }

// turn is a lock that can be waited for together with a context.
func (o *Outbox) turn(addr bot.Address) chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.turns[addr] == nil {
		o.turns[addr] = make(chan struct{}, 1)
	}
	return o.turns[addr]
}

func (o *Outbox) setNext(addr bot.Address, next time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.next, addr)
	if !next.IsZero() {
		o.next[addr] = next
	}
}

// flush returns when to go on, zero for never.
func (o *Outbox) flush(ctx context.Context, addr bot.Address) (next time.Time, err error) {
	for {
		mails, err := o.ledger.Outbox(ctx, addr, batch)
		if err != nil || len(mails) == 0 {
			return o.after(err), err
		}
		for _, m := range mails {
			if err := ctx.Err(); err != nil {
				return o.after(err), err
			}
			if m.NotBefore.After(o.now()) {
				return m.NotBefore, nil
			}
			next, err := o.send(ctx, m)
			if err != nil || !next.IsZero() {
				return next, err
			}
		}
	}
}

// after is when to go on after an error that is not the mail's.
func (o *Outbox) after(err error) time.Time {
	if err == nil {
		return time.Time{}
	}
	return o.now().Add(firstWait)
}

// send tries one mail and records what came of it. A time means: stop, and go on then.
func (o *Outbox) send(ctx context.Context, m ledger.Outgoing) (time.Time, error) {
	onTheWay, done := lingering(ctx, o.grace)
	defer done()
	err := o.submit(onTheWay, m)
	if ctx.Err() != nil && err != nil {
		return o.after(err), ctx.Err()
	}
	// The relay has answered: what it said is recorded even when we are told to end now.
	ctx = context.WithoutCancel(ctx)
	var failed *SubmitError
	switch {
	case err == nil:
		o.log.Debug("mail sent", "bot", m.Bot, "message_id", m.MessageID, "tries", m.Attempts+1)
		recorded := o.ledger.Sent(ctx, m.ID)
		crash.At(crash.Sent)
		return o.settle(ctx, m, recorded)
	case took(err):
		o.log.Warn("the relay took a mail not for all recipients", "bot", m.Bot, "message_id", m.MessageID, "error", err)
		return o.settle(ctx, m, o.ledger.SentToSome(ctx, m.ID, err.Error()))
	case errors.As(err, &failed) && failed.Temporary && m.Attempts+1 < maxAttempts:
		return o.postpone(ctx, m, err)
	case errors.As(err, &failed):
		o.log.Warn("a mail cannot be delivered", "bot", m.Bot, "message_id", m.MessageID, "tries", m.Attempts+1, "error", err)
		return o.settle(ctx, m, o.ledger.Undeliverable(ctx, m.ID, err.Error()))
	}
	return o.after(err), err
}

// lingering is a context that ends some time after its parent: a mail that is cut off before the relay's answer goes out twice.
func lingering(ctx context.Context, grace time.Duration) (context.Context, func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() { stop(); cancel() }
}

func (o *Outbox) submit(ctx context.Context, m ledger.Outgoing) error {
	if answer, taken := o.wasTaken(m.ID); taken {
		return answer
	}
	f, err := o.root.Open(m.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return &SubmitError{Err: fmt.Errorf("its file %s is gone from the outbox", m.Path)}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != m.Size {
		return &SubmitError{Err: fmt.Errorf("its file %s has %d bytes, written were %d", m.Path, info.Size(), m.Size)}
	}
	to, err := o.wanted(ctx, m)
	if err != nil || len(to) == 0 {
		return err
	}
	crash.At(crash.Opened)
	err = o.submitter.Submit(ctx, m.From, to, f)
	crash.At(crash.Submitted)
	if took(err) {
		o.setTaken(m.ID, err)
	}
	return err
}

// wanted are the recipients that have not stopped the bot. A mail for which none is left counts as sent.
func (o *Outbox) wanted(ctx context.Context, m ledger.Outgoing) ([]bot.Address, error) {
	if m.Exempt {
		return m.To, nil
	}
	stopped, err := o.ledger.StoppedAddresses(ctx, m.Bot, m.To)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(m.To), func(to bot.Address) bool { return slices.Contains(stopped, to) }), nil
}

// took reports whether the relay has taken a mail, for some of its recipients at least. A *SubmitError may wrap a *PartialError.
func took(answer error) bool {
	var failed *SubmitError
	var partial *PartialError
	return answer == nil || !errors.As(answer, &failed) && errors.As(answer, &partial)
}

func (o *Outbox) postpone(ctx context.Context, m ledger.Outgoing, why error) (time.Time, error) {
	until := o.now().Add(wait(m.Attempts))
	o.log.Warn("a mail has to wait", "bot", m.Bot, "message_id", m.MessageID, "until", until, "error", why)
	return until, o.ledger.Deferred(ctx, m.ID, until, why.Error())
}

// wait is how long to wait after so many failures before.
func wait(attempts int) time.Duration {
	if attempts >= 7 {
		return longestWait
	}
	return firstWait << attempts
}

// settle takes a mail that is over out of the outbox, when the ledger has recorded that.
func (o *Outbox) settle(ctx context.Context, m ledger.Outgoing, recorded error) (time.Time, error) {
	// A bot that was removed in the meantime took its rows with it.
	if recorded != nil && !errors.Is(recorded, ledger.ErrNotFound) {
		return o.after(recorded), recorded
	}
	o.forgetTaken(m.ID)
	err := o.remove(m.Path)
	return o.after(err), err
}

func (o *Outbox) wasTaken(id int64) (answer error, taken bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	answer, taken = o.taken[id]
	return answer, taken
}

func (o *Outbox) setTaken(id int64, answer error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken[id] = answer
}

func (o *Outbox) forgetTaken(id int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.taken, id)
}
