package gate

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// ErrNotEncrypted is wrapped by LooksEncrypted.
var ErrNotEncrypted = errors.New("not an OpenPGP-encrypted mail")

// LooksEncrypted checks the structure alone, without keys, as a chatmail relay's filter does: multipart/encrypted with an
// application/pgp-encrypted part "Version: 1" and an application/octet-stream part that holds one armored PGP message of
// session key packets and one SEIPD packet, and nothing else. The error wraps ErrNotEncrypted and says what is wrong.
func LooksEncrypted(mail []byte) error {
	bounds := DefaultBounds()
	outer, err := parseEntity(mail, bounds)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotEncrypted, err)
	}
	payload, err := encryptedPart(outer, bounds)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotEncrypted, err)
	}
	sealed, err := readSealed(payload, bounds)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotEncrypted, err)
	}
	if err := sealed.readToEnd(); err != nil {
		return fmt.Errorf("%w: %w", ErrNotEncrypted, err)
	}
	return nil
}

// IsHandshake reports whether the mail is the cleartext Secure-Join request of old clients, in the one form that a chatmail
// relay lets pass: the header Secure-Join is vc-request or vg-request, and the only part is a text that says the same.
func IsHandshake(mail []byte) bool {
	outer, err := parseEntity(mail, DefaultBounds())
	return err == nil && handshakeStep(outer, DefaultBounds()) != ""
}

func handshakeStep(outer *entity, bounds Bounds) string {
	step := outer.header.get("secure-join")
	if step != "vc-request" && step != "vg-request" {
		return ""
	}
	text := outer
	if outer.mediaType == "multipart/mixed" {
		parts, err := outer.parts(bounds)
		if err != nil || len(parts) != 1 {
			return ""
		}
		text = parts[0]
	}
	body, err := text.decoded()
	if err != nil || text.mediaType != "text/plain" || !bytes.EqualFold(bytes.TrimSpace(body), []byte("Secure-Join: "+step)) {
		return ""
	}
	return step
}

// encryptedPart gives the binary packets of a PGP/MIME mail (RFC 3156, section 4).
func encryptedPart(outer *entity, bounds Bounds) (io.Reader, error) {
	if outer.mediaType != "multipart/encrypted" {
		return nil, refuse(Cleartext, "the content type is %s", outer.mediaType)
	}
	parts, err := outer.parts(bounds)
	if err != nil {
		return nil, err
	}
	if len(parts) != 2 || parts[0].mediaType != "application/pgp-encrypted" || parts[1].mediaType != "application/octet-stream" {
		return nil, refuse(NotOpenPGP, "want the parts application/pgp-encrypted and application/octet-stream")
	}
	if !bytes.Equal(bytes.TrimSpace(parts[0].body), []byte("Version: 1")) {
		return nil, refuse(NotOpenPGP, "the first part does not say Version: 1")
	}
	armored, err := parts[1].decoded()
	if err != nil {
		return nil, err
	}
	return dearmor(armored)
}

// dearmor streams the data of the one armored message in b (RFC 9580, section 6.2). Nothing but white space may stand around
// it. Armor headers are skipped and so is the checksum, as RFC 9580 asks.
func dearmor(b []byte) (io.Reader, error) {
	body, begins := bytes.CutPrefix(bytes.TrimSpace(b), []byte("-----BEGIN PGP MESSAGE-----"))
	body, ends := bytes.CutSuffix(body, []byte("-----END PGP MESSAGE-----"))
	if !begins || !ends {
		return nil, refuse(NotOpenPGP, "no armored PGP message")
	}
	_, body, _ = bytes.Cut(body, []byte("\n"))
	for range 16 {
		line, rest, ok := bytes.Cut(body, []byte("\n"))
		if !ok || len(line) > 1000 {
			break
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return base64Data(rest)
		}
		if !bytes.Contains(line, []byte(": ")) {
			break
		}
		body = rest
	}
	return nil, refuse(NotOpenPGP, "the armor's headers do not end in an empty line")
}

func base64Data(b []byte) (io.Reader, error) {
	b = bytes.TrimRight(b, " \t\r\n")
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 && len(b)-i == 6 && b[i+1] == '=' {
		b = bytes.TrimRight(b[:i], " \t\r\n")
	}
	// The decoder itself does not see this where one of its chunks ends in padding.
	if i := bytes.IndexByte(b, '='); i >= 0 && i < len(b)-2 {
		return nil, refuse(NotOpenPGP, "data after the base64 padding")
	}
	return base64.NewDecoder(base64.StdEncoding, bytes.NewReader(b)), nil
}

// Packet types (RFC 9580, section 5).
const (
	tagPKESK      = 1
	tagSignature  = 2
	tagSKESK      = 3
	tagOnePass    = 4
	tagCompressed = 8
	tagMarker     = 10
	tagLiteral    = 11
	tagSEIPD      = 18
	tagPadding    = 21
)

