package gate

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mayfly/internal/bot"
)

// ErrNoKey is wrapped by NewKeys if the account has no secret key that the gate can use.
var ErrNoKey = errors.New("no usable secret key")

// Keys is what the gate knows of one bot's account, parsed. It is read-only and safe for concurrent use.
type Keys struct {
	readable bool
	secret   []*packet.PrivateKey // that decrypt
	self     map[bot.Fingerprint]bool
	known    map[bot.Fingerprint]*packet.PublicKey // primary keys, the bot's own among them
	whole    map[bot.Fingerprint][]byte            // the contacts' transferable keys
	invites  map[string]bool
	auth     map[string]bool
	secrets  []secret
}

// secret opens a symmetric mail.
type secret struct {
	passphrase []byte
	byInvite   bool            // else a broadcast channel's, or
	inviter    bot.Fingerprint // that of somebody whose invite the bot has accepted
}

// NewKeys parses the state of the account of that address. Its secret keys must be binary transferable secret keys without
// a passphrase. A contact's key that cannot be parsed is left out: its owner is then unknown until a mail brings a better one.
func NewKeys(address bot.Address, state bot.AccountState) (*Keys, error) {
	k := &Keys{
		readable: state.Readable,
		self:     map[bot.Fingerprint]bool{}, known: map[bot.Fingerprint]*packet.PublicKey{}, whole: map[bot.Fingerprint][]byte{},
		invites: set(state.InviteNumbers), auth: set(state.AuthTokens),
	}
	for _, raw := range state.PublicKeys {
		if key, err := primaryKey(raw); err == nil {
			k.known[fingerprint(key)], k.whole[fingerprint(key)] = key, raw
		}
	}
	for _, s := range state.BroadcastSecrets {
		k.secrets = append(k.secrets, secret{passphrase: []byte(s)})
	}
	for _, raw := range state.SelfKeys {
		if err := k.addSelf(raw, state.AuthTokens); err != nil {
			return nil, fmt.Errorf("secret key of %s: %w", address, err)
		}
	}
	if len(k.secret) == 0 {
		return nil, fmt.Errorf("%w for %s: have core make one, or install the bot's key", ErrNoKey, address)
	}
	return k, nil
}

// Expect has the gate know the answer of somebody whose invite the bot has accepted (Secure-Join v3): it is symmetric, by the token of the
// invite, and signed by the key that the invite names. It must be called before the keys are used.
func (k *Keys) Expect(inviter bot.Fingerprint, token string) {
	k.secrets = append(k.secrets, secret{passphrase: passphrase(inviter, token), inviter: inviter})
}

func passphrase(inviter bot.Fingerprint, token string) []byte {
	return []byte("securejoin/" + string(inviter) + "/" + token)
}

// PublicKey is the binary transferable public key of a contact, nil where it is not known. It is what to encrypt to: the subkeys in
// it are the contact's if their binding signatures hold, which the gate does not look at.
func (k *Keys) PublicKey(of bot.Fingerprint) []byte { return k.whole[of] }

func (k *Keys) addSelf(raw []byte, tokens []string) error {
	packets := packet.NewReader(bytes.NewReader(raw))
	var primary bot.Fingerprint
	for {
		p, err := packets.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: want a binary transferable secret key: %w", ErrNoKey, err)
		}
		key, ok := p.(*packet.PrivateKey)
		if !ok {
			continue
		}
		if key.Encrypted || key.Dummy() {
			return fmt.Errorf("%w: it is protected by a passphrase or on a card; export it without", ErrNoKey)
		}
		if !key.IsSubkey {
			primary = fingerprint(&key.PublicKey)
			k.self[primary] = true
			k.known[primary] = &key.PublicKey
		}
		if key.PubKeyAlgo.CanEncrypt() {
			k.secret = append(k.secret, key)
		}
	}
	for _, token := range tokens {
		k.secrets = append(k.secrets, secret{passphrase: passphrase(primary, token), byInvite: true})
	}
	return nil
}

// primaryKey parses the first packet of a transferable public key.
func primaryKey(raw []byte) (*packet.PublicKey, error) {
	p, err := packet.Read(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	key, ok := p.(*packet.PublicKey)
	if !ok || key.IsSubkey {
		return nil, errors.New("want a transferable public key")
	}
	return key, nil
}

func fingerprint(key *packet.PublicKey) bot.Fingerprint {
	return bot.Fingerprint(strings.ToUpper(hex.EncodeToString(key.Fingerprint)))
}

func set(values []string) map[string]bool {
	m := make(map[string]bool, len(values))
	for _, v := range values {
		if v != "" {
			m[v] = true
		}
	}
	return m
}
