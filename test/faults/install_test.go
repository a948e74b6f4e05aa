//go:build linux && (amd64 || arm64)

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/install"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/minirelay"
)

const password = "a long password"

// author is an account on a relay, into whose folder Bot messages were put.
type author struct {
	t      *testing.T
	relay  *minirelay.Relay
	server mailbox.Server
}

func newAuthor(t *testing.T) *author {
	t.Helper()
	a := &author{t: t, relay: minirelay.NewRelay(minirelay.RelayConfig{Domain: dice.Domain(), LocalMin: 1, LocalMax: 64})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() { _ = a.relay.ServeIMAP(l) }()
	t.Cleanup(func() { a.relay.Close() })
	a.server = mailbox.Server{Addr: l.Addr().String(), TLS: mailbox.Plain}
	return a
}

func (a *author) dial() *mailbox.Client {
	a.t.Helper()
	c, err := mailbox.Dial(a.t.Context(), a.server, mailbox.Login{Username: string(dice), Password: password})
	must(a.t, err)
	return c
}

func (a *author) append(mail []byte, err error) {
	a.t.Helper()
	must(a.t, err)
	c := a.dial()
	must(a.t, errors.Join(c.Append(a.t.Context(), install.Folder, mail), c.Close()))
}

func version(t *testing.T, n int) []byte {
	t.Helper()
	manifest := fmt.Sprintf("name = \"Dice\"\nversion = \"%d\"\ncontact = \"mailto:author@example.org\"\nruntime = \"js\"\nmain = \"main.js\"\n", n)
	b, err := bundle.FromFiles([]bundle.File{{Path: "bot.toml", Data: []byte(manifest)}, {Path: "main.js", Data: bytes.Repeat([]byte("//\n"), 2000)}}, bundle.DefaultCeilings())
	must(t, err)
	mail, err := install.Compose(b, dice)
	must(t, err)
	return mail
}

// others plays core and the sandbox.
type others struct{}

func (others) Setup(_ context.Context, b ledger.Bot) (ledger.Bot, error) {
	b.Invite = "https://i.delta.chat/#0123456789ABCDEF0123456789ABCDEF01234567&v=3&i=aaaaaaaaaaaaaaaaaaaaaaaa&s=bbbbbbbbbbbbbbbbbbbbbbbb&a=dice%40example.org&n=Dice"
	return b, nil
}
func (others) Check(context.Context, *bundle.Bundle) error { return nil }
func (others) Letter(context.Context, ledger.Bot, string) (*ledger.Outgoing, error) {
	return nil, nil
}

func (a *author) process(t *testing.T, dir string) work {
	l, s, k, c := openLedger(t, dir), openStorage(t, dir), openKeys(t, dir), a.dial()
	in := install.New(install.Options{
		Ledger: l, Bundles: s, Accounts: others{}, Checker: others{}, Author: others{}, Keys: k, Ceilings: bundle.DefaultCeilings(),
		Login: func(context.Context, bot.Address, string) error { return nil },
		Rules: install.Rules{Who: install.Everyone, Bots: 1000, Disk: 1e9}, Log: slog.New(slog.DiscardHandler),
	})
	return work{
		func() error { _, err := in.Process(t.Context(), dice, c); return err },
		func() { must(t, errors.Join(c.Close(), l.Close(), s.Close(), k.Close())) },
	}
}

var temporary = regexp.MustCompile(`(?m)^.*\.tmp-.*\n?`)

// installed leaves out what the next install sweeps, and a bundle that the ledger does not name.
func installed(t *testing.T, dir string) string {
	l, s := openLedger(t, dir), openStorage(t, dir)
	bots, err := l.Bots(t.Context())
	must(t, err)
	_, err = s.SweepAll(map[bot.Address]ledger.Generations{"other@example.org": {}, dice: {}})
	must(t, err)
	keep := []string{}
	for _, b := range bots {
		keep = append(keep, b.Digest, b.Previous)
	}
	_, err = s.SweepBundles(dice, keep...)
	must(t, errors.Join(err, s.Close(), l.Close()))
	files := ""
	if len(bots) > 0 {
		files = listing(t, filepath.Join(dir, "bots"))
	}
	return ledgerState(t, dir) + "\n" + temporary.ReplaceAllString(files, "")
}

func installOperations() []operation {
	a, b, c := new(author), new(author), new(author)
	fresh := func(t *testing.T, dir string) {
		*a = *newAuthor(t)
		a.append(version(t, 1), nil)
	}
	old := func(of *author, next func(*testing.T)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			*of = *newAuthor(t)
			of.append(version(t, 1), nil)
			w := of.process(t, dir)
			must(t, w.do())
			w.end()
			next(t)
		}
	}
	all := []operation{
		op("install", "a new bot", fresh, a.process, installed),
		op("install", "a new version", old(b, func(t *testing.T) { b.append(version(t, 2), nil) }), b.process, installed),
		op("install", "uninstall", old(c, func(*testing.T) { c.append(install.ComposeUninstall(dice)) }), c.process, installed),
	}
	for i := range all {
		all[i].unsynced = func(name string) bool { return name == "." } // SQLite's, see ledgerOperations
		all[i].stepwise = true
	}
	return all
}
