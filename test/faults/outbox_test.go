//go:build linux && (amd64 || arm64)

package faults

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/outbox"
)

const mail = "From: dice@example.org\r\nMessage-ID: <a>\r\n\r\nYou rolled 4.\r\n"

// relay takes mail, or refuses it for good, and counts.
type relay struct {
	refuses bool
	taken   int
}

func (r *relay) Submit(_ context.Context, _ bot.Address, _ []bot.Address, mail io.Reader) error {
	if _, err := io.ReadAll(mail); err != nil {
		return err
	}
	if r.refuses {
		return &outbox.SubmitError{Err: errors.New("550 no such user")}
	}
	r.taken++
	return nil
}

func (r *relay) Prepare(context.Context, bot.Address) {}

func openOutbox(t *testing.T, dir string, l *ledger.Ledger, r *relay) *outbox.Outbox {
	t.Helper()
	o, err := outbox.New(filepath.Join(dir, "outbox"), l, r, slog.New(slog.DiscardHandler))
	must(t, err)
	return o
}

// said is a ledger and an outbox with one mail that is to be sent, and a file that no commit has named.
func said(t *testing.T, dir string) {
	accepted(t, dir)
	l := openLedger(t, dir)
	defer l.Close()
	out, err := l.Outbox(t.Context(), dice, 10)
	must(t, err)
	must(t, l.Sent(t.Context(), out[0].ID))
	o := openOutbox(t, dir, l, &relay{})
	defer o.Close()
	path, err := o.Stage([]byte(mail))
	must(t, err)
	c := commit(2, 2)
	c.Outgoing[0].Path, c.Outgoing[0].Size = path, int64(len(mail))
	must(t, l.Commit(t.Context(), c))
}

func withLeftover(t *testing.T, dir string) {
	said(t, dir)
	must(t, os.WriteFile(filepath.Join(dir, "outbox", strings.Repeat("f", 32)+".eml"), nil, 0o600))
}

// sendingState is after what a start does.
func sendingState(t *testing.T, dir string) string {
	l := openLedger(t, dir)
	o := openOutbox(t, dir, l, &relay{})
	must(t, o.Sweep(t.Context()))
	must(t, errors.Join(o.Close(), l.Close()))
	return ledgerState(t, dir) + "\n" + listing(t, filepath.Join(dir, "outbox"))
}

// staged is whether there is a whole file beside the one of the mail that is to be sent.
func staged(t *testing.T, dir string) string {
	n := 0
	for _, name := range globbed(filepath.Join(dir, "outbox", "*.eml")) {
		data, err := os.ReadFile(name)
		must(t, err)
		if string(data) == mail {
			n++
		}
	}
	if n > 1 {
		return "staged"
	}
	return "nothing"
}

func outboxOperations() []operation {
	on := func(refuses bool, do func(*testing.T, *outbox.Outbox) error) func(*testing.T, string) work {
		return func(t *testing.T, dir string) work {
			r, l := &relay{refuses: refuses}, openLedger(t, dir)
			o := openOutbox(t, dir, l, r)
			return work{func() error { return do(t, o) }, func() {
				if r.taken > 1 {
					t.Errorf("a mail was submitted %d times by one daemon", r.taken)
				}
				must(t, errors.Join(o.Close(), l.Close()))
			}}
		}
	}
	flush := func(t *testing.T, o *outbox.Outbox) error { return o.Flush(t.Context(), dice) }
	all := []operation{
		op("outbox", "stage", said, on(false, func(t *testing.T, o *outbox.Outbox) error {
			_, err := o.Stage([]byte(mail))
			return err
		}), staged),
		op("outbox", "send", said, on(false, flush), sendingState),
		op("outbox", "give up", said, on(true, flush), sendingState),
		op("outbox", "sweep", withLeftover, on(false, func(t *testing.T, o *outbox.Outbox) error { return o.Sweep(t.Context()) }), func(t *testing.T, dir string) string {
			return listing(t, filepath.Join(dir, "outbox"))
		}),
	}
	for i := range all {
		// The first is SQLite's, see ledgerOperations. A file that failed is never named: the second try makes another.
		all[i].unsynced = func(name string) bool { return name == "." || strings.HasSuffix(name, ".eml") }
	}
	return all
}
