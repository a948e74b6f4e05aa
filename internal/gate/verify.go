package gate

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // registers what hashes allows
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"strings"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"mayfly/internal/bot"
)

// errUnknownSigner is wrapped when the signature is by a key that neither came along nor is known.
var errUnknownSigner = errors.New("the signer is unknown")

// promise is what is known of the signature before the text: from a one-pass packet, or the signature itself (the old form).
type promise struct {
	onePass   bool
	sigType   packet.SignatureType
	hash      crypto.Hash
	salt      []byte
	signature *packet.Signature
}

func (s promise) signed() bool { return s.onePass || s.signature != nil }

func (s promise) matches() bool {
	return s.signature.SigType == s.sigType && s.signature.Hash == s.hash && bytes.Equal(s.signature.Salt(), s.salt)
}

// readPromise reads what stands before the literal. Of two signatures core would look at one: which one must not matter.
func readPromise(br *bufio.Reader) (promise, error) {
	f, err := nextFrame(br)
	if err != nil {
		return promise{}, orMalformed(err)
	}
	switch f.tag {
	case tagLiteral:
		return promise{}, nil
	case tagSignature:
		sig, err := readSignature(br)
		if err != nil {
			return promise{}, err
		}
		return promise{sigType: sig.SigType, hash: sig.Hash, salt: sig.Salt(), signature: sig}, nil
	case tagOnePass:
		return readOnePass(br, f)
	}
	return promise{}, refuse(Malformed, "packet type %d where one signed text should be", f.tag)
}

func readOnePass(br *bufio.Reader, f frame) (promise, error) {
	raw, err := readRaw(br, f, maxSignaturePacket)
	if err != nil {
		return promise{}, orMalformed(err)
	}
	p, err := packet.Read(bytes.NewReader(raw))
	ops, ok := p.(*packet.OnePassSignature)
	if err != nil || !ok {
		return promise{}, refuse(BadSignature, "one-pass signature: %v", err)
	}
	return promise{onePass: true, sigType: ops.SigType, hash: ops.Hash, salt: ops.Salt}, nil
}

func readSignature(br *bufio.Reader) (*packet.Signature, error) {
	f, err := nextFrame(br)
	if err != nil || f.tag != tagSignature {
		return nil, refuse(Malformed, "the announced signature is missing")
	}
	raw, err := readRaw(br, f, maxSignaturePacket)
	if err != nil {
		return nil, orMalformed(err)
	}
	p, err := packet.Read(bytes.NewReader(raw))
	sig, ok := p.(*packet.Signature)
	if err != nil || !ok {
		return nil, refuse(BadSignature, "signature: %v", err)
	}
	return sig, nil
}

// hashes gives the hash that the signature is made of, and the one to write the text to.
func (s promise) hashes() (direct, text hash.Hash, err error) {
	switch s.hash {
	case crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512:
	default:
		return nil, nil, refuse(BadSignature, "the hash %v is too weak or unknown", s.hash)
	}
	direct = s.hash.New()
	direct.Write(s.salt)
	switch s.sigType {
	case packet.SigTypeBinary:
		return direct, direct, nil
	case packet.SigTypeText:
		return direct, openpgp.NewCanonicalTextHash(direct), nil
	}
	return nil, nil, refuse(BadSignature, "signature type %#x is not one of a text", int(s.sigType))
}

// signer is a verified one.
type signer struct {
	fingerprint  bot.Fingerprint
	transferable []byte // the key that came with the mail, or nil
}

// verify finds the signer's key and checks the signature and whom it is meant for.
func (o *opened) verify(outer header, keys *Keys) (signer, error) {
	key, transferable := o.signerKey(outer, keys)
	if key == nil {
		return signer{}, errors.Join(errUnknownSigner, refuse(UnknownSigner, "signed by %s", printable(o.issuer(), 64)))
	}
	if err := tooWeak(key); err != nil {
		return signer{}, err
	}
	if o.signature.Version != 4 && o.signature.Version != 6 {
		return signer{}, refuse(BadSignature, "signature version %d", o.signature.Version)
	}
	o.trailed = true
	if err := key.VerifySignature(o.digest, o.signature); err != nil {
		return signer{}, refuse(BadSignature, "%v", err)
	}
	if !o.meantFor(keys) {
		return signer{}, refuse(OtherRecipients, "the signature names other recipients")
	}
	return signer{fingerprint(key), transferable}, nil
}