const (
	maxSessionKeyPacket = 8 << 10   // bytes: ML-KEM needs 2 kB, RSA with 16384 bits as much
	maxSignaturePacket  = 128 << 10 // bytes: 500 intended recipients need 11 kB
)

// frame is the header of a packet that has not been read yet.
type frame struct {
	tag    byte
	header int   // bytes
	length int64 // of the body; -1 if it is partial or indeterminate
}

// peekFrame looks at the next packet header and leaves it in br; io.EOF if there is none.
func peekFrame(br *bufio.Reader) (frame, error) {
	b, err := br.Peek(6)
	if len(b) == 0 {
		if err == nil || err == io.EOF {
			return frame{}, io.EOF
		}
		return frame{}, err
	}
	switch {
	case b[0]&0x80 == 0:
		return frame{}, refuse(NotOpenPGP, "no OpenPGP packet")
	case b[0]&0x40 == 0:
		return oldFrame(b)
	}
	return newFrame(b)
}

func oldFrame(b []byte) (frame, error) {
	f := frame{tag: b[0] & 0x3f >> 2, header: 1, length: -1}
	if lengthType := b[0] & 3; lengthType < 3 {
		f.header += 1 << lengthType
		if len(b) < f.header {
			return frame{}, refuse(NotOpenPGP, "a packet header is cut off")
		}
		f.length = bigEndian(b[1:f.header])
	}
	return f, nil
}

func newFrame(b []byte) (frame, error) {
	f := frame{tag: b[0] & 0x3f, header: 2}
	if len(b) < 2 {
		return frame{}, refuse(NotOpenPGP, "a packet header is cut off")
	}
	switch first := int64(b[1]); {
	case first < 192:
		f.length = first
	case first < 224 && len(b) >= 3:
		f.header, f.length = 3, (first-192)<<8+int64(b[2])+192
	case first >= 224 && first < 255:
		f.length = -1
	case first == 255 && len(b) >= 6:
		f.header, f.length = 6, bigEndian(b[2:6])
	default:
		return frame{}, refuse(NotOpenPGP, "a packet header is cut off")
	}
	return f, nil
}

func bigEndian(b []byte) int64 {
	var n int64
	for _, c := range b {
		n = n<<8 | int64(c)
	}
	return n
}

// readRaw reads the framed packet whole, header and all. It must be of definite length and have at most limit bytes.
func readRaw(br *bufio.Reader, f frame, limit int64) ([]byte, error) {
	if f.length < 0 || f.length > limit {
		return nil, refuse(NotOpenPGP, "packet type %d is longer than %d bytes or of indefinite length", f.tag, limit)
	}
	raw := make([]byte, int64(f.header)+f.length)
	if _, err := io.ReadFull(br, raw); err != nil {
		return nil, refuse(NotOpenPGP, "packet type %d is cut off: %v", f.tag, err)
	}
	return raw, nil
}

// sealed is an encrypted message whose data has not been read yet.
type sealed struct {
	keys [][]byte // the session key packets, raw
	data *packet.SymmetricallyEncrypted
	rest *bufio.Reader
}

// readSealed reads the session key packets and the head of the SEIPD packet.
func readSealed(payload io.Reader, bounds Bounds) (*sealed, error) {
	s := &sealed{rest: bufio.NewReader(payload)}
	for {
		f, err := peekFrame(s.rest)
		if err != nil {
			return nil, orNotOpenPGP(err, "no encrypted data")
		}
		switch f.tag {
		case tagPKESK, tagSKESK:
			raw, err := readRaw(s.rest, f, maxSessionKeyPacket)
			if err != nil {
				return nil, err
			}
			if s.keys = append(s.keys, raw); len(s.keys) > bounds.Packets {
				return nil, refuse(TooManyPackets, "more than %d session key packets", bounds.Packets)
			}
		case tagSEIPD:
			if len(s.keys) == 0 {
				return nil, refuse(NotOpenPGP, "encrypted data without session key packets")
			}
			return s, s.readHead()
		default:
			return nil, refuse(NotOpenPGP, "packet type %d in an encrypted message", f.tag)
		}
	}
}

func (s *sealed) readHead() error {
	p, err := packet.Read(s.rest)
	data, ok := p.(*packet.SymmetricallyEncrypted)
	if err != nil || !ok {
		return refuse(NotOpenPGP, "encrypted data: %v", err)
	}
	s.data = data
	return nil
}

// readToEnd reads what is left of the encrypted data, which must be all there, and nothing may follow it. Decryption alone takes
// any end of the data for the right one.
func (s *sealed) readToEnd() error {
	if _, err := io.Copy(io.Discard, s.data.Contents); err != nil {
		return orNotOpenPGP(err, "the encrypted data is cut off")
	}
	if _, err := s.rest.Peek(1); err != io.EOF {
		return refuse(NotOpenPGP, "something follows the encrypted data")
	}
	return nil
}

func orNotOpenPGP(err error, what string) error {
	var r *refusal
	if errors.As(err, &r) {
		return err
	}
	return refuse(NotOpenPGP, "%s: %v", what, err)
}
