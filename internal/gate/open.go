package gate

import (
	"bufio"
	"bytes"
	"errors"
	"hash"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// errNoSecret is wrapped when a symmetric mail opens with no secret that the account knows.
var errNoSecret = errors.New("no secret opens it")

// opened is a decrypted mail whose integrity protection holds. Its plaintext has been hashed and dropped, but for the header.
type opened struct {
	header    header
	content   content
	signature *packet.Signature // nil if nobody signed; not verified yet
	digest    hash.Hash         // of the signed plaintext, before the signature's trailer
	by        secret            // that opened it, where it is symmetric
	trailed   bool              // the digest has taken the signature's trailer
}

// open decrypts a message, streaming.
func open(payload io.Reader, keys *Keys, bounds Bounds) (*opened, error) {
	s, err := readSealed(payload, bounds)
	if err != nil {
		return nil, err
	}
	plain, by, err := s.unseal(keys)
	if err != nil {
		return nil, err
	}
	o, err := readMessage(plain, bounds)
	// The integrity protection is checked at the end: what was read before is void if it fails.
	if broken := finish(plain); broken != nil {
		return nil, broken
	}
	if err != nil {
		return nil, err
	}
	o.by = by
	return o, s.readToEnd()
}

func finish(plain io.ReadCloser) error {
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return refuse(Tampered, "%v", err)
	}
	if err := plain.Close(); err != nil {
		return refuse(Tampered, "%v", err)
	}
	return nil
}

// unseal finds the session key. A lone SKESK is a symmetric mail; else the PKESKs are tried, as in core.
func (s *sealed) unseal(keys *Keys) (plain io.ReadCloser, by secret, err error) {
	f, err := peekFrame(bufio.NewReader(bytes.NewReader(s.keys[0])))
	if err != nil {
		return nil, by, err
	}
	if f.tag == tagSKESK && len(s.keys) == 1 {
		return s.unsealSymmetric(f, keys)
	}
	for _, raw := range s.keys {
		p, err := packet.Read(bytes.NewReader(raw))
		esk, ok := p.(*packet.EncryptedKey)
		if err != nil || !ok || !s.sameGeneration(esk.Version == 6) {
			continue
		}
		for _, key := range keys.secret {
			if esk.Decrypt(key, nil) == nil {
				plain, err := s.decrypt(esk.CipherFunc, esk.Key)
				return plain, by, err
			}
		}
	}
	return nil, by, refuse(NotForUs, "none of its %d session key packets is for this bot", len(s.keys))
}

func (s *sealed) decrypt(cipher packet.CipherFunction, key []byte) (io.ReadCloser, error) {
	plain, err := s.data.Decrypt(cipher, key)
	if err != nil {
		return nil, refuse(Tampered, "%v", err)
	}
	return plain, nil
}

// sameGeneration holds version 6 key packets to SEIPD version 2, and older ones to version 1 (RFC 9580, section 10.3.2.1).
func (s *sealed) sameGeneration(v6 bool) bool { return v6 == (s.data.Version == 2) }

// s2kSalted is the S2K specifier (RFC 9580, section 3.7.1.2).
const s2kSalted = 1

func (s *sealed) unsealSymmetric(f frame, keys *Keys) (io.ReadCloser, secret, error) {
	// Version 6: version, count, cipher, AEAD mode, length of the S2K, S2K specifier. Older versions cannot tell a wrong
	// secret from a right one, and costlier S2Ks would let a stranger spend our time on every secret.
	body := s.keys[0][f.header:]
	if len(body) < 6 || body[0] != 6 || body[5] != s2kSalted || !s.sameGeneration(true) {
		return nil, secret{}, refuse(NotForUs, "symmetric, but not as Secure-Join and channels make it (SKESK 6, salted)")
	}
	p, err := packet.Read(bytes.NewReader(s.keys[0]))
	esk, ok := p.(*packet.SymmetricKeyEncrypted)
	if err != nil || !ok {
		return nil, secret{}, refuse(NotOpenPGP, "session key packet: %v", err)
	}
	for _, by := range keys.secrets {
		if key, cipher, err := esk.Decrypt(by.passphrase); err == nil {
			plain, err := s.decrypt(cipher, key)
			return plain, by, err
		}
	}
	return nil, secret{}, errors.Join(errNoSecret, refuse(NotForUs, "symmetric, and no secret of this bot opens it"))
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
	o.content.parts = 1
	if err := o.content.walk(o.header.mime(), text, bounds, 0); err != nil {
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
	if id := bareID(o.header.get("message-id")); id != "" {
		return id
	}
	return o.contentID()
}
