package install

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
)

// withSecrets is a message with a bundle, account.toml and files named key.asc.
func withSecrets(version, account string, keys ...string) []byte {
	parts := append(singles(version), "Content-Type: application/toml\nContent-Disposition: attachment; filename=account.toml\n\n"+account)
	for _, key := range keys {
		parts = append(parts, "Content-Type: text/plain\nContent-Disposition: attachment; filename=key.asc\n\n"+key)
	}
	return draft("my bot", parts...)
}

const keyToml = `secret_key = "key.asc"`

// newKey makes an armored secret key, after change.
func newKey(t *testing.T, change func(*openpgp.Entity)) (armored string, fingerprint bot.Fingerprint) {
	t.Helper()
	e, err := openpgp.NewEntity("", "", string(addr), &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(e)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(e.SerializePrivateWithoutSigning(w, nil), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), bot.Fingerprint(fmt.Sprintf("%X", e.PrimaryKey.Fingerprint))
}

// lies reports whether a message of a folder has the text, as it is.
func (h *host) lies(folder, text string) bool {
	h.t.Helper()
	if _, err := h.mailbox.Select(h.t.Context(), folder); err != nil {
		h.t.Fatal(err)
	}
	list, err := h.mailbox.List(h.t.Context(), 0, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range list {
		raw, err := h.mailbox.Fetch(h.t.Context(), m.UID, 1<<20)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains(string(raw), text) {
			return true
		}
	}
	return false
}

// The password and the key get into the key store, and nowhere else; the message is gone.
func TestSecretsAreTaken(t *testing.T) {
	h := newHost(t)
	var logged bytes.Buffer
	h.installer.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h.append(draft("plain", singles("1.0.0")...))
	h.process()
	plain, err := h.ledger.Bot(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	h.append(uninstall(t))
	h.process()
	key, fingerprint := newKey(t, nil)
	h.append(withSecrets("1.0.0", "password = \"password\"\n"+keyToml, key))
	h.want(Result{Changed: true, State: Installed}, "1.0.0")
	h.wantSecrets("password", fingerprint)
	b, err := h.ledger.Bot(t.Context(), addr)
	if err != nil || b.Digest != plain.Digest {
		t.Errorf("the secrets made another bundle of it: %v", err)
	}
	if h.lies(Folder, "account.toml") || !h.lies(Folder, "Subject: plain") {
		t.Error("the message with the secrets, and only that, was to be erased")
	}
	for _, secret := range []string{"account.toml", "key.asc", "\"password\"", "PRIVATE KEY", string(fingerprint)} {
		if h.lies(StatusFolder, secret) || strings.Contains(logged.String(), secret) {
			t.Errorf("%q is in an answer or the log", secret)
		}
	}
	h.wantNoFileWith([]byte("PRIVATE KEY"))
	h.append(uninstall(t))
	h.want(Result{Changed: true, State: Uninstalled}, "")
	h.wantSecrets("password", "")
}

// wantSecrets looks into the key store; an empty value is one that is not there.
func (h *host) wantSecrets(password string, fingerprint bot.Fingerprint) {
	h.t.Helper()
	got, err := h.keys.Password(addr)
	if got != password || (err == nil) != (password != "") {
		h.t.Errorf("password %q, %v, want %q", got, err, password)
	}
	keys, err := h.keys.Keys(addr)
	if errors.Is(err, keystore.ErrNotFound) && fingerprint == "" {
		return
	}
	if err != nil || len(keys) != 1 {
		h.t.Fatalf("%d keys, %v, want %q", len(keys), err, fingerprint)
	}
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(keys[0])))
	if err != nil || bot.Fingerprint(fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)) != fingerprint {
		h.t.Errorf("key %X, %v, want %s", e.PrimaryKey.Fingerprint, err, fingerprint)
	}
}

// wantNoFileWith looks at all that the host has on disk for its bots.
func (h *host) wantNoFileWith(text []byte) {
	h.t.Helper()
	files := 0
	err := filepath.WalkDir(filepath.Join(h.dir, "bots"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, text) {
			h.t.Errorf("%s has %q", path, text)
		}
		return err
	})
	if err != nil || files == 0 {
		h.t.Errorf("looked at %d files: %v", files, err)
	}
}

