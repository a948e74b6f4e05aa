package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/admin"
	"mayfly/internal/backup"
	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/dispatch"
	"mayfly/internal/gate"
	"mayfly/internal/install"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/outbox"
	"mayfly/internal/sandbox"
	"mayfly/internal/session"
	"mayfly/internal/storage"
)

// host is everything that `mayfly serve` runs.
type host struct {
	cfg        config
	log        *slog.Logger
	lock       *os.File
	broker     *sandbox.Broker
	ledger     *ledger.Ledger
	store      *storage.Store
	files      *backup.Files
	keys       *keystore.Store
	submission *outbox.SMTP
	outbox     *outbox.Outbox
	installer  *install.Installer
	dispatcher *dispatch.Dispatcher
	limits     dispatch.Limits
	cpu        *dispatch.HostCPU
	master     string // password of the relay's master user; "" where there is none

	pollEvery time.Duration

	mu       sync.Mutex
	watching map[bot.Address]bool
	watchers sync.WaitGroup
}

// openHost wires the parts of the host in the order in which they depend on each other. done is called after every
// committed session.
func openHost(ctx context.Context, cfg config, log *slog.Logger, done func(session.Outcome)) (*host, error) {
	h := &host{cfg: cfg, log: log, watching: map[bot.Address]bool{}}
	if err := h.open(ctx, done); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *host) open(ctx context.Context, done func(session.Outcome)) error {
	var err error
	if h.pollEvery, err = time.ParseDuration(h.cfg.Relay.Poll); err != nil {
		return err
	}
	if h.master, err = h.cfg.Relay.masterPassword(); err != nil {
		return err
	}
	if err := h.openState(ctx); err != nil {
		return err
	}
	if h.broker, err = startBroker(ctx, h.cfg); err != nil {
		return err
	}
	core, coreVersion := checkCore(ctx, h.cfg.Core)
	if err := require(append(sandbox.Check(ctx, h.broker.Client(), h.cfg.Bots.walls()), core)); err != nil {
		return err
	}
	h.submission = &outbox.SMTP{Addr: h.cfg.Relay.SMTP, TLS: outbox.TLSMode(h.cfg.Relay.SMTPSecurity), Credentials: h.credentials}
	if h.outbox, err = outbox.New(h.path("outbox"), h.ledger, h.submission, h.log); err != nil {
		return err
	}
	if err := h.outbox.Sweep(ctx); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	ceilings, err := h.cfg.ceilings()
	if err != nil {
		return err
	}
	limits, err := h.cfg.Bots.limits()
	if err != nil {
		return err
	}
	limits.Sending, limits.Most = h.limits.Sending, bot.Limits{Memory: ceilings.Memory, Wall: ceilings.Wall}
	engine, err := wasmEngine(h.cfg.Sandbox)
	if err != nil {
		return err
	}
	sandboxes := h.broker.Client()
	sandboxes.Spent = h.cpu.Spent
	runner := session.New(session.Options{
		Sandboxes: sandboxes, Core: h.cfg.Core, CoreVersion: coreVersion, Storage: h.store, Ledger: h.ledger, Outbox: h.outbox, Keys: h.keys,
		Limits: limits, Pacer: storage.NewPacer(storage.DefaultPace()), Log: h.log, Interpreters: h.cfg.Bots.interpreters(), Landlock: h.cfg.Bots.Landlock == landlockRequired,
		Engine: engine,
	})
	memory, err := bundle.ParseSize(h.cfg.Limits.Memory)
	if err != nil {
		return err
	}
	slots := dispatch.NewSlots(h.cfg.Sessions, memory)
	rules, err := h.cfg.Install.rules()
	if err != nil {
		return err
	}
	h.installer = install.New(install.Options{
		Ledger: h.ledger, Bundles: h.store, Accounts: inSlots{runner, slots, h.cpu}, Checker: inSlots{runner, slots, h.cpu}, Author: runner, Keys: h.keys, Mails: h.outbox, Login: h.tryPassword,
		Ceilings: ceilings, Rules: rules, Log: h.log,
	})
	h.dispatcher = dispatch.New(dispatch.Options{
		Dial: h.dial, Folder: folder{h}, Ledger: h.ledger, Sessions: runner, Outbox: h.outbox, Keys: h.keys,
		Bounds: gate.DefaultBounds(), Slots: slots, Budgets: dispatch.DefaultBudgets(), Limits: h.limits, HostCPU: h.cpu, Memory: 64 << 20,
		MaxAttempts: 5, Backoff: time.Second, IdleClose: time.Minute, Looks: 16, Done: done, ScheduleGap: ceilings.ScheduleGap, Log: h.log,
		FromBots: h.cfg.Bots.FromBots,
	})
	return nil
}

// lockTime is how long a daemon waits for the lock: an operator's command that came before it is soon done.
const lockTime = 3 * time.Second