func (o *opened) issuer() string {
	return strings.ToUpper(hex.EncodeToString(o.signature.IssuerFingerprint))
}

// signerKey is the key of the Autocrypt header if it may have made the signature, else a known one.
func (o *opened) signerKey(outer header, keys *Keys) (*packet.PublicKey, []byte) {
	if key, raw := autocryptKey(o.header, outer); key != nil && o.mayBeBy(key) {
		return key, raw
	}
	return keys.known[bot.Fingerprint(o.issuer())], nil
}

func (o *opened) mayBeBy(key *packet.PublicKey) bool {
	if len(o.signature.IssuerFingerprint) > 0 {
		return bytes.Equal(o.signature.IssuerFingerprint, key.Fingerprint)
	}
	return o.signature.IssuerKeyId != nil && *o.signature.IssuerKeyId == key.KeyId
}

func tooWeak(key *packet.PublicKey) error {
	switch key.PubKeyAlgo {
	case packet.PubKeyAlgoDSA:
		return refuse(BadSignature, "DSA keys are not accepted")
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if rsaKey, ok := key.PublicKey.(*rsa.PublicKey); !ok || rsaKey.N.BitLen() < 2047 {
			return refuse(BadSignature, "RSA keys need 2048 bits")
		}
	}
	return nil
}

// meantFor is the rule of the Intended Recipient Fingerprint (RFC 9580, section 5.2.3.36).
func (o *opened) meantFor(keys *Keys) bool {
	for _, r := range o.signature.IntendedRecipients {
		if keys.self[bot.Fingerprint(strings.ToUpper(hex.EncodeToString(r.Fingerprint)))] {
			return true
		}
	}
	return len(o.signature.IntendedRecipients) == 0
}

// contentID identifies a signed text by its hash, which with the signature's trailer holds the signature's date.
func (o *opened) contentID() string {
	if o.digest == nil || !o.trailed {
		return ""
	}
	sum := hex.EncodeToString(o.digest.Sum(nil))
	return "sha256-" + sum[:40]
}

const maxAutocryptKey = 64 << 10 // bytes, binary

// autocryptKey is the key of the last valid Autocrypt header (Autocrypt 1.1) for the address of the outer From.
func autocryptKey(inner, outer header) (*packet.PublicKey, []byte) {
	values := inner.all("autocrypt")
	if len(values) == 0 {
		values = outer.all("autocrypt")
	}
	from := addressOf(outer.get("from"))
	for i := len(values) - 1; i >= 0; i-- {
		if key, raw := parseAutocrypt(values[i], from); key != nil {
			return key, raw
		}
	}
	return nil, nil
}

func parseAutocrypt(value, from string) (*packet.PublicKey, []byte) {
	var addr, keydata string
	for _, attribute := range strings.Split(value, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(attribute), "=")
		switch name = strings.TrimSpace(name); {
		case name == "addr":
			addr = strings.TrimSpace(value)
		case name == "keydata":
			keydata = strings.Join(strings.Fields(value), "")
		case name == "prefer-encrypt", name == "", strings.HasPrefix(name, "_"):
		default:
			return nil, nil // an unknown critical attribute makes the header invalid
		}
	}
	if addr == "" || !strings.EqualFold(addr, from) || base64.StdEncoding.DecodedLen(len(keydata)) > maxAutocryptKey {
		return nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(keydata)
	if err != nil {
		return nil, nil
	}
	key, err := primaryKey(raw)
	if err != nil {
		return nil, nil
	}
	return key, raw
}
