package gate

import (
	"bufio"
	"bytes"
	"errors"
	"hash"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// errNoSecret is wrapped when a symmetric mail opens with no secret that the account knows.
var errNoSecret = errors.New("no secret opens it")

// opened is a decrypted mail whose integrity protection holds. Its plaintext has been hashed and dropped, but for the header.
type opened struct {
	header    header
	signature *packet.Signature // nil if nobody signed; not verified yet
	digest    hash.Hash         // of the signed plaintext, before the signature's trailer
	byInvite  bool              // a Secure-Join secret opened it
	trailed   bool              // the digest has taken the signature's trailer
}

// open decrypts a message, streaming.
func open(payload io.Reader, keys *Keys, bounds Bounds) (*opened, error) {
	br := bufio.NewReader(payload)
	raw, sealed, err := readSealed(br, bounds)
	if err != nil {
		return nil, err
	}
	plain, byInvite, err := unseal(raw, sealed, keys)
	if err != nil {
		return nil, err
	}
	o, err := readMessage(plain, bounds)
	if broken := finish(plain, br); broken != nil {
		return nil, broken
	}
	if err != nil {
		return nil, err
	}
	o.byInvite = byInvite
	return o, nil
}

// finish reads the ciphertext to its end, where the integrity protection is checked; what was read before is void if it fails.
func finish(plain io.ReadCloser, br *bufio.Reader) error {
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return refuse(Tampered, "%v", err)
	}
	if err := plain.Close(); err != nil {
		return refuse(Tampered, "%v", err)
	}
	if _, err := br.Peek(1); err != io.EOF {
		return refuse(NotOpenPGP, "something follows the encrypted data")
	}
	return nil
}

// unseal finds the session key. A lone SKESK is a symmetric mail; else the PKESKs are tried, as in core.
func unseal(raw [][]byte, sealed *packet.SymmetricallyEncrypted, keys *Keys) (io.ReadCloser, bool, error) {
	if f, err := peekFrame(bufio.NewReader(bytes.NewReader(raw[0]))); err == nil && f.tag == tagSKESK && len(raw) == 1 {
		return unsealSymmetric(raw[0][f.header:], raw[0], sealed, keys)
	}
	for _, r := range raw {
		p, err := packet.Read(bytes.NewReader(r))
		esk, ok := p.(*packet.EncryptedKey)
		if err != nil || !ok || !sameGeneration(esk.Version == 6, sealed) {
			continue
		}
		for _, key := range keys.secret {
			if esk.Decrypt(key, nil) != nil {
				continue
			}
			plain, err := sealed.Decrypt(esk.CipherFunc, esk.Key)
			if err != nil {
				return nil, false, refuse(Tampered, "%v", err)
			}
			return plain, false, nil
		}
	}
	return nil, false, refuse(NotForUs, "none of its %d session key packets is for this bot", len(raw))
}

// sameGeneration holds version 6 key packets to SEIPD version 2, and older ones to version 1 (RFC 9580, section 10.3.2.1).
func sameGeneration(v6 bool, sealed *packet.SymmetricallyEncrypted) bool {
	return v6 == (sealed.Version == 2)
}

// S2K specifiers (RFC 9580, section 3.7.1).
const s2kSalted = 1

func unsealSymmetric(body, raw []byte, sealed *packet.SymmetricallyEncrypted, keys *Keys) (io.ReadCloser, bool, error) {
	// Version 6: version, count, cipher, AEAD mode, length of the S2K, S2K specifier. Older versions cannot tell a wrong
	// secret from a right one, and costlier S2Ks would let a stranger spend our time on every secret.
	if len(body) < 6 || body[0] != 6 || body[5] != s2kSalted || !sameGeneration(true, sealed) {
		return nil, false, refuse(NotForUs, "symmetric, but not as Secure-Join and channels make it (SKESK 6, salted)")
	}
	p, err := packet.Read(bytes.NewReader(raw))
	esk, ok := p.(*packet.SymmetricKeyEncrypted)
	if err != nil || !ok {
		return nil, false, refuse(NotOpenPGP, "session key packet: %v", err)
	}
	for _, s := range keys.secrets {
		key, cipher, err := esk.Decrypt(s.passphrase)
		if err != nil {
			continue
		}
		plain, err := sealed.Decrypt(cipher, key)
		if err != nil {
			return nil, false, refuse(Tampered, "%v", err)
		}
		return plain, s.byInvite, nil
	}
	return nil, false, errors.Join(errNoSecret, refuse(NotForUs, "symmetric, and no secret of this bot opens it"))
}

