package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// The operator's removal takes the bot as an uninstall does, and the author reads why.
func TestEvict(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1"))
	h.process()
	unsent := filepath.Join(h.dir, "unsent.eml")
	if err := os.WriteFile(unsent, []byte("mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.ledger.Commit(t.Context(), ledger.Commit{Bot: addr, Account: 1, UIDNext: 2, Outgoing: []ledger.Outgoing{
		{To: []bot.Address{"user@chat.test"}, Path: "unsent.eml"},
	}}); err != nil {
		t.Fatal(err)
	}
	connect := func(context.Context) (Appender, error) { return h.mailbox, nil }
	untold, err := h.installer.Evict(t.Context(), addr, "it sent\r\njunk", connect)
	if err != nil || untold != nil {
		t.Fatal(untold, err)
	}
	if h.version() != "" {
		t.Error("the bot is still installed")
	}
	if _, err := os.Stat(unsent); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a mail that will not be sent is left: %v", err)
	}
	answers := h.answers()
	last := answers[len(answers)-1]
	if m := parse(t, last); m.Header.Get("Mayfly-State") != "removed" || !strings.Contains(text(t, last), "The reason: it sent junk") {
		t.Errorf("the author was told\n%s", last)
	}
	h.process() // what is in the folder was handled before
	if h.version() != "" {
		t.Error("the bot came back by itself")
	}
	if _, err = h.installer.Evict(t.Context(), addr, "", connect); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

// A relay that is away keeps nobody from removing a bot.
func TestEvictWithoutRelay(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1"))
	h.process()
	away := errors.New("the relay is away")
	untold, err := h.installer.Evict(t.Context(), addr, "", func(context.Context) (Appender, error) { return nil, away })
	if err != nil || !errors.Is(untold, away) {
		t.Errorf("%v, %v", untold, err)
	}
	if h.version() != "" {
		t.Error("the bot is still installed")
	}
}
