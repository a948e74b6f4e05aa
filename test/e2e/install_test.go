package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"mayfly/internal/bot"
	"mayfly/internal/install"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
)

// version is a bot that says which one it is.
func version(number string) files {
	f := script("Versions", `export default { message(msg) { return "this is `+number+`" } }`)
	f["bot.toml"] = strings.Replace(f["bot.toml"], `version = "1.0.0"`, `version = "`+number+`"`, 1)
	return f
}

// ask appends a message without a bundle.
func (w *world) ask(client *mailbox.Client, address bot.Address, compose func(bot.Address) ([]byte, error)) {
	w.t.Helper()
	mail, err := compose(address)
	if err == nil {
		err = client.Append(w.ctx, install.Folder, mail)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// told waits for the n-th answer and requires that it has all of the texts.
func (w *world) told(client *mailbox.Client, n int, texts ...string) {
	w.t.Helper()
	if mail := w.status(client, n); !containsAll(mail, texts) {
		w.t.Fatalf("answer %d does not say %q:\n%s", n, texts, mail)
	}
}

func TestRollback(t *testing.T) {
	w := newWorld(t)
	address, client := w.newAccount("rollback1")
	w.append(client, address, version("1.0.0"))
	w.serve()
	ada := w.person("ada000011")
	chat := ada.join(w.installed(client))
	w.append(client, address, version("2.0.0"))
	w.told(client, 2, "Mayfly-State: updated", "Subject: updated: Versions 2.0.0")
	ada.say(chat, "which?")
	ada.expect("this is 2.0.0")
	for n, number := range []string{"1.0.0", "2.0.0"} {
		w.ask(client, address, install.ComposeRollback)
		w.told(client, 3+n, "Mayfly-State: updated", "Subject: updated: Versions "+number)
		ada.say(chat, "which?")
		ada.expect("this is " + number)
	}
}

// TestRemovedFolderUninstalls removes the folder Bot as a mail client does, while the host is down.
func TestRemovedFolderUninstalls(t *testing.T) {
	w := newWorld(t)
	address, client := w.newAccount("removed01")
	w.append(client, address, script("Echo", echo))
	w.serve()
	w.installed(client)
	w.stop()
	w.asOwner(address, func(c *imapclient.Client) error { return c.Delete(install.Folder).Wait() })
	w.serve()
	w.await(0, "it was removed; the bot is uninstalled")
	if err := w.poll(func() bool { return !w.hasFiles(address) }); err != nil {
		t.Error("files or keys of the bot are left")
	}
	if _, err := w.ledger().Bot(w.ctx, address); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("the bot is in the ledger: %v", err)
	}
	time.Sleep(2 * time.Second) // the watcher has looked again
	if folders, err := client.Folders(w.ctx); err != nil || slices.Contains(folders, install.Folder) {
		t.Errorf("the folder was made again: %q, %v", folders, err)
	}
	w.append(client, address, script("Echo", echo))
	w.told(client, 2, "Mayfly-State: installed")
}

// TestInstallRules has a host that takes two new bots or versions an hour, of one account. It counts over a restart.
func TestInstallRules(t *testing.T) {
	w := newWorld(t)
	address, client := w.newAccount("ruled0001")
	stranger, strange := w.newAccount("stranger1")
	w.append(client, address, version("1"))
	w.append(strange, stranger, version("1"))
	w.settings = strings.NewReplacer("[log]", "[install]\nwho = \"listed\"\nlisted = [\""+string(address)+"\"]\ninstalls_per_hour = 2\n[log]")
	w.serve()
	w.told(client, 1, "Mayfly-State: installed")
	w.told(strange, 1, "Mayfly-State: refused", "[install] who: stranger1@chat.test is not on the list")
	w.append(client, address, version("2"))
	w.told(client, 2, "Mayfly-State: updated")
	w.stop()
	w.append(client, address, version("3"))
	w.serve()
	w.told(client, 3, "Mayfly-State: refused", "[install] installs_per_hour: 2 bots or new versions", "Versions 2 stays installed.")
}

// asOwner does something in the account that our own client has no need of.
func (w *world) asOwner(address bot.Address, do func(*imapclient.Client) error) {
	w.t.Helper()
	c, err := imapclient.DialInsecure(w.imap, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	master := string(readAll(w.t, filepath.Join(w.dir, "master-password")))
	if err := c.Login(string(address)+"*mayfly", master).Wait(); err != nil {
		w.t.Fatal(err)
	}
	if err := do(c); err != nil {
		w.t.Fatal(err)
	}
}

// hasFiles reports whether the host has files or a key of the bot.
func (w *world) hasFiles(address bot.Address) bool {
	for _, path := range []string{filepath.Join("bots", string(address)), filepath.Join("keys", string(address), "secret.key")} {
		if _, err := os.Stat(filepath.Join(w.dir, "state", path)); err == nil {
			return true
		}
	}
	return false
}
