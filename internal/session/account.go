package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/keystore"
	"mayfly/internal/ledger"
)

// Setup makes core's account of a bot that has none yet, or brings the profile of one that has up to date with its manifest.
// It commits the generation and returns the bot as it is now, with its fingerprint and invite link. Where core refuses the key
// that the key store holds for it, the error is bundle.Problems.
func (r *Runner) Setup(ctx context.Context, b ledger.Bot) (ledger.Bot, error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.Limits.CoreWall+compileWall)
	defer cancel()
	if err := r.ensureCompiled(ctx, b); err != nil {
		return b, err
	}
	c, err := r.openCore(ctx, b)
	if err != nil {
		return b, fmt.Errorf("core: %w", err)
	}
	defer c.close()
	if b.Account == 0 {
		if err := r.configure(ctx, c, b.Address); err != nil {
			return b, c.why(err)
		}
	}
	if err := r.profile(ctx, c, b); err != nil {
		return b, c.why(err)
	}
	if b.Invite == "" { // each call would make one more token that stays valid for ever
		if b.Invite, err = c.client.Invite(ctx, c.account); err != nil {
			return b, c.why(err)
		}
	}
	// Core's first look at the INBOX sets the UID from which it fetches: it must be an empty one.
	if err := c.client.StartIO(ctx, c.account); err != nil {
		return b, c.why(err)
	}
	if err := r.meetAuthor(ctx, c, b); err != nil {
		return b, c.why(err)
	}
	end, err := r.endCore(ctx, c, b, accountRules(r.Limits))
	if err != nil {
		return b, c.why(err)
	}
	return r.commitSetup(ctx, b, end, started)
}

func (r *Runner) commitSetup(ctx context.Context, b ledger.Bot, end ending, started time.Time) (ledger.Bot, error) {
	outgoing, err := r.stage(b.Address, end.outgoing)
	if err != nil {
		return b, err
	}
	if b.Fingerprint, err = end.fingerprint(); err != nil {
		return b, err
	}
	b.Account, b.UIDNext, b.State = end.account, end.uidNext, end.state
	err = r.Ledger.Commit(ctx, ledger.Commit{
		Bot: b.Address, Account: b.Account, Storage: b.Storage, UIDNext: b.UIDNext, State: b.State,
		Fingerprint: b.Fingerprint, Invite: b.Invite, Outgoing: outgoing, Started: started, Ended: time.Now(),
	})
	if err != nil {
		return b, r.uncommitted(b, outgoing, err)
	}
	r.sweep(b.Address, b.Account, b.Storage)
	return b, nil
}

// configure makes the account and tells core that the minirelay is its provider. A key that the key store holds already, sent
// along by the author or left by a set-up that was not committed, becomes the account's key; else core makes one.
func (r *Runner) configure(ctx context.Context, c *coreSide, address bot.Address) error {
	var err error
	if c.account, err = c.client.AddAccount(ctx); err != nil {
		return err
	}
	// bot: accept every chat, mark messages as a bot's. mdns: replies would ask for receipts, and each receipt is a wake.
	// delete_device_after, a week in seconds, bounds the account.
	err = c.client.BatchSetConfig(ctx, c.account, map[string]string{"bot": "1", "mdns_enabled": "0", "delete_device_after": "604800"})
	if err != nil {
		return err
	}
	keys, err := r.Keys.Keys(address)
	if err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	for _, key := range keys {
		var refused *core.Error
		if err := c.importKey(ctx, key); errors.As(err, &refused) {
			return bundle.Problems{{File: "credentials", Message: "core refuses the secret key: " + strings.Join(strings.Fields(refused.Message), " "),
				Fix: "export the key from a Delta Chat app, or leave out secret_key, and core makes one"}}
		} else if err != nil {
			return fmt.Errorf("importing the bot's key: %w", err)
		}
	}
	return c.client.Configure(ctx, c.account, core.Transport{
		Addr: string(address), Password: "none: the minirelay takes any",
		IMAPServer: "127.0.0.1", IMAPPort: imapPort, SMTPServer: "127.0.0.1", SMTPPort: smtpPort,
	})
}

// importKey hands core a secret key, in the armored form that it takes.
func (c *coreSide) importKey(ctx context.Context, key []byte) error {
	var armored bytes.Buffer
	w, err := armor.Encode(&armored, openpgp.PrivateKeyType, nil)
	if err != nil {
		return err
	}
	if _, err := w.Write(key); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	path := filesDir + "/secret-key.asc"
	if err := c.box.PutFile(path, int64(armored.Len()), &armored); err != nil {
		return err
	}
	return c.client.Call(ctx, "import_self_keys", nil, c.account, path, nil)
}

// fingerprint is that of the bot's own key. Core has one key for an account.
func (e ending) fingerprint() (bot.Fingerprint, error) {
	if len(e.selfKeys) == 0 {
		return "", errors.New("core's account holds no secret key that this host can read: install the version of deltachat-rpc-server that docs/ARCHITECTURE.md names")
	}
	key, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(e.selfKeys[0])))
	if err != nil {
		return "", fmt.Errorf("core's secret key: %w", err)
	}
	return bot.Fingerprint(fmt.Sprintf("%X", key.PrimaryKey.Fingerprint)), nil
}
