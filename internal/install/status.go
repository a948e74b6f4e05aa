package install

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"rsc.io/qr"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/ledger"
)

const noApp = `Do not use this account in a chat or mail app: apps delete or mark the mail that the bot is to answer. Use it only
to put bundles into the folder Bot.
`

// compose writes the answer to a request, which is known by its place in the folder.
func (o outcome) compose(addr bot.Address, req request, at ledger.Cursor, now time.Time) ([]byte, error) {
	var h mail.Header
	own := []*mail.Address{{Name: "Mayfly", Address: string(addr)}}
	h.SetAddressList("From", own)
	h.SetAddressList("To", own)
	h.SetSubject(o.subject())
	h.SetDate(now)
	h.SetMessageID(messageID(addr, at))
	if req.messageID != "" {
		h.Set("In-Reply-To", req.messageID)
		h.Set("References", req.messageID)
	}
	h.Set("Auto-Submitted", "auto-replied")
	h.Set("Mayfly-State", o.state)
	if o.bot.Invite == "" || o.state == Refused || o.state == Uninstalled {
		return composeText(h, o.text())
	}
	code, err := qr.Encode(o.bot.Invite, qr.M)
	if err != nil {
		return nil, fmt.Errorf("draw the invite link: %w", err)
	}
	code.Scale = 6
	return composeMixed(h, o.text(), attachment{name: "invite.png", mediaType: "image/png", disposition: "inline", data: code.PNG()})
}

// messageID is the same for all answers to one request.
func messageID(addr bot.Address, at ledger.Cursor) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", addr, at.UIDValidity, at.UID))
	return fmt.Sprintf("mayfly-%x@%s", sum[:16], strings.Trim(addr.Domain(), "[]"))
}

func title(m bot.Manifest) string { return m.Name + " " + m.Version }

func (o outcome) subject() string {
	switch {
	case o.state == Refused && len(o.problems) == 1:
		return "refused: 1 fault"
	case o.state == Refused:
		return fmt.Sprintf("refused: %d faults", len(o.problems))
	case o.bot.Digest == "":
		return o.state
	default:
		return o.state + ": " + title(o.bot.Manifest)
	}
}

func (o outcome) text() string {
	switch o.state {
	case Refused:
		return o.refusedText()
	case Uninstalled:
		if o.bot.Digest == "" {
			return "There was no bot to uninstall.\n"
		}
		return title(o.bot.Manifest) + " is uninstalled. What it had stored and its key are deleted; its invite link is dead.\n"
	default:
		return o.installedText()
	}
}

func (o outcome) refusedText() string {
	var b strings.Builder
	b.WriteString("The bundle was refused:\n\n")
	b.WriteString(o.problems.Error())
	b.WriteString("\n\n")
	if o.erased {
		b.WriteString("The message was erased, since it had secrets in it. Send it again whole.\n\n")
	}
	if o.bot.Digest == "" {
		b.WriteString("No bot is installed.\n")
	} else {
		b.WriteString(title(o.bot.Manifest) + " stays installed.\n")
	}
	return b.String()
}

func (o outcome) installedText() string {
	m := o.bot.Manifest
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s.\n\n", title(m), o.state)
	fmt.Fprintf(&b, "To chat with it, open this invite link, or scan the picture with Delta Chat:\n\n%s\n\n", o.bot.Invite)
	fmt.Fprintf(&b, "Its limits: %s of memory and %v for each run.\n\n", bundle.FormatSize(m.Limits.Memory), m.Limits.Wall)
	for _, line := range o.withheld {
		b.WriteString(line + ".\n\n")
	}
	if o.erased {
		b.WriteString("What came with it for the account is kept apart from the bundle, and the message was erased.\n\n")
	}
	b.WriteString(noApp)
	b.WriteString("\nTo update the bot, put a message with the new bundle into the folder Bot; to go back to the version before, one with the " +
		"subject \"rollback\"; to remove it, one with the subject \"uninstall\", or remove the folder.\n")
	return b.String()
}

// attachment is a part with a file name.
type attachment struct {
	name, mediaType, disposition string
	data                         []byte
}

func composeText(h mail.Header, text string) ([]byte, error) {
	var buf bytes.Buffer
	h.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
	w, err := mail.CreateSingleInlineWriter(&buf, h)
	if err == nil {
		err = writeClose(w, []byte(text))
	}
	if err != nil {
		return nil, fmt.Errorf("write the mail: %w", err)
	}
	return buf.Bytes(), nil
}

func composeMixed(h mail.Header, text string, a attachment) ([]byte, error) {
	var buf bytes.Buffer
	h.SetContentType("multipart/mixed", nil)
	w, err := message.CreateWriter(&buf, h.Header)
	if err == nil {
		err = errors.Join(writeParts(w, text, a), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("write the mail: %w", err)
	}
	return buf.Bytes(), nil
}

func writeParts(w *message.Writer, text string, a attachment) error {
	var inline message.Header
	inline.SetContentType("text/plain", map[string]string{"charset": "utf-8"})
	inline.Set("Content-Disposition", "inline")
	inline.Set("Content-Transfer-Encoding", "quoted-printable")
	part, err := w.CreatePart(inline)
	if err != nil {
		return err
	}
	if err := writeClose(part, []byte(text)); err != nil {
		return err
	}
	var file message.Header
	file.SetContentType(a.mediaType, nil)
	file.SetContentDisposition(a.disposition, map[string]string{"filename": a.name})
	file.Set("Content-Transfer-Encoding", "base64")
	if part, err = w.CreatePart(file); err != nil {
		return err
	}
	return writeClose(part, a.data)
}

func writeClose(w io.WriteCloser, data []byte) error {
	_, err := w.Write(data)
	return errors.Join(err, w.Close())
}
