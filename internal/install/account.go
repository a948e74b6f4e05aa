package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/pelletier/go-toml/v2"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
)

// secrets are what account.toml brings. They go to the key store, and nowhere else: no problem, answer or log line has any of
// it, and the bundle never sees the attachments.
type secrets struct {
	there       bool            // the message has an account.toml, whatever is in it
	password    string          // "" if there is none
	key         []byte          // a binary transferable secret key (RFC 9580, section 10.2); nil if there is none
	fingerprint bot.Fingerprint // of key
}

const maxKey = 256 << 10 // bytes of an armored key; the largest have some tens of kB

// secretProblem says what is wrong, and nothing of what was written: a password may stand in the wrong place.
func secretProblem(line, column int, message, fix string) bundle.Problems {
	return bundle.Problems{{File: "credentials", Line: line, Column: column, Message: message, Fix: fix}}
}

// takeSecrets takes account.toml and the key that it names out of the attachments.
func (a *attachments) takeSecrets() (secrets, error) {
	text, n := a.remove(bundle.AccountName)
	if n == 0 {
		return secrets{}, nil
	}
	s := secrets{there: true}
	if n > 1 {
		return s, secretProblem(0, 0, "they are attached twice", "attach them once")
	}
	var account struct {
		Password  string `toml:"password"`
		SecretKey string `toml:"secret_key"`
	}
	const fix = `write password = "…" and, where a key comes along, secret_key = "key.asc"`
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&account)
	var bad *toml.DecodeError
	var unknown *toml.StrictMissingError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0: // before DecodeError, into which it unwraps
		line, column := unknown.Errors[0].Position()
		return s, secretProblem(line, column, "unknown key", fix)
	case errors.As(err, &bad):
		line, column := bad.Position()
		return s, secretProblem(line, column, "not valid TOML, or not a string", fix)
	case err != nil:
		return s, secretProblem(0, 0, "not valid TOML", fix)
	case account.Password == "" && account.SecretKey == "":
		return s, secretProblem(0, 0, "there is neither a password nor a key", fix)
	case strings.ContainsAny(account.Password, "\r\n\x00"):
		return s, secretProblem(0, 0, "the password has a line end in it", fix)
	}
	s.password = account.Password
	if account.SecretKey == "" {
		return s, nil
	}
	armored, n := a.remove(account.SecretKey)
	if n != 1 {
		return s, secretProblem(0, 0, "secret_key does not name one attachment of this message", "attach the key under the name that secret_key has")
	}
	s.key, s.fingerprint, err = readKey(armored)
	return s, err
}

// remove takes all attachments with this name away. It returns the last, and how many there were.
func (a *attachments) remove(name string) (data []byte, n int) {
	a.files = slices.DeleteFunc(a.files, func(f attached) bool {
		if f.Path != name {
			return false
		}
		data, n = f.Data, n+1
		return true
	})
	return data, n
}

// readKey checks a key as far as core will: it must sign and decrypt without a passphrase. The error is bundle.Problems.
func readKey(armored []byte) ([]byte, bot.Fingerprint, error) {
	problem := func(message string) error {
		return secretProblem(0, 0, message, "export one secret key with ASCII armor and without a passphrase")
	}
	if len(armored) > maxKey {
		return nil, "", problem("the key is too large")
	}
	block, err := armor.Decode(bytes.NewReader(armored))
	if err != nil || block.Type != openpgp.PrivateKeyType {
		return nil, "", problem("the key is not an armored OpenPGP secret key")
	}
	key, err := io.ReadAll(block.Body)
	if err != nil {
		return nil, "", problem("the key's armor is damaged")
	}
	entities, err := openpgp.ReadKeyRing(bytes.NewReader(key))
	if err != nil || len(entities) != 1 || entities[0].PrivateKey == nil {
		return nil, "", problem("the key is not one OpenPGP secret key")
	}
	e, now := entities[0], time.Now()
	signing, signs := e.SigningKey(now, nil)
	decryption, decrypts := e.EncryptionKey(now, nil)
	switch {
	case locked(e):
		return nil, "", problem("the key has a passphrase")
	case !signs || signing.PrivateKey == nil || signing.PrivateKey.Dummy():
		return nil, "", problem("the key cannot sign, or has expired")
	case !decrypts || decryption.PrivateKey == nil || decryption.PrivateKey.Dummy():
		return nil, "", problem("the key cannot decrypt, or has expired")
	}
	return key, bot.Fingerprint(fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)), nil
}

func locked(e *openpgp.Entity) bool {
	if e.PrivateKey.Encrypted {
		return true
	}
	return slices.ContainsFunc(e.Subkeys, func(k openpgp.Subkey) bool { return k.PrivateKey != nil && k.PrivateKey.Encrypted })
}

// check tries the secrets: the password on the relay, since a wrong one would lock the host out, and the key against the one
// that the bot's contacts know.
func (in *Installer) check(ctx context.Context, addr bot.Address, before ledger.Bot, s secrets) (bundle.Problems, error) {
	var problems bundle.Problems
	if s.key != nil && before.Fingerprint != "" && before.Fingerprint != s.fingerprint {
		problems = secretProblem(0, 0, "the bot has another key already, and its contacts know it by that",
			"leave out secret_key; or uninstall the bot first, which loses its chats")
	}
	if s.password == "" {
		return problems, nil
	}
	err := in.Login(ctx, addr, s.password)
	if errors.Is(err, mailbox.ErrLogin) {
		return append(problems, secretProblem(0, 0, "the relay refuses the password", "write the password of this account")...), nil
	}
	return problems, err
}

// keep puts the secrets into the key store. A key that the bot has already is left as it is.
func (in *Installer) keep(addr bot.Address, before ledger.Bot, s secrets) error {
	if s.password != "" {
		if err := in.Keys.PutPassword(addr, s.password); err != nil {
			return err
		}
	}
	if s.key == nil || before.Fingerprint != "" {
		return nil
	}
	return in.Keys.PutKeys(addr, [][]byte{s.key})
}