// The password alone, the key alone, beside a zip, and with the bundle that is installed already.
func TestSecretsComeInManyWays(t *testing.T) {
	key, fingerprint := newKey(t, nil)
	for name, test := range map[string]struct {
		before      []byte
		message     []byte
		result      Result
		password    string
		fingerprint bot.Fingerprint
	}{
		"password alone": {nil, withSecrets("1", `password = "password"`), Result{true, Installed}, "password", ""},
		"key alone":      {nil, withSecrets("1", keyToml, key), Result{true, Installed}, "", fingerprint},
		"beside a zip":   {nil, besideZip(t, key), Result{true, Installed}, "password", fingerprint},
		"same bundle":    {pack(t, "1"), withSecrets("1", `password = "password"`), Result{false, Installed}, "password", ""},
		"with an update": {pack(t, "0"), withSecrets("1", `password = "password"`), Result{true, Updated}, "password", ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			if test.before != nil {
				h.append(test.before)
				h.process()
			}
			h.append(test.message)
			h.want(test.result, "1")
			h.wantSecrets(test.password, test.fingerprint)
			if h.lies(Folder, "account.toml") {
				t.Error("the message is still there")
			}
		})
	}
}

func besideZip(t *testing.T, key string) []byte {
	t.Helper()
	b, err := bundle.FromFiles([]bundle.File{{Path: "bot.toml", Data: []byte(manifest("1"))}, {Path: "main.js", Data: []byte(script)}}, bundle.DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	zip, err := b.Zip()
	if err != nil {
		t.Fatal(err)
	}
	parts := singles("1")
	secret := strings.Split(string(withSecrets("1", "password = \"password\"\n"+keyToml, key)), "--xyz\r\n")[len(parts)+1:]
	all := []string{"Content-Type: application/zip\nContent-Transfer-Encoding: 8bit\n\n"}
	message := draft("zip", append(all, strings.Split(strings.ReplaceAll(strings.Join(secret, "\x00"), "\r\n", "\n"), "\x00")...)...)
	return bytes.Replace(message, []byte("8bit\r\n\r\n"), append([]byte("8bit\r\n\r\n"), zip...), 1)
}

func TestSecretsAreRefused(t *testing.T) {
	good, _ := newKey(t, nil)
	other, _ := newKey(t, nil)
	locked, _ := newKey(t, func(e *openpgp.Entity) {
		if err := e.EncryptPrivateKeys([]byte("passphrase"), nil); err != nil {
			t.Fatal(err)
		}
	})
	signOnly, _ := newKey(t, func(e *openpgp.Entity) { e.Subkeys = nil })
	noBundle := draft("x", "Content-Disposition: attachment; filename=account.toml\n\npassword = \"password\"")
	inside := draft("x", "Content-Type: application/zip\nContent-Transfer-Encoding: base64\n\n"+zipWithAccount(t))
	twice := draft("x", append(singles("2"), slices.Repeat([]string{"Content-Disposition: attachment; filename=account.toml\n\npassword = \"password\""}, 2)...)...)
	for name, test := range map[string]struct {
		message []byte
		want    string
	}{
		"a wrong password":          {withSecrets("2", `password = "hunter2"`), "credentials: the relay refuses the password: write the password of this account"},
		"a password with an end":    {withSecrets("2", `password = "hunter2\n"`), "credentials: the password has a line end in it"},
		"nothing in it":             {withSecrets("2", ""), "credentials: there is neither a password nor a key"},
		"not TOML":                  {withSecrets("2", "password = hunter2"), "credentials:1:12: not valid TOML"},
		"not a string":              {withSecrets("2", "password = 42"), "credentials:1:12: not valid TOML, or not a string"},
		"an unknown key":            {withSecrets("2", "password = \"password\"\nhunter2 = true"), "credentials:2:1: unknown key"},
		"twice":                     {twice, "credentials: they are attached twice"},
		"no such attachment":        {withSecrets("2", keyToml), "credentials: secret_key does not name one attachment"},
		"two such attachments":      {withSecrets("2", keyToml, good, good), "credentials: secret_key does not name one attachment"},
		"no key":                    {withSecrets("2", keyToml, "hunter2"), "the key is not an armored OpenPGP secret key"},
		"a public key":              {withSecrets("2", keyToml, strings.ReplaceAll(good, "PRIVATE", "PUBLIC")), "the key is not an armored OpenPGP secret key"},
		"a key with passphrase":     {withSecrets("2", keyToml, locked), "the key has a passphrase"},
		"a key that cannot decrypt": {withSecrets("2", keyToml, signOnly), "the key cannot decrypt, or has expired"},
		"a huge key":                {withSecrets("2", keyToml, strings.Repeat("hunter2\n", maxKey/8+1)), "the key is too large"},
		"another key":               {withSecrets("2", keyToml, other), "credentials: the bot has another key already, and its contacts know it by that: leave out secret_key"},
		"no bundle":                 {noBundle, "no bundle is attached"},
		"in the zip":                {inside, "account.toml: holds the account's password"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.append(withSecrets("1", keyToml, good))
			h.process()
			_, fingerprint := h.haveFingerprint(good)
			h.append(test.message)
			h.want(Result{State: Refused}, "1")
			h.wantSecrets("", fingerprint)
			answers := h.answers()
			got := text(t, answers[len(answers)-1])
			if !strings.Contains(got, test.want) || !strings.Contains(got, "The message was erased") {
				t.Errorf("answered %s", got)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("a secret was answered: %s", got)
			}
			if h.lies(Folder, "Content-Disposition") {
				t.Error("the message with the secrets is still there")
			}
		})
	}
}

