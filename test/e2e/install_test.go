package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// TestSecretsInTheMessage installs a bot with the account's password and its key, and then takes the master user away.
func TestSecretsInTheMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const address, password = bot.Address("secrets01@" + domain), "correct horse"
	client, err := mailbox.Dial(w.ctx, mailbox.Server{Addr: w.imap, TLS: "plain"}, mailbox.Login{Username: string(address), Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	w.accounts = append(w.accounts, address)
	stranger, _ := w.newAccount("nopasswd1")
	key, fingerprint := secretKey(t, address, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	bundle := script("Echo", echo)
	w.attach(client, files{"bot.toml": bundle["bot.toml"], "main.js": bundle["main.js"], "bot.asc": key,
		"account.toml": "password = \"" + password + "\"\nsecret_key = \"bot.asc\"\n"})
	w.serve()
	ada := w.person("ada000012")
	chat := ada.join(w.installed(client))
	ada.say(chat, "with the master user")
	ada.expect("you said: with the master user")
	if b, err := w.ledger().Bot(w.ctx, address); err != nil || b.Fingerprint != fingerprint {
		t.Errorf("the bot's key is %s, %v, want the one that was sent, %s", b.Fingerprint, err, fingerprint)
	}
	if _, err := client.Select(w.ctx, install.Folder); err != nil {
		t.Fatal(err)
	}
	if left, err := client.List(w.ctx, 0, 10); err != nil || len(left) != 0 {
		t.Errorf("%d messages with the password are left, %v", len(left), err)
	}
	w.stop()
	w.settings = strings.NewReplacer(filepath.Join(w.dir, "master-password"), "")
	w.serve()
	ada.say(chat, "without it")
	ada.expect("you said: without it")
	w.await(0, "mayfly cannot log in to "+string(stranger), "set relay.master_password_file")
	for _, secret := range []string{password, "bot.asc", "account.toml"} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the host's log has %q", secret)
		}
	}
}

// TestKeyThatCoreRefuses sends a key that we can read and core cannot. The author is told, and the next message installs the bot.
func TestKeyThatCoreRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("badkey001")
	key := string(readAll(t, "testdata/refused-key.asc")) // made by go-crypto; core finds a wrong checksum in it
	bundle := script("Echo", echo)
	w.attach(client, files{"bot.toml": bundle["bot.toml"], "main.js": bundle["main.js"], "bot.asc": key, "account.toml": "secret_key = \"bot.asc\"\n"})
	w.serve()
	w.told(client, 1, "Mayfly-State: refused", "core refuses the secret key", "No bot is installed.")
	if w.hasFiles(address) {
		t.Error("files or the key of the bot are left")
	}
	w.append(client, address, script("Echo", echo))
	w.told(client, 2, "Mayfly-State: installed")
}

// attach appends a message with single attachments, as a mail client does.
func (w *world) attach(client *mailbox.Client, f files) {
	w.t.Helper()
	var b strings.Builder
	b.WriteString("Subject: my bot\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=xyz\r\n\r\n")
	for path, text := range f {
		b.WriteString("--xyz\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=\"" + path +
			"\"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(text)) + "\r\n")
	}
	b.WriteString("--xyz--\r\n")
	if err := client.Append(w.ctx, install.Folder, []byte(b.String())); err != nil {
		w.t.Fatal(err)
	}
}

// secretKey makes a key outside of Mayfly and core, as an author might have one.
func secretKey(t *testing.T, address bot.Address, config *packet.Config) (armored string, fingerprint bot.Fingerprint) {
	t.Helper()
	e, err := openpgp.NewEntity("", "", string(address), config)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	out, err := armor.Encode(&b, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(e.SerializePrivate(out, nil), out.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), bot.Fingerprint(fmt.Sprintf("%X", e.PrimaryKey.Fingerprint))
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
