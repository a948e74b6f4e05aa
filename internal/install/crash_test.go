package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/storage"
)

var errCrash = errors.New("the power went out")

// fuse stands between the installer and all that it calls. It burns through at one call, before or after that call had its
// effect, and nothing works from then on.
type fuse struct {
	at    int
	after bool
	calls int
}

func burn[T any](f *fuse, effect func() (T, error)) (T, error) {
	f.calls++
	if f.calls < f.at {
		return effect()
	}
	if f.calls == f.at && f.after {
		effect()
	}
	var zero T
	return zero, errCrash
}

func burnErr(f *fuse, effect func() error) error {
	_, err := burn(f, func() (struct{}, error) { return struct{}{}, effect() })
	return err
}

type crashing struct {
	*fuse
	o Options
	m Mailbox
}

func (c crashing) Bot(ctx context.Context, a bot.Address) (ledger.Bot, error) {
	return burn(c.fuse, func() (ledger.Bot, error) { return c.o.Ledger.Bot(ctx, a) })
}
func (c crashing) Install(ctx context.Context, b ledger.Bot) error {
	return burnErr(c.fuse, func() error { return c.o.Ledger.Install(ctx, b) })
}
func (c crashing) Folder(ctx context.Context, a bot.Address) (ledger.Folder, error) {
	return burn(c.fuse, func() (ledger.Folder, error) { return c.o.Ledger.Folder(ctx, a) })
}
func (c crashing) SetHandled(ctx context.Context, a bot.Address, cursor ledger.Cursor) error {
	return burnErr(c.fuse, func() error { return c.o.Ledger.SetHandled(ctx, a, cursor) })
}
func (c crashing) SetSeen(ctx context.Context, a bot.Address, inbox uint32) error {
	return burnErr(c.fuse, func() error { return c.o.Ledger.SetSeen(ctx, a, inbox) })
}
func (c crashing) Installs(ctx context.Context, since time.Time) ([]time.Time, error) {
	return burn(c.fuse, func() ([]time.Time, error) { return c.o.Ledger.Installs(ctx, since) })
}
func (c crashing) CountBots(ctx context.Context) (int, error) {
	return burn(c.fuse, func() (int, error) { return c.o.Ledger.CountBots(ctx) })
}
func (c crashing) Failures(ctx context.Context, a bot.Address) ([]ledger.Failure, time.Time, error) {
	return c.o.Ledger.Failures(ctx, a) // not called by Process
}
func (c crashing) FailuresTold(ctx context.Context, a bot.Address, at time.Time, mails ...ledger.Outgoing) error {
	return c.o.Ledger.FailuresTold(ctx, a, at, mails...)
}
func (c crashing) Overrun(ctx context.Context, a bot.Address) (ledger.Overrun, bool, error) {
	return c.o.Ledger.Overrun(ctx, a) // not called by Process
}
func (c crashing) OverrunTold(ctx context.Context, a bot.Address, at time.Time, mails ...ledger.Outgoing) error {
	return c.o.Ledger.OverrunTold(ctx, a, at, mails...)
}
func (c crashing) Remove(ctx context.Context, a bot.Address) error {
	return burnErr(c.fuse, func() error { return c.o.Ledger.Remove(ctx, a) })
}
func (c crashing) Setup(ctx context.Context, b ledger.Bot) (ledger.Bot, error) {
	return burn(c.fuse, func() (ledger.Bot, error) { return c.o.Accounts.Setup(ctx, b) })
}
func (c crashing) Check(ctx context.Context, b *bundle.Bundle) error {
	return burnErr(c.fuse, func() error { return c.o.Checker.Check(ctx, b) })
}
func (c crashing) Login(ctx context.Context, a bot.Address, password string) error {
	return burnErr(c.fuse, func() error { return c.o.Login(ctx, a, password) })
}
func (c crashing) PutKeys(a bot.Address, keys [][]byte) error {
	return burnErr(c.fuse, func() error { return c.o.Keys.PutKeys(a, keys) })
}
func (c crashing) PutPassword(a bot.Address, password string) error {
	return burnErr(c.fuse, func() error { return c.o.Keys.PutPassword(a, password) })
}
func (c crashing) DeleteKeys(a bot.Address) error {
	return burnErr(c.fuse, func() error { return c.o.Keys.DeleteKeys(a) })
}
func (c crashing) Delete(ctx context.Context, uids ...uint32) error {
	return burnErr(c.fuse, func() error { return c.m.Delete(ctx, uids...) })
}
func (c crashing) Select(ctx context.Context, folder string) (mailbox.Status, error) {
	return burn(c.fuse, func() (mailbox.Status, error) { return c.m.Select(ctx, folder) })
}
func (c crashing) List(ctx context.Context, after uint32, limit int) ([]mailbox.Message, error) {
	return burn(c.fuse, func() ([]mailbox.Message, error) { return c.m.List(ctx, after, limit) })
}
func (c crashing) Fetch(ctx context.Context, uid uint32, max int64) ([]byte, error) {
	return burn(c.fuse, func() ([]byte, error) { return c.m.Fetch(ctx, uid, max) })
}
func (c crashing) Append(ctx context.Context, folder string, mail []byte) error {
	return burnErr(c.fuse, func() error { return c.m.Append(ctx, folder, mail) })
}
func (c crashing) Create(ctx context.Context, folder string) error {
	return burnErr(c.fuse, func() error { return c.m.Create(ctx, folder) })
}
func (c crashing) Folders(ctx context.Context) ([]string, error) {
	return burn(c.fuse, func() ([]string, error) { return c.m.Folders(ctx) })
}
func (c crashing) UIDValidity(ctx context.Context, folder string) (uint32, error) {
	return burn(c.fuse, func() (uint32, error) { return c.m.UIDValidity(ctx, folder) })
}