func zipWithAccount(t *testing.T) string {
	t.Helper()
	b := &bundle.Bundle{Files: []bundle.File{{Path: "account.toml", Data: []byte("password = \"password\"")}, {Path: "bot.toml", Data: []byte(manifest("2"))}, {Path: "main.js"}}}
	zip, err := b.Zip()
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(zip)
}

// haveFingerprint plays what Setup does: the ledger learns the fingerprint of the key in the key store.
func (h *host) haveFingerprint(armored string) (ledger.Bot, bot.Fingerprint) {
	h.t.Helper()
	_, fingerprint, err := readKey([]byte(armored))
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := h.ledger.Bot(h.t.Context(), addr)
	if err != nil {
		h.t.Fatal(err)
	}
	b.Fingerprint = fingerprint
	if err := h.ledger.Install(h.t.Context(), b); err != nil {
		h.t.Fatal(err)
	}
	return b, fingerprint
}

// Secrets of an older message are not passed over because a newer one waits.
func TestSecretsOfOlderMessages(t *testing.T) {
	h := newHost(t)
	key, fingerprint := newKey(t, nil)
	h.append(withSecrets("1", "password = \"password\"\n"+keyToml, key), pack(t, "2"))
	h.want(Result{Changed: true, State: Updated}, "2")
	h.wantSecrets("password", fingerprint)
	if h.lies(Folder, "account.toml") {
		t.Error("the message with the secrets is still there")
	}
}

// A relay that does not answer is no reason to refuse a password.
func TestPasswordCannotBeTried(t *testing.T) {
	h := newHost(t)
	h.server.Addr = "127.0.0.1:1"
	h.append(withSecrets("1", `password = "password"`))
	if result, err := h.installer.Process(t.Context(), addr, h.mailbox); err == nil || result != (Result{}) || h.version() != "" {
		t.Errorf("%+v, %v, version %q", result, err, h.version())
	}
	if !h.lies(Folder, "account.toml") || len(h.answers()) != 0 {
		t.Error("the request was erased or answered before it was done")
	}
}

// What the key store has of the bot's key may be newer than what its author has: it is left alone.
func TestTheSameKeyAgain(t *testing.T) {
	h := newHost(t)
	key, _ := newKey(t, nil)
	h.append(withSecrets("1", keyToml, key))
	h.process()
	h.haveFingerprint(key)
	newer, _ := newKey(t, nil)
	kept, fingerprint, err := readKey([]byte(newer))
	if err == nil {
		err = h.keys.PutKeys(addr, [][]byte{kept})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.append(withSecrets("2", keyToml, key))
	h.want(Result{Changed: true, State: Updated}, "2")
	h.wantSecrets("", fingerprint)
}
