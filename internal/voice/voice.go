// Package voice composes what the host itself says in a bot's name: answers to /stop, /start and /about, notices about limits, the sentence
// about a bot that failed, what its author is told. It is pure but for the time and chance that signing and encrypting need: no I/O, no state.
//
// A mail of the voice is what core makes of an ordinary text of the bot in the chat with one contact:
//
//	From, To "hidden-recipients", Subject [...], Date, Message-ID, Chat-Version          the outer header
//	multipart/encrypted (RFC 3156): Version: 1, and one armored message with CRC24
//	  PKESK without the recipient's key ID, SEIPD 2 with AES-128 and OCB                 SEIPD 1, if the key knows no other
//	    one-pass signature, literal, signature                                           by the bot's primary key, for the recipient
//	      From with the name, To, Subject, Date, Message-ID, In-Reply-To, References,    the protected header (RFC 9788)
//	      Auto-Submitted: auto-generated, Chat-Version, Autocrypt with the bot's key, HP-Outer
//	      text/plain, UTF-8, quoted-printable
//
// So the receiving app shows it with a padlock, in the chat with the bot, as the bot's. It asks for no receipt.
//
// It is made here and not by core so that it needs nothing to be started: the host answers also while a bot is paused, over its
// limits, or broken. Core does not learn of what the voice says; it does not stand in the bot's chat, and no bot can quote it.
//
// As in core, a key's dates do not count: keys of chat users are made once and pinned by their fingerprint.
package voice

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
)

// MaxText is the most bytes of a text.
const MaxText = 16 << 10

// ErrKey is wrapped when one of the two keys cannot be used.
var ErrKey = errors.New("a key cannot be used")

// Message is one text to one contact.
type Message struct {
	From    bot.Address // the bot's
	Name    string      // the bot's display name; may be empty
	SelfKey []byte      // the bot's binary transferable secret key, without a passphrase
	To      bot.Address
	ToKey   []byte // the contact's binary transferable public key

	// Text is UTF-8 with LF line ends. Core reads lines that begin with ">" at its start as a quote, and what follows a line "-- " as a
	// footer.
	Text      string
	Date      time.Time
	InReplyTo string // Message-ID of the mail that is answered, without brackets; may be empty
}

// Compose makes the mail, with CRLF line ends, and its Message-ID, without brackets.
func Compose(m Message) (mail []byte, messageID string, err error) {
	if m.Text == "" || len(m.Text) > MaxText {
		return nil, "", fmt.Errorf("voice: a text of %d bytes: want 1 to %d", len(m.Text), MaxText)
	}
	self, err := readKey(m.SelfKey)
	if err != nil {
		return nil, "", fmt.Errorf("voice: the key of %s: %w", m.From, err)
	}
	if self.PrivateKey == nil || self.PrivateKey.Encrypted || self.PrivateKey.Dummy() {
		return nil, "", fmt.Errorf("voice: the key of %s: %w: want a secret key without a passphrase", m.From, ErrKey)
	}
	to, err := readKey(m.ToKey)
	if err != nil {
		return nil, "", fmt.Errorf("voice: the key of %s: %w", m.To, err)
	}
	messageID = newMessageID()
	outer := outerHeader(m, messageID)
	inner, err := innerMail(m, self, messageID, outer)
	if err != nil {
		return nil, "", fmt.Errorf("voice: %w", err)
	}
	sealed, err := seal(inner, self, to, m.Date)
	if err != nil {
		return nil, "", fmt.Errorf("voice: to %s: %w", m.To, err)
	}
	mail, err = envelope(outer, sealed)
	return mail, messageID, err
}

func readKey(raw []byte) (*openpgp.Entity, error) {
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return e, nil
}

// newMessageID is random, and says no more than core's do.
func newMessageID() string { return unguessable() + "@localhost" }

func unguessable() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// seal encrypts a mail, signed, as core does: for one recipient whose key ID is not told, and who is named in the signature.
func seal(mail []byte, self, to *openpgp.Entity, at time.Time) ([]byte, error) {
	config := &packet.Config{AEADConfig: &packet.AEADConfig{DefaultMode: packet.AEADModeOCB}, Time: func() time.Time { return at }}
	key, err := to.EncryptionKeyWithError(time.Time{}, config)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	const cipher = packet.CipherAES128
	session := make([]byte, cipher.KeySize())
	rand.Read(session)
	v2 := key.PrimarySelfSignature.SEIPDv2
	var b bytes.Buffer
	if err := packet.SerializeEncryptedKeyAEADwithHiddenOption(&b, key.PublicKey, cipher, v2, session, true, config); err != nil {
		return nil, err
	}
	suite := packet.CipherSuite{Cipher: cipher, Mode: packet.AEADModeOCB}
	w, err := packet.SerializeSymmetricallyEncrypted(&b, cipher, v2, suite, session, config)
	if err != nil {
		return nil, err
	}
	if err := sign(w, mail, self.PrivateKey, to.PrimaryKey, config); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// sign writes a mail as a literal between a one-pass signature and the signature.
func sign(w io.Writer, mail []byte, key *packet.PrivateKey, to *packet.PublicKey, config *packet.Config) error {
	s := &packet.Signature{
		Version: key.Version, SigType: packet.SigTypeBinary, PubKeyAlgo: key.PubKeyAlgo, Hash: hashFor(key), CreationTime: config.Now(),
		IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint,
		IntendedRecipients: []*packet.Recipient{{KeyVersion: to.Version, Fingerprint: to.Fingerprint}},
	}
	h, err := s.PrepareSign(config)
	if err != nil {
		return err
	}
	h.Write(mail)
	if err := s.Sign(h, key, config); err != nil {
		return err
	}
	first := &packet.OnePassSignature{
		Version: 3, SigType: s.SigType, Hash: s.Hash, PubKeyAlgo: s.PubKeyAlgo, KeyId: key.KeyId, IsLast: true,
	}
	if key.Version == 6 {
		first.Version, first.Salt, first.KeyFingerprint = 6, s.Salt(), key.Fingerprint
	}
	if err := first.Serialize(w); err != nil {
		return err
	}
	literal, err := packet.SerializeLiteral(unclosed{w}, true, "", 0)
	if err != nil {
		return err
	}
	if _, err := literal.Write(mail); err != nil {
		return err
	}
	if err := literal.Close(); err != nil {
		return err
	}
	return s.Serialize(w)
}

// hashFor is SHA-256, but for keys that ask for as strong a hash as they are.
func hashFor(key *packet.PrivateKey) crypto.Hash {
	if bits, err := key.BitLength(); err == nil && key.PubKeyAlgo != packet.PubKeyAlgoRSA && bits > 256 || key.PubKeyAlgo == packet.PubKeyAlgoEd448 {
		return crypto.SHA512
	}
	return crypto.SHA256
}

// unclosed keeps the library from closing what it writes to.
type unclosed struct{ io.Writer }

func (unclosed) Close() error { return nil }
