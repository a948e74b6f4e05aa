package gate

import (
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/textproto"
	"strings"
	"unicode/utf8"
)

// MaxText is how many bytes of a message's text a Verdict holds.
const MaxText = 2 << 10

// content is what is kept of a decrypted body that streams by.
type content struct {
	parts int    // all of them, multiparts included
	found bool   // a text was found
	text  string // the start of the first text, decoded
	cut   bool   // the text is longer, or could not be decoded to its end
}

// walk counts the parts and levels of an entity that streams by, so that core is not handed a mail made to exhaust it, and keeps the
// start of its first text. What breaks the format ends the walk without an error: core reads on leniently, in its sandbox.
func (c *content) walk(h textproto.MIMEHeader, body io.Reader, bounds Bounds, depth int) error {
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if h.Get("Content-Type") == "" {
		mediaType, err = "text/plain", nil
	}
	if err == nil && mediaType == "text/plain" && !c.found && !strings.HasPrefix(strings.ToLower(h.Get("Content-Disposition")), "attachment") {
		return c.keep(h.Get("Content-Transfer-Encoding"), params["charset"], body)
	}
	if err != nil || !strings.HasPrefix(mediaType, "multipart/") || params["boundary"] == "" {
		return nil
	}
	if depth++; depth > bounds.Depth {
		return refuse(TooDeep, "multiparts nested deeper than %d", bounds.Depth)
	}
	for r := multipart.NewReader(body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if err != nil {
			return overrun(err)
		}
		if c.parts++; c.parts > bounds.Parts {
			return refuse(TooDeep, "more than %d parts", bounds.Parts)
		}
		if err := c.walk(part.Header, part, bounds, depth); err != nil {
			return err
		}
	}
}

// keep reads the start of a text.
func (c *content) keep(encoding, charset string, body io.Reader) error {
	c.found, c.cut = true, true
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "7bit", "8bit", "binary":
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	default:
		return nil
	}
	if charset = strings.ToLower(charset); charset != "" && charset != "utf-8" && charset != "us-ascii" {
		return nil
	}
	b := make([]byte, MaxText+1)
	n, err := io.ReadFull(body, b)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return overrun(err)
	}
	c.cut = n > MaxText
	b = b[:min(n, MaxText)]
	for i := 0; c.cut && i < utf8.UTFMax && !utf8.Valid(b); i++ {
		b = b[:len(b)-1]
	}
	if !utf8.Valid(b) {
		c.cut = true
		return nil
	}
	c.text = strings.ReplaceAll(string(b), "\r\n", "\n")
	return nil
}

// overrun is err if it is a refusal from below, and nil if it is only the walk's.
func overrun(err error) error {
	if _, ok := asRefusal(err); ok {
		return err
	}
	return nil
}

// ordinary are the protected header fields that a text has which does nothing but say itself. Autocrypt-Gossip is not among them:
// core needs the keys.
var ordinary = set([]string{
	"from", "to", "subject", "date", "message-id", "in-reply-to", "references", "mime-version", "content-type",
	"content-transfer-encoding", "auto-submitted", "autocrypt", "hp-outer", "chat-version", "chat-disposition-notification-to",
	"chat-group-id", "chat-group-name", "chat-group-name-timestamp", "chat-group-member-fpr", "chat-group-member-timestamps",
	"chat-group-past-members", "chat-verified", "ephemeral-timer",
})

// plain reports whether a mail is one text and nothing else: no attachment, no change of the group or the sender's profile, no step of
// Secure-Join, no reaction, edit or deletion. What is not known to be harmless is not plain.
func (o *opened) plain() bool {
	mediaType, _, err := mime.ParseMediaType(o.header.get("content-type"))
	if o.header.get("content-type") != "" && (err != nil || mediaType != "text/plain") || !o.content.found {
		return false
	}
	for _, f := range o.header {
		if !ordinary[f.name] {
			return false
		}
	}
	return true
}

// byBot reports whether the protected header says that no person wrote the mail (RFC 3834).
func (o *opened) byBot() bool {
	value, _, _ := strings.Cut(o.header.get("auto-submitted"), ";")
	value = strings.TrimSpace(value)
	return value != "" && !strings.EqualFold(value, "no")
}