// openState opens what lies on disk, and deletes what a crash has left of sessions that were not committed.
func (h *host) openState(ctx context.Context) error {
	if err := os.MkdirAll(h.cfg.State, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	err := h.openFiles(ctx)
	for began := time.Now(); errors.Is(err, unix.EWOULDBLOCK) && time.Since(began) < lockTime && ctx.Err() == nil; err = h.openFiles(ctx) {
		time.Sleep(lookEvery)
	}
	if err != nil {
		return err
	}
	named, err := h.ledger.Generations(ctx)
	if err != nil {
		return err
	}
	if _, err := h.store.SweepAll(named); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	return nil
}

// openFiles locks the state folder and opens what is in it.
func (h *host) openFiles(ctx context.Context) (err error) {
	if h.lock, err = lockState(h.path("lock")); err != nil {
		return err
	}
	h.files = backup.Of(h.cfg.State)
	if err := h.files.Clean(); err != nil {
		return err
	}
	if h.ledger, err = ledger.Open(ctx, h.path("ledger.db")); err != nil {
		return err
	}
	if h.store, err = storage.Open(h.path("bots")); err != nil {
		return err
	}
	if h.keys, err = keystore.Open(h.path("keys")); err != nil {
		return err
	}
	return h.openLimits()
}

// openLimits reads the limits that the ledger counts for.
func (h *host) openLimits() (err error) {
	if h.limits, err = h.cfg.Limits.limits(); err != nil {
		return err
	}
	perHour, err := time.ParseDuration(h.cfg.Limits.HostCPUPerHour)
	h.cpu = dispatch.NewHostCPU(h.ledger, perHour, h.log)
	return err
}

func (h *host) path(name string) string { return filepath.Join(h.cfg.State, name) }

// lockState keeps a second daemon off the same state folder; the kernel releases the lock when the process ends.
func lockState(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("state: %s is locked: another mayfly runs on this state folder; stop it first: %w", path, err)
	}
	return f, nil
}

// Run watches the accounts and serves their bots until ctx ends, or the broker does.
func (h *host) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	accounts, err := h.accounts(ctx)
	if err != nil {
		return err
	}
	hook, err := h.listen(ctx)
	if err != nil {
		return err
	}
	operators, err := admin.Listen(h.cfg.State, h.desk(ctx, true), h.log)
	if err != nil {
		return err
	}
	h.watchers.Go(func() {
		if err := operators.Serve(ctx); err != nil {
			h.log.Error("the operator's commands cannot be answered until mayfly is started again", "err", err)
		}
	})
	h.watchers.Go(func() { h.tidyDaily(ctx) })
	for _, account := range accounts {
		h.watch(ctx, account)
	}
	h.watchers.Go(func() { h.poll(ctx) })
	h.log.Info("ready", "accounts", len(accounts), "sessions", h.cfg.Sessions)
	select {
	case <-ctx.Done():
	case <-h.broker.Done():
		err = errors.New("the sandbox broker has ended: what it wrote is above; start mayfly again")
	}
	cancel()
	if hook != nil {
		err = errors.Join(err, hook.Close())
	}
	h.watchers.Wait()
	h.dispatcher.Wait()
	return errors.Join(err, h.cpu.Save(context.WithoutCancel(ctx)))
}

// accounts are those of the configuration, those that were announced before, and those with a bot.
func (h *host) accounts(ctx context.Context) ([]bot.Address, error) {
	var accounts []bot.Address
	announced, err := h.ledger.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range announced {
		accounts = append(accounts, a.Address)
	}
	bots, err := h.ledger.Bots(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range bots {
		accounts = append(accounts, b.Address)
	}
	for _, s := range h.cfg.Relay.Accounts {
		account, err := bot.ParseAddress(s)
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, account)
	}
	return accounts, nil
}

func (h *host) dialMailbox(ctx context.Context, account bot.Address) (*mailbox.Client, error) {
	user, password, err := h.credentials(account)
	if err != nil {
		return nil, err
	}
	return h.dialAs(ctx, user, password)
}

// tryPassword logs in with a password that an author has sent.
func (h *host) tryPassword(ctx context.Context, account bot.Address, password string) error {
	client, err := h.dialAs(ctx, string(account), password)
	if err != nil {
		return err
	}
	return client.Close()
}

func (h *host) dialAs(ctx context.Context, user, password string) (*mailbox.Client, error) {
	server := mailbox.Server{Addr: h.cfg.Relay.IMAP, TLS: mailbox.TLSMode(h.cfg.Relay.IMAPSecurity)}
	return mailbox.Dial(ctx, server, mailbox.Login{Username: user, Password: password})
}

func (h *host) dial(ctx context.Context, account bot.Address) (dispatch.Inbox, error) {
	return h.dialMailbox(ctx, account)
}