// crashingBundles is apart because its Remove has another signature.
type crashingBundles struct {
	*fuse
	bundles Bundles
}

func (c crashingBundles) PutBundle(a bot.Address, digest string, files []storage.File) error {
	return burnErr(c.fuse, func() error { return c.bundles.PutBundle(a, digest, files) })
}
func (c crashingBundles) ExportBundle(a bot.Address, digest string, w io.Writer) error {
	return burnErr(c.fuse, func() error { return c.bundles.ExportBundle(a, digest, w) })
}
func (c crashingBundles) SweepBundles(a bot.Address, keep ...string) (int, error) {
	return burn(c.fuse, func() (int, error) { return c.bundles.SweepBundles(a, keep...) })
}
func (c crashingBundles) Remove(a bot.Address) error {
	return burnErr(c.fuse, func() error { return c.bundles.Remove(a) })
}

func (c crashing) Outbox(ctx context.Context, a bot.Address, limit int) ([]ledger.Outgoing, error) {
	return burn(c.fuse, func() ([]ledger.Outgoing, error) { return c.o.Ledger.Outbox(ctx, a, limit) })
}

func (c crashingBundles) Usage() (int64, error) {
	return burn(c.fuse, func() (int64, error) { return c.bundles.Usage() })
}

// Wherever a crash happens, the next Process brings about what was asked for, and it is answered at least once and at most
// twice, with one Message-ID.
func TestCrashAtEveryStep(t *testing.T) {
	old, older := pack(t, "1"), pack(t, "0")
	for name, test := range map[string]crashTest{
		"install":   {nil, pack(t, "2"), "2", Installed},
		"update":    {[][]byte{old}, pack(t, "2"), "2", Updated},
		"refused":   {[][]byte{old}, draft("x"), "1", Refused},
		"rollback":  {[][]byte{older, old}, rollback(t), "0", Updated},
		"uninstall": {[][]byte{old}, uninstall(t), "", Uninstalled},
		"secrets":   {[][]byte{old}, withSecrets("2", `password = "password"`), "2", Updated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				if test.crashAt(t, at) {
					if at < 6 {
						t.Fatalf("only %d steps", at-1)
					}
					return
				}
			}
		})
	}
}

type crashTest struct {
	before  [][]byte // handled before
	request []byte
	version string // afterwards
	state   string // that is told
}

// crashAt crashes at one step, before and after its effect. It reports whether there are fewer steps than that.
func (test crashTest) crashAt(t *testing.T, at int) (beyond bool) {
	t.Helper()
	for _, after := range []bool{false, true} {
		h := newHost(t)
		for _, message := range test.before {
			h.append(message)
			h.process()
		}
		told := len(h.answers())
		h.append(test.request)
		if h.crash(at, after) {
			return true
		}
		h.process()
		where := fmt.Sprintf("crash at step %d, after its effect %v", at, after)
		if got := h.version(); got != test.version {
			t.Errorf("%s: version %q, want %q", where, got, test.version)
		}
		checkAnswers(t, where, h.answers()[told:], test.state)
		if h.process() != (Result{}) {
			t.Errorf("%s: handled again and again", where)
		}
		if bytes.Contains(test.request, []byte("account.toml")) && h.lies(Folder, "password = ") {
			t.Errorf("%s: the password lies in the mailbox", where)
		}
	}
	return false
}

// crash runs Process up to a step. It reports whether there are fewer steps than that.
func (h *host) crash(at int, after bool) (beyond bool) {
	h.t.Helper()
	f := &fuse{at: at, after: after}
	c := crashing{fuse: f, o: h.installer.Options, m: h.mailbox}
	o := h.installer.Options
	o.Login = c.Login
	o.Ledger, o.Accounts, o.Checker, o.Keys, o.Bundles = c, c, c, c, crashingBundles{f, o.Bundles}
	_, err := New(o).Process(h.t.Context(), addr, c)
	if err != nil && !errors.Is(err, errCrash) {
		h.t.Fatal(err)
	}
	return err == nil
}

// A crash while the removal of the folder is done leaves nothing of the bot, and does not make the folder again.
func TestCrashInARemoval(t *testing.T) {
	for at := 1; ; at++ {
		for _, after := range []bool{false, true} {
			h := newHost(t)
			h.append(pack(t, "1"))
			h.process()
			h.removeFolder()
			if h.crash(at, after) {
				if at < 6 {
					t.Fatalf("only %d steps", at-1)
				}
				return
			}
			h.process()
			_, err := os.Stat(filepath.Join(h.dir, "bots", string(addr)))
			if h.version() != "" || !errors.Is(err, os.ErrNotExist) || slices.Contains(h.folders(), Folder) {
				t.Errorf("crash at step %d, after its effect %v: version %q, files %v, folders %q", at, after, h.version(), err, h.folders())
			}
		}
	}
}

func checkAnswers(t *testing.T, where string, answers [][]byte, want string) {
	t.Helper()
	if len(answers) < 1 || len(answers) > 2 {
		t.Errorf("%s: %d answers", where, len(answers))
	}
	ids := map[string]bool{}
	for _, raw := range answers {
		m := parse(t, raw)
		ids[m.Header.Get("Message-Id")] = true
		if state := m.Header.Get("Mayfly-State"); state != want {
			t.Errorf("%s: answered %q, want %q", where, state, want)
		}
	}
	if len(ids) != 1 {
		t.Errorf("%s: Message-IDs %v", where, ids)
	}
}
