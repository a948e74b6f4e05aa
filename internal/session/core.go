package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/accountreader"
	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/crash"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
	"mayfly/internal/sandbox"
	"mayfly/internal/storage"
)

// The ports of the minirelay and the folders in core's sandbox. Core stores the ports in its account: they never change.
const (
	imapPort   = 143
	smtpPort   = 587
	accountDir = "/account"
	filesDir   = "/files" // what the bot attaches, handed over as private copies
)

// coreSide is core in its sandbox, with the minirelay as its provider.
type coreSide struct {
	box     *sandbox.Sandbox
	relay   *minirelay.Private
	client  *core.Client
	reader  *accountreader.Client
	events  <-chan core.Event
	account core.AccountID
	blobs   string // core's folder of attachments
	log     *tail
	lost    int               // messages that core gave up
	wrote   bot.Fingerprint   // who wrote to the bot directly, with the mail at hand
	earlier []bot.Fingerprint // and with mails of this session before it
	handed  atomic.Int64      // bytes of files that it got from bots
	flushes int               // calls of flush that it has not told of
	word    bot.Word          // the host's, which the message turned out to be
	servers errgroup.Group
	stop    context.CancelFunc
}

// openCore starts core on a copy of the bot's account; a bot without an account gets an empty folder.
func (r *Runner) openCore(ctx context.Context, b ledger.Bot) (*coreSide, error) {
	binary, err := os.Open(r.Core)
	if err != nil {
		return nil, fmt.Errorf("%w: set core in the configuration to the path of deltachat-rpc-server", err)
	}
	defer binary.Close()
	box, err := r.Sandboxes.Open(ctx, r.CoreSpec(binary))
	if err != nil {
		return nil, err
	}
	c := &coreSide{box: box, log: newTail(r.Limits.Log)}
	c.relay = minirelay.NewPrivate(minirelay.PrivateConfig{
		Address: b.Address, UIDValidity: b.UIDValidity, UIDNext: b.UIDNext,
		MaxMail: 40 << 20, MaxTotal: 80<<20 + sentRoom, MaxRecipients: 500, Log: r.Log,
	})
	if err := r.startCore(ctx, c, b); err != nil {
		c.close()
		return nil, c.why(err)
	}
	return c, nil
}

// CoreSpec is the sandbox of core and of the reader of its account.
func (r *Runner) CoreSpec(binary *os.File) sandbox.Spec {
	return sandbox.Spec{
		Name: "core", Memory: r.Limits.CoreMemory, Pids: r.Limits.Pids, Wall: r.Limits.CoreWall, CPU: r.Limits.CoreWall, Landlock: r.Landlock,
		Dirs: []sandbox.Dir{
			{Path: accountDir, Size: r.Limits.CoreAccount, Inodes: 20_000, Writable: true},
			{Path: filesDir, Size: 64 << 20, Inodes: 1000, Writable: true},
			{Path: "/tmp", Size: 64 << 20, Inodes: 1000, Writable: true},
		},
		Listen: []uint16{imapPort, smtpPort},
		Programs: []sandbox.Program{
			{Name: "core", Binary: binary, Profile: "core", Dir: accountDir,
				Env: []string{"DC_ACCOUNTS_PATH=" + accountDir + "/core", "TMPDIR=/tmp", "HOME=/tmp", "RUST_LOG=warn"}},
			{Name: "reader", Builtin: "account-reader", Profile: "worker", Dir: accountDir, Args: []string{accountDir + "/core"}},
		},
	}
}

func (r *Runner) startCore(ctx context.Context, c *coreSide, b ledger.Bot) error {
	if b.Account != 0 {
		if err := putGeneration(c.box, accountDir, func(w io.Writer) error {
			return r.Storage.Export(b.Address, storage.Account, b.Account, w)
		}); err != nil {
			return fmt.Errorf("account: %w", err)
		}
	}
	c.servers.Go(func() error { return c.relay.ServeIMAP(c.box.Listener(imapPort)) })
	c.servers.Go(func() error { return c.relay.ServeSMTP(c.box.Listener(smtpPort)) })
	for _, program := range []string{"core", "reader"} {
		if err := c.box.Start(program); err != nil {
			return err
		}
	}
	stdio := c.box.Program("core")
	go c.log.read(stdio.Stderr, func() { _ = c.box.Kill() }) // the session ends then
	c.client = core.New(stdio.Stdin, stdio.Stdout)
	reader := c.box.Program("reader")
	c.reader = accountreader.NewClient(reader.Stdin, reader.Stdout)
	eventsCtx, stop := context.WithCancel(ctx)
	c.stop = stop
	c.events = c.client.Events(eventsCtx)
	if b.Account == 0 {
		return nil
	}
	return c.findAccount(ctx)
}