// readMessage reads what was encrypted: [compressed] [one-pass signature] literal [signature].
func readMessage(plain io.Reader, bounds Bounds) (*opened, error) {
	br := bufio.NewReader(plain)
	f, err := nextFrame(br)
	if err != nil {
		return nil, orMalformed(err)
	}
	if f.tag != tagCompressed {
		return readSigned(br, bounds)
	}
	if b, err := br.Peek(f.header + 1); err != nil || b[f.header] > 2 {
		return nil, refuse(Malformed, "compressed, but not as ZIP or ZLIB")
	}
	p, err := packet.Read(br)
	compressed, ok := p.(*packet.Compressed)
	if err != nil || !ok {
		return nil, refuse(Malformed, "compressed data: %v", err)
	}
	// Besides the literal there may be a signature, and no more: nothing else may be hidden in a bomb.
	limited := &boundedReader{compressed.Body, bounds.Plain + 2*maxSignaturePacket}
	o, err := readSigned(bufio.NewReader(limited), bounds)
	if err != nil {
		return nil, err
	}
	return o, atEnd(br)
}

func readSigned(br *bufio.Reader, bounds Bounds) (*opened, error) {
	o := &opened{}
	s, err := readPromise(br)
	if err != nil {
		return nil, err
	}
	if err := o.readLiteral(br, s, bounds); err != nil {
		return nil, orMalformed(err)
	}
	if s.onePass {
		if s.signature, err = readSignature(br); err != nil {
			return nil, err
		}
	}
	if s.signature != nil && !s.matches() {
		return nil, refuse(BadSignature, "the signature is not the one that was announced")
	}
	o.signature = s.signature
	return o, atEnd(br)
}

// readLiteral hashes the literal packet for the promised signature and keeps its header block.
func (o *opened) readLiteral(br *bufio.Reader, s promise, bounds Bounds) error {
	f, err := nextFrame(br)
	if err != nil {
		return err
	}
	if f.tag != tagLiteral {
		return refuse(Malformed, "packet type %d where one signed text should be", f.tag)
	}
	p, err := packet.Read(br)
	literal, ok := p.(*packet.LiteralData)
	if err != nil || !ok {
		return refuse(Malformed, "literal data: %v", err)
	}
	var body io.Reader = &boundedReader{literal.Body, bounds.Plain}
	if s.signed() {
		var wrapped hash.Hash
		if o.digest, wrapped, err = s.hashes(); err != nil {
			return err
		}
		body = io.TeeReader(body, wrapped)
	}
	text := bufio.NewReaderSize(body, maxLine)
	if o.header, _, err = readHeader(text, bounds.Header); err != nil {
		return err
	}
	parts := 1
	if err := walk(o.header.get("content-type"), text, bounds, 0, &parts); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, text)
	return err
}

// nextFrame is peekFrame that skips marker and padding packets.
func nextFrame(br *bufio.Reader) (frame, error) {
	for {
		f, err := peekFrame(br)
		if err != nil || f.tag != tagMarker && f.tag != tagPadding {
			return f, err
		}
		if f.length < 0 {
			return f, refuse(Malformed, "padding of indefinite length")
		}
		if _, err := io.CopyN(io.Discard, br, int64(f.header)+f.length); err != nil {
			return f, err
		}
	}
}

func atEnd(br *bufio.Reader) error {
	f, err := nextFrame(br)
	switch {
	case err == io.EOF:
		return nil
	case err != nil:
		return orMalformed(err)
	case f.tag == tagSignature:
		return refuse(Malformed, "more than one signature")
	}
	return refuse(Malformed, "packet type %d after the message", f.tag)
}

func orMalformed(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		if r.reason == NotOpenPGP {
			return refuse(Malformed, "%s", r.detail)
		}
		return err
	}
	return refuse(Malformed, "%v", err)
}

// boundedReader fails where io.LimitReader would end.
type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, refuse(TooLarge, "the plaintext is larger than the bounds allow")
	}
	return n, err
}

// messageID is the protected Message-ID. Without a usable one it is made of what the signature covers, so that a replay of
// the mail is seen all the same.
func (o *opened) messageID() string {
	id := strings.TrimSpace(o.header.get("message-id"))
	id = strings.TrimSuffix(strings.TrimPrefix(id, "<"), ">")
	if id != "" && printable(id, 250) == id {
		return id
	}
	return o.contentID()
}