// credentials are the account's own where its author has sent a password, else those of the relay's master user, who may act
// as every account.
func (h *host) credentials(account bot.Address) (user, password string, err error) {
	password, err = h.keys.Password(account)
	switch {
	case err == nil:
		return string(account), password, nil
	case !errors.Is(err, keystore.ErrNotFound):
		return "", "", err
	case h.master == "":
		return "", "", fmt.Errorf("mayfly cannot log in to %s: the key store has no password of it, and there is no master user: "+
			"set relay.master_password_file, or write the account's password into %s, mode 0600, without a line end",
			account, h.path(filepath.Join("keys", string(account), "password")))
	}
	return string(account) + "*" + h.cfg.Relay.MasterUser, h.master, nil
}

// Close ends everything that open has started, in the opposite order.
func (h *host) Close() error {
	var errs []error
	if h.broker != nil {
		errs = append(errs, h.broker.Close())
	}
	if h.outbox != nil {
		errs = append(errs, h.outbox.Close())
	}
	if h.submission != nil {
		errs = append(errs, h.submission.Close())
	}
	if h.keys != nil {
		errs = append(errs, h.keys.Close())
	}
	if h.store != nil {
		errs = append(errs, h.store.Close())
	}
	if h.ledger != nil {
		errs = append(errs, h.ledger.Close())
	}
	if h.lock != nil {
		errs = append(errs, h.lock.Close())
	}
	return errors.Join(errs...)
}

// inSlots makes what installing needs of sandboxes wait for its turn.
type inSlots struct {
	runner *session.Runner
	slots  dispatch.Slots
	cpu    *dispatch.HostCPU
}

func (s inSlots) Setup(ctx context.Context, b ledger.Bot) (made ledger.Bot, err error) {
	if err := s.cpu.Room(ctx); err != nil {
		return b, err
	}
	memory, err := s.runner.Memory(b)
	if err != nil {
		return b, err
	}
	err = s.slots.Do(ctx, b.Address, memory, func() error {
		made, err = s.runner.Setup(ctx, b)
		return err
	})
	return made, err
}

func (s inSlots) Check(ctx context.Context, b *bundle.Bundle) error {
	if err := s.cpu.Room(ctx); err != nil {
		return err
	}
	memory, err := s.runner.Memory(ledger.Bot{Manifest: b.Manifest})
	if err != nil {
		return err
	}
	return s.slots.Do(ctx, "", memory, func() error { return s.runner.Check(ctx, b) })
}

// folder lets dispatch call the installer on its own connection.
type folder struct{ *host }

func (f folder) Process(ctx context.Context, account bot.Address, inbox dispatch.Inbox) error {
	_, err := f.installer.Process(ctx, account, inbox.(*mailbox.Client))
	return err
}

func (f folder) Tell(ctx context.Context, account bot.Address, connect func(context.Context) (dispatch.Inbox, error)) (time.Time, error) {
	return f.installer.Tell(ctx, account, func(ctx context.Context) (install.Appender, error) {
		inbox, err := connect(ctx)
		if err != nil {
			return nil, err
		}
		return inbox.(*mailbox.Client), nil
	})
}

// wasmEngine names the engine in mayfly-sandbox that runs WASM, and the CPU: what another version compiled is of no use to it, nor
// what it compiled on a machine that can more or less.
func wasmEngine(path string) (string, error) {
	const module = "github.com/tetratelabs/wazero"
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("sandbox: %s is no program of Go's: set sandbox in the configuration to the path of mayfly-sandbox: %w", path, err)
	}
	for _, dep := range info.Deps {
		if dep.Path == module {
			return "wazero-" + dep.Version + "-" + cpuFeatures(), nil
		}
	}
	return "none", nil
}

// cpuFeatures stands for what the CPU can do, as /proc/cpuinfo says; where that says nothing, "unknown".
func cpuFeatures() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, features, ok := strings.Cut(line, ":"); ok && slices.Contains([]string{"flags", "Features"}, strings.TrimSpace(name)) {
			return fmt.Sprintf("%.8x", sha256.Sum256([]byte(features)))
		}
	}
	return "unknown"
}

func startBroker(ctx context.Context, cfg config) (*sandbox.Broker, error) {
	most, err := cfg.sandboxes()
	if err != nil {
		return nil, err
	}
	broker, err := sandbox.StartBroker(ctx, sandbox.StartOptions{Binary: cfg.Sandbox, UID: cfg.SandboxUser, GID: cfg.SandboxUser, Most: most})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	return broker, nil
}

// require refuses to go on while something is missing that bots need.
func require(walls []sandbox.Wall) error {
	var missing []error
	for _, w := range walls {
		if w.Required && !w.InForce {
			missing = append(missing, fmt.Errorf("%s: %s; to mend it: %s", w.Name, w.Why, w.Mend))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("no bot can run on this machine:\n%w", errors.Join(missing...))
	}
	return nil
}