// findAccount asks core which account it has and where its attachments lie.
func (c *coreSide) findAccount(ctx context.Context) error {
	ids, err := c.client.AccountIDs(ctx)
	if err != nil {
		return err
	}
	if len(ids) != 1 {
		return fmt.Errorf("the account folder holds %d accounts, want 1", len(ids))
	}
	c.account = ids[0]
	return c.client.Call(ctx, "get_blob_dir", &c.blobs, c.account)
}

// corePaths is the prefix of every path that core names.
func (c *coreSide) corePaths() string {
	return strings.TrimSuffix(c.blobs, "dc.db-blobs")
}

// putGeneration streams a generation from disk into a folder of the sandbox.
func putGeneration(box *sandbox.Sandbox, dir string, export func(io.Writer) error) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(export(w)) }()
	err := box.Put(dir, r)
	r.CloseWithError(err)
	return err
}

// incoming returns, within limit, the next event that may run the bot: a message, or a webxdc update. It returns false when core has worked
// off every mail presented. Core reports what a mail was before it reports that its INBOX is idle, and both in order.
func (c *coreSide) incoming(ctx context.Context, limit time.Duration) (core.Event, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("core did not finish with the mail within %s", limit))
	defer cancel()
	idle := false
	for {
		select {
		case e, ok := <-c.events:
			if !ok {
				return e, false, errors.New("core ended while it worked on the mail")
			}
			if e.Kind == core.IncomingMsg || e.Kind == core.WebxdcStatusUpdate {
				return e, true, nil
			}
			idle = idle || e.Kind == core.ImapInboxIdle
		case <-c.relay.Changed():
		case <-ctx.Done():
			return core.Event{}, false, context.Cause(ctx)
		}
		if idle && c.relay.Settled() {
			return core.Event{}, false, nil
		}
	}
}

// later is incoming for a mail that is presented after others, when flush has returned. By core's INBOX being idle it cannot go: core may have
// been so, and told late, before it saw the mail.
func (c *coreSide) later(ctx context.Context, limit time.Duration) (core.Event, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("core did not finish with the mail within %s", limit))
	defer cancel()
	flushed := false
	for {
		if !flushed && c.flushes == 0 && c.relay.Settled() {
			if err := c.askFlush(ctx); err != nil {
				return core.Event{}, false, err
			}
			flushed = true
		}
		if flushed && c.flushes == 0 {
			return core.Event{}, false, nil
		}
		select {
		case e, ok := <-c.events:
			if err := c.note(e, ok); err != nil {
				return e, false, err
			}
			if e.Kind == core.IncomingMsg || e.Kind == core.WebxdcStatusUpdate {
				return e, true, nil
			}
		case <-c.relay.Changed():
		case <-ctx.Done():
			return core.Event{}, false, context.Cause(ctx)
		}
	}
}

