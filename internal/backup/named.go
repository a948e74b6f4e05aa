package backup

import (
	"context"
	"path"
	"strconv"
	"strings"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// kind is what a file or folder of a state folder is.
type kind int

const (
	generation kind = iota
	bundleTree
	key
	mail
)

// item is something that the ledger names.
type item struct {
	kind   kind
	bot    bot.Address
	digest string // of a bundle
	size   int64  // of a mail
}

// named is what a ledger names, by its path in the state folder. Folders have everything below them.
type named struct {
	items   map[string]item
	parents map[string]bool // the folders that these are in
}

func (n named) add(name string, it item) {
	n.items[name] = it
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		n.parents[dir] = true
	}
}

func readNamed(ctx context.Context, l *ledger.Ledger) (named, error) {
	bots, err := l.Bots(ctx)
	if err != nil {
		return named{}, err
	}
	files, err := l.OutboxFiles(ctx)
	if err != nil {
		return named{}, err
	}
	n := named{map[string]item{}, map[string]bool{botsDir: true, keysDir: true, outboxDir: true}}
	for _, b := range bots {
		n.bot(b)
	}
	for _, f := range files {
		n.add(path.Join(outboxDir, f.Path), item{kind: mail, bot: f.Bot, size: f.Size})
	}
	return n, nil
}

func (n named) bot(b ledger.Bot) {
	home := path.Join(botsDir, string(b.Address))
	for part, g := range map[string]bot.Generation{"account": b.Account, "folder": b.Storage} {
		n.parents[path.Join(home, part)] = true // made before there is a first one
		if g > 0 {
			n.add(path.Join(home, part, strconv.FormatInt(int64(g), 10)), item{kind: generation, bot: b.Address})
		}
	}
	for _, digest := range []string{b.Digest, b.Previous} {
		if digest != "" {
			n.add(path.Join(home, "bundle", digest), item{kind: bundleTree, bot: b.Address, digest: digest})
		}
	}
	if b.Fingerprint != "" {
		n.add(path.Join(keysDir, string(b.Address), "secret.key"), item{kind: key, bot: b.Address})
	}
}

// find returns the item that a name belongs to, and its path.
func (n named) find(name string) (string, item, bool) {
	at := name
	if parts := strings.SplitN(name, "/", 5); parts[0] == botsDir && len(parts) == 5 {
		at = strings.Join(parts[:4], "/")
	}
	it, ok := n.items[at]
	return at, it, ok
}

// holds reports whether a folder may be there because of what is in it.
func (n named) holds(folder string) bool {
	parts := strings.Split(folder, "/")
	return n.parents[folder] || len(parts) == 2 && parts[0] == keysDir && isAddress(parts[1])
}

// spare reports whether a file is one that the ledger need not name: the keys and passwords of accounts.
func spare(name string) bool {
	parts := strings.Split(name, "/")
	return len(parts) == 3 && parts[0] == keysDir && isAddress(parts[1]) && (parts[2] == "secret.key" || parts[2] == "password")
}

// derived reports whether a file can be made again: compiled bundles.
func derived(name string) bool {
	parts := strings.Split(name, "/")
	return len(parts) >= 3 && parts[0] == botsDir && parts[2] == "compiled"
}

func isAddress(s string) bool {
	a, err := bot.ParseAddress(s)
	return err == nil && string(a) == s
}
