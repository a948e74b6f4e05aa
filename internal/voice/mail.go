package voice

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime/quotedprintable"
	"net/mail"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"mayfly/internal/bot"
)

const dateLayout = "Mon, 02 Jan 2006 15:04:05 -0700"

// header is a list of fields, as they are written.
type header [][2]string

func (h header) String() string {
	var b strings.Builder
	for _, f := range h {
		b.WriteString(f[0] + ": " + f[1] + "\r\n")
	}
	return b.String()
}

// outerHeader tells the relay what it needs, and the same as core does.
func outerHeader(m Message, messageID string) header {
	return header{
		{"From", bracketed(m.From)},
		{"To", `"hidden-recipients": ;`},
		{"Subject", "[...]"},
		{"Date", m.Date.UTC().Format(dateLayout)},
		{"Message-ID", "<" + messageID + ">"},
		{"Chat-Version", "1.0"},
	}
}

func bracketed(a bot.Address) string { return "<" + string(a) + ">" }

func innerMail(m Message, self *openpgp.Entity, messageID string, outer header) ([]byte, error) {
	key, err := autocrypt(m.From, self)
	if err != nil {
		return nil, err
	}
	h := header{
		{"Content-Type", `text/plain; charset="utf-8"; protected-headers="v1"; hp="cipher"`},
		{"From", named(m.Name, m.From)},
		{"To", bracketed(m.To)},
		{"Subject", "Message from " + encodedWord(m.Name, m.From)},
		{"Date", m.Date.UTC().Format(dateLayout)},
		{"Message-ID", "<" + messageID + ">"},
		{"Auto-Submitted", "auto-generated"},
		{"Chat-Version", "1.0"},
		{"Autocrypt", key},
	}
	if id := usableID(m.InReplyTo); id != "" {
		h = append(h, [2]string{"In-Reply-To", "<" + id + ">"}, [2]string{"References", "<" + id + ">"})
	}
	for _, f := range outer {
		h = append(h, [2]string{"HP-Outer", f[0] + ": " + f[1]})
	}
	h = append(h, [2]string{"Content-Transfer-Encoding", "quoted-printable"})
	var b bytes.Buffer
	b.WriteString(h.String() + "\r\n")
	w := quotedprintable.NewWriter(&b)
	if _, err := w.Write([]byte(strings.ReplaceAll(m.Text, "\n", "\r\n"))); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// named is an address with its display name, which is the author's: whatever it holds stays within the field.
func named(name string, a bot.Address) string {
	if name == "" {
		return bracketed(a)
	}
	return (&mail.Address{Name: name, Address: string(a)}).String()
}

// encodedWord is the name as it may stand in a text field.
func encodedWord(name string, a bot.Address) string {
	if name == "" {
		return string(a)
	}
	return strings.TrimSuffix(named(name, a), " "+bracketed(a))
}

// usableID is a foreign Message-ID, empty where it would not stay within its field.
func usableID(id string) string {
	if len(id) > 250 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }) {
		return ""
	}
	return id
}

// autocrypt is the value of the header that carries the bot's public key (Autocrypt 1.1).
func autocrypt(a bot.Address, self *openpgp.Entity) (string, error) {
	var b bytes.Buffer
	if err := self.Serialize(&b); err != nil {
		return "", fmt.Errorf("%w: %w", ErrKey, err)
	}
	return "addr=" + string(a) + "; prefer-encrypt=mutual; keydata=" + folded(base64.StdEncoding.EncodeToString(b.Bytes())), nil
}

// folded breaks a long value into lines (RFC 5322, 2.2.3).
func folded(s string) string {
	const width = 76
	var b strings.Builder
	for len(s) > 0 {
		n := min(width, len(s))
		b.WriteString("\r\n " + s[:n])
		s = s[n:]
	}
	return b.String()
}

// envelope is the mail around an encrypted message.
func envelope(outer header, sealed []byte) ([]byte, error) {
	var armored strings.Builder
	w, err := armor.Encode(&armored, "PGP MESSAGE", nil) // with the checksum, for which filters of relays look
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(sealed); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	boundary := unguessable()
	head := header{
		{"Content-Type", `multipart/encrypted; protocol="application/pgp-encrypted";` + "\r\n\t" + `boundary="` + boundary + `"`},
		{"MIME-Version", "1.0"},
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\r\n--%[3]s\r\nContent-Type: application/pgp-encrypted; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"+
		"Version: 1\r\n\r\n--%[3]s\r\nContent-Type: application/octet-stream; charset=\"utf-8\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"+
		"%s\r\n\r\n--%[3]s--\r\n", head, outer, boundary, strings.ReplaceAll(armored.String(), "\n", "\r\n"))
	return b.Bytes(), nil
}