// flush drops all that core had to tell until now.
func (c *coreSide) flush(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("core did not tell of what it has done within %s", limit))
	defer cancel()
	if err := c.askFlush(ctx); err != nil {
		return err
	}
	for c.flushes > 0 {
		select {
		case e, ok := <-c.events:
			if err := c.note(e, ok); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// askFlush has core tell of something that it tells for no other reason here. It tells all in the order in which it happened: so what had
// happened before is told before.
func (c *coreSide) askFlush(ctx context.Context) error {
	c.flushes++
	return c.client.Call(ctx, "set_accounts_order", nil, []core.AccountID{c.account})
}

// note takes from an event what is known by counting.
func (c *coreSide) note(e core.Event, ok bool) error {
	if !ok {
		return errors.New("core ended while it worked on the mail")
	}
	c.count(e)
	return nil
}

// count takes an event into account. Each event is counted once, whoever reads it: a flush that was asked for may be told of during a run.
func (c *coreSide) count(e core.Event) {
	switch {
	case e.Kind == core.AccountsChanged && c.flushes > 0:
		c.flushes--
	case e.Kind == core.MsgFailed:
		c.lost++
	}
}

// drain returns when core has nothing left to do that would be lost to a user.
func (c *coreSide) drain(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var pending bot.Pending
	for {
		if c.relay.Settled() {
			var err error
			if pending, err = c.reader.Pending(ctx); err != nil {
				return fmt.Errorf("account reader: %w", err)
			}
			if pending.Drained() && c.relay.Settled() {
				return nil
			}
		}
		select {
		case e, ok := <-c.events:
			if !ok {
				return errors.New("core ended before it was drained")
			}
			c.count(e)
		case <-c.relay.Changed():
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("core did not finish within %s: %+v is left in its queues", limit, pending)
		}
	}
}

// ending is what a session leaves.
type ending struct {
	account  bot.Generation
	consent  bot.Fingerprint
	uidNext  uint32
	state    bot.AccountState
	selfKeys [][]byte
	outgoing []minirelay.Outgoing
	atOnce   int            // mails that were not kept for the commit
	notice   *ledger.Notice // that is among them; may be nil
	core     sandbox.Result
}

// endCore drains core, reads what the gate must know, ends core and streams its account out.
func (r *Runner) endCore(ctx context.Context, c *coreSide, b ledger.Bot, rules storage.Rules) (ending, error) {
	var end ending
	if err := c.drain(ctx, r.Limits.Drain); err != nil {
		return end, err
	}
	crash.At(crash.Drained)
	if err := c.client.Close(); err != nil {
		return end, fmt.Errorf("core: %w", err)
	}
	if _, err := c.box.Wait(ctx, "core"); err != nil {
		return end, fmt.Errorf("core: %w", err)
	}
	end.uidNext, end.outgoing, end.atOnce = c.relay.UIDNext(), c.relay.Outgoing(), c.relay.Taken() // all of it: core is gone
	state, err := c.reader.State(ctx)
	if err != nil {
		return end, fmt.Errorf("account reader: %w", err)
	}
	if err := c.reader.Close(); err != nil {
		return end, fmt.Errorf("account reader: %w", err)
	}
	if _, err := c.box.Wait(ctx, "reader"); err != nil {
		return end, fmt.Errorf("account reader: %w", err)
	}
	crash.At(crash.Read)
	end.account, _, err = r.collect(ctx, c.box, accountDir, b.Address, storage.Account, b.Account, rules)
	if err != nil {
		return end, fmt.Errorf("account: %w", err)
	}
	crash.At(crash.Collected)
	if err := r.keepKeys(b.Address, state.SelfKeys); err != nil {
		return end, host(err)
	}
	end.state, end.selfKeys, end.state.SelfKeys = state, state.SelfKeys, nil
	end.core, err = c.box.Close()
	return end, err
}

// keepKeys moves the secret keys to the key store: the ledger holds none.
func (r *Runner) keepKeys(account bot.Address, keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	if kept, err := r.Keys.Keys(account); err == nil && bytes.Equal(bytes.Join(kept, nil), bytes.Join(keys, nil)) {
		return nil // as nearly always: a write is two fsyncs
	}
	if err := r.Keys.PutKeys(account, keys); err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	return nil
}

func accountRules(l Limits) storage.Rules {
	return storage.Rules{Files: 20_000, Depth: 8, Name: 255, Bytes: l.CoreAccount, File: l.CoreAccount, Change: l.CoreAccount}
}

// afterRun are the rules where the bot has called core: it may take no more than a half of what is kept for core's own work, or no mail
// would ever fit again.
func afterRun(rules storage.Rules) storage.Rules {
	rules.Bytes -= accountReserve / 2
	return rules
}

// collect streams a folder of a sandbox, whose programs have ended, into a new generation.
func (r *Runner) collect(ctx context.Context, box *sandbox.Sandbox, dir string, account bot.Address, kind storage.Kind,
	base bot.Generation, rules storage.Rules) (bot.Generation, storage.Stats, error) {
	stream, err := box.Collect(dir)
	if err != nil {
		return 0, storage.Stats{}, err
	}
	defer stream.Close()
	return r.Storage.Import(ctx, account, kind, base, stream, rules)
}

// close ends everything that is still there. It is called after a failure and after a success.
func (c *coreSide) close() {
	if c.stop != nil {
		c.stop()
	}
	_, _ = c.box.Close() // a failure of the sandbox has been reported by the call that met it
	if c.reader != nil {
		_ = c.reader.Close() // likewise
	}
	_ = c.relay.Close()
	_ = c.servers.Wait()
}

// why adds to an error what core wrote on its stderr, and the cause of the sandbox's death.
func (c *coreSide) why(err error) error {
	var failed *runFailed
	if err == nil || errors.As(err, &failed) {
		return err
	}
	if text := c.log.String(); text != "" {
		return fmt.Errorf("%w; core wrote: %s", err, text)
	}
	return err
}
