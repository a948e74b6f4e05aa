package gate

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// The pieces that mails are made of in these tests, packet by packet, so that each rule can be broken alone.

const stranger = "stranger1@chat.test"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newEntity(t testing.TB, config *packet.Config) *openpgp.Entity {
	t.Helper()
	if config == nil {
		config = &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA}
	}
	e, err := openpgp.NewEntity("", "", stranger, config)
	must(t, err)
	return e
}

// text is a mail before encryption; extra are header lines.
func text(extra ...string) string {
	lines := append([]string{"From: <" + stranger + ">", "Message-ID: <id@chat.test>"}, extra...)
	return strings.Join(lines, "\r\n") + "\r\n\r\nhello\r\n"
}

func autocrypt(t testing.TB, e *openpgp.Entity, addr string) string {
	return "Autocrypt: addr=" + addr + "; keydata=" + base64.StdEncoding.EncodeToString(public(t, e))
}

// nopWriteCloser lets the packet serializers close what they write to.
type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }

func literal(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packet.SerializeLiteral(nopWriteCloser{&b}, true, "", 0)
	must(t, err)
	_, err = io.WriteString(w, text)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// signing says how a text is signed; the zero value is how core does it.
type signing struct {
	key        *packet.PrivateKey
	hash       crypto.Hash
	text       bool              // a canonical text signature
	created    time.Time         // now
	lifetime   uint32            // seconds
	recipients []*openpgp.Entity // intended
	keyIDOnly  bool              // no issuer fingerprint
}

func (s signing) sign(t testing.TB, text string) (ops, sig []byte) {
	t.Helper()
	if s.hash == 0 {
		s.hash = crypto.SHA256
	}
	if s.created.IsZero() {
		s.created = time.Now()
	}
	p := &packet.Signature{
		Version: s.key.Version, PubKeyAlgo: s.key.PubKeyAlgo, Hash: s.hash, CreationTime: s.created, IssuerKeyId: &s.key.KeyId,
	}
	if s.text {
		p.SigType = packet.SigTypeText
	}
	if !s.keyIDOnly {
		p.IssuerFingerprint = s.key.Fingerprint
	}
	if s.lifetime != 0 {
		p.SigLifetimeSecs = &s.lifetime
	}
	for _, r := range s.recipients {
		p.IntendedRecipients = append(p.IntendedRecipients, &packet.Recipient{KeyVersion: r.PrimaryKey.Version, Fingerprint: r.PrimaryKey.Fingerprint})
	}
	h, err := p.PrepareSign(nil)
	must(t, err)
	wrapped := h
	if s.text {
		wrapped = openpgp.NewCanonicalTextHash(h)
	}
	_, err = io.WriteString(wrapped, text)
	must(t, err)
	must(t, p.Sign(h, s.key, nil))
	one := &packet.OnePassSignature{
		Version: 3, SigType: p.SigType, Hash: s.hash, PubKeyAlgo: s.key.PubKeyAlgo, KeyId: s.key.KeyId, IsLast: true,
	}
	if s.key.Version == 6 {
		one.Version, one.Salt, one.KeyFingerprint = 6, p.Salt(), s.key.Fingerprint
	}
	var o, b bytes.Buffer
	must(t, one.Serialize(&o))
	must(t, p.Serialize(&b))
	return o.Bytes(), b.Bytes()
}

// signed is the packets of a signed text.
func signed(t testing.TB, s signing, text string) []byte {
	ops, sig := s.sign(t, text)
	return bytes.Join([][]byte{ops, literal(t, text), sig}, nil)
}

func compressed(t testing.TB, packets []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packet.SerializeCompressed(nopWriteCloser{&b}, packet.CompressionZLIB, nil)
	must(t, err)
	_, err = w.Write(packets)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// sealing says how packets are encrypted; the zero value is how core does it.
type sealing struct {
	to         []*openpgp.Entity
	passphrase string
	s2k        s2k.Mode // salted
	copies     int      // of the session key packets; 1
	v1         bool     // SEIPD version 1
	oldKeys    bool     // PKESK version 3 even with SEIPD version 2
}

// seal gives the binary message.
func (s sealing) seal(t testing.TB, packets []byte) []byte {
	t.Helper()
	key := bytes.Repeat([]byte{7}, 16)
	var b bytes.Buffer
	for range max(s.copies, 1) {
		for _, e := range s.to {
			sub, ok := e.EncryptionKey(time.Time{}, nil)
			if !ok {
				t.Fatal("the recipient has no encryption key")
			}
			must(t, packet.SerializeEncryptedKeyAEADwithHiddenOption(&b, sub.PublicKey, packet.CipherAES128, !s.v1 && !s.oldKeys, key, true, nil))
		}
		if s.passphrase != "" {
			config := &packet.Config{AEADConfig: &packet.AEADConfig{}, S2KConfig: &s2k.Config{S2KMode: s.s2k, PassphraseIsHighEntropy: true}}
			must(t, packet.SerializeSymmetricKeyEncryptedAEADReuseKey(&b, key, []byte(s.passphrase), !s.v1, config))
		}
	}
	suite := packet.CipherSuite{Cipher: packet.CipherAES128, Mode: packet.AEADModeOCB}
	w, err := packet.SerializeSymmetricallyEncrypted(&b, packet.CipherAES128, !s.v1, suite, key, &packet.Config{AEADConfig: &packet.AEADConfig{}})
	must(t, err)
	_, err = w.Write(packets)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

func armored(t testing.TB, message []byte) string {
	t.Helper()
	var b strings.Builder
	w, err := armor.Encode(&b, "PGP MESSAGE", nil)
	must(t, err)
	_, err = w.Write(message)
	must(t, err)
	must(t, w.Close())
	return b.String()
}

// envelope is the PGP/MIME mail around a message, from the stranger; extra are outer header lines.
func envelope(t testing.TB, message []byte, extra ...string) []byte {
	t.Helper()
	var more string
	for _, line := range extra {
		more += line + "\r\n"
	}
	return fmt.Appendf(nil, "From: <%s>\r\nMessage-ID: <outer@chat.test>\r\n%s"+
		"Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=\"b\"\r\n\r\n"+
		"--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"+
		"--b\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n--b--\r\n", stranger, more, armored(t, message))
}

func base64Lines(s string) string {
	encoded := base64.StdEncoding.EncodeToString([]byte(s))
	var b strings.Builder
	for len(encoded) > 76 {
		b.WriteString(encoded[:76] + "\r\n")
		encoded = encoded[76:]
	}
	return b.String() + encoded
}
