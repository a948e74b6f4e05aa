package install

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mayfly/internal/bundle"
)

func TestRollback(t *testing.T) {
	h := newHost(t)
	lib := bundle.File{Path: "lib/dice.js", Data: []byte("export const sides = 6\n")}
	h.append(pack(t, "1.0.0", lib))
	h.process()
	h.append(pack(t, "2.0.0"))
	h.process()
	for _, version := range []string{"1.0.0", "2.0.0", "1.0.0"} { // again and again: it swaps
		h.append(rollback(t))
		h.want(Result{Changed: true, State: Updated}, version)
		h.want(Result{}, version)
	}
	answers := h.answers()
	last := parse(t, answers[len(answers)-1])
	if got := last.Header.Get("Subject"); got != "updated: Dice 1.0.0" {
		t.Errorf("answered %q", got)
	}
	b, err := h.ledger.Bot(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	var files strings.Builder
	if err := h.store.ExportBundle(addr, b.Digest, &files); err != nil || !strings.Contains(files.String(), string(lib.Data)) {
		t.Errorf("the files of 1.0.0 are not back: %v", err)
	}
	if want := []string{Installed, Updated, Updated, Updated, Updated}; !slices.Equal(h.states(), want) {
		t.Errorf("answered %v, want %v", h.states(), want)
	}
}

func TestRollbackIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		before  func(*host)
		version string
		want    string
	}{
		"no bot": {func(*host) {}, "", "rollback: no bot is installed"},
		"the first version": {func(h *host) { h.append(pack(h.t, "1")); h.process() }, "1",
			"rollback: there is no version before Dice 1: put a message with the bundle that is to run into the folder Bot"},
		"a new bot after an uninstall": {func(h *host) {
			for _, m := range [][]byte{pack(h.t, "1"), pack(h.t, "2"), uninstall(h.t), pack(h.t, "3")} {
				h.append(m)
				h.process()
			}
		}, "3", "there is no version before Dice 3"},
		"lost on disk": {func(h *host) {
			twoVersions(h)
			if err := os.RemoveAll(h.previousDir()); err != nil {
				h.t.Fatal(err)
			}
		}, "2", "the version before Dice 2 is no longer on this host"},
		"changed on disk": {func(h *host) {
			twoVersions(h)
			if err := os.WriteFile(filepath.Join(h.previousDir(), "main.js"), []byte("export default { }"), 0o600); err != nil {
				h.t.Fatal(err)
			}
		}, "2", "the version before Dice 2 is damaged on this host"},
		"lower ceilings": {func(h *host) {
			twoVersions(h)
			h.installer.Ceilings.Files = 1
		}, "2", "more than 1 files, the operator's ceiling"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			test.before(h)
			h.append(rollback(t))
			h.want(Result{State: Refused}, test.version)
			answers := h.answers()
			if got := text(t, answers[len(answers)-1]); !strings.Contains(got, test.want) {
				t.Errorf("answered %s", got)
			}
		})
	}
}

func twoVersions(h *host) {
	for _, m := range [][]byte{pack(h.t, "1"), pack(h.t, "2")} {
		h.append(m)
		h.process()
	}
}

// previousDir is where the bundle before the installed one lies.
func (h *host) previousDir() string {
	h.t.Helper()
	b, err := h.ledger.Bot(h.t.Context(), addr)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.store.ExportBundle(addr, b.Previous, io.Discard); err != nil {
		h.t.Fatal(err)
	}
	return filepath.Join(h.dir, "bots", string(addr), "bundle", b.Previous)
}
