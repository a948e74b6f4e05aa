package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

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
func (c crashing) InstallCursor(ctx context.Context, a bot.Address) (ledger.Cursor, error) {
	return burn(c.fuse, func() (ledger.Cursor, error) { return c.o.Ledger.InstallCursor(ctx, a) })
}
func (c crashing) SetInstallCursor(ctx context.Context, a bot.Address, cursor ledger.Cursor) error {
	return burnErr(c.fuse, func() error { return c.o.Ledger.SetInstallCursor(ctx, a, cursor) })
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
func (c crashing) Delete(a bot.Address) error {
	return burnErr(c.fuse, func() error { return c.o.Keys.Delete(a) })
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

// crashingBundles is apart because its Remove has another signature.
type crashingBundles struct {
	*fuse
	bundles Bundles
}

func (c crashingBundles) PutBundle(a bot.Address, digest string, files []storage.File) error {
	return burnErr(c.fuse, func() error { return c.bundles.PutBundle(a, digest, files) })
}
func (c crashingBundles) SweepBundles(a bot.Address, keep ...string) (int, error) {
	return burn(c.fuse, func() (int, error) { return c.bundles.SweepBundles(a, keep...) })
}
func (c crashingBundles) Remove(a bot.Address) error {
	return burnErr(c.fuse, func() error { return c.bundles.Remove(a) })
}

// Wherever a crash happens, the next Process brings about what was asked for, and it is answered at least once and at most
// twice, with one Message-ID.
func TestCrashAtEveryStep(t *testing.T) {
	for name, test := range map[string]struct {
		request []byte
		version string
		states  []string // that may be told
	}{
		"install":   {pack(t, "1"), "1", []string{Installed}},
		"update":    {pack(t, "2"), "2", []string{Updated, Installed}},
		"refused":   {draft("x"), "0", []string{Refused}},
		"uninstall": {uninstall(t), "", []string{Uninstalled}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for at := 1; ; at++ {
				if crashAt(t, at, name != "install", test.request, test.version, test.states) {
					if at < 6 {
						t.Fatalf("only %d steps", at-1)
					}
					return
				}
			}
		})
	}
}

// crashAt crashes at one step, before and after its effect. It reports whether there are fewer steps than that.
func crashAt(t *testing.T, at int, before bool, request []byte, version string, states []string) (beyond bool) {
	t.Helper()
	for _, after := range []bool{false, true} {
		h := newHost(t)
		if before {
			h.append(pack(t, "0"))
			h.process()
		}
		told := len(h.answers())
		h.append(request)
		f := &fuse{at: at, after: after}
		c := crashing{fuse: f, o: h.installer.Options, m: h.mailbox}
		o := h.installer.Options
		o.Ledger, o.Accounts, o.Checker, o.Keys, o.Bundles = c, c, c, c, crashingBundles{f, o.Bundles}
		_, err := New(o).Process(t.Context(), addr, c)
		if err == nil {
			return true
		}
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		h.process()
		where := fmt.Sprintf("crash at step %d, after its effect %v", at, after)
		if got := h.version(); got != version {
			t.Errorf("%s: version %q, want %q", where, got, version)
		}
		checkAnswers(t, where, h.answers()[told:], states)
		if h.process() != (Result{}) {
			t.Errorf("%s: handled again and again", where)
		}
	}
	return false
}

func checkAnswers(t *testing.T, where string, answers [][]byte, states []string) {
	t.Helper()
	if len(answers) < 1 || len(answers) > 2 {
		t.Errorf("%s: %d answers", where, len(answers))
	}
	ids := map[string]bool{}
	for _, raw := range answers {
		m := parse(t, raw)
		ids[m.Header.Get("Message-Id")] = true
		if state := m.Header.Get("Mayfly-State"); !slices.Contains(states, state) {
			t.Errorf("%s: answered %q", where, state)
		}
	}
	if len(ids) != 1 {
		t.Errorf("%s: Message-IDs %v", where, ids)
	}
}
