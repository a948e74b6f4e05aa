// Package letter reads a mail that a bot has submitted as what a chat can hold: a text, HTML, files, and what it answers. It is
// pure. The mail is foreign: its size is the caller's to bound; headers, parts, nesting, texts and files are bounded here (Limits),
// and time and memory are linear in the size.
//
// What becomes of a mail (RFC 5322, RFC 2045 to 2047):
//
//   - Parts of text/plain that are no attachments are the text, one after the other. Where a mail has HTML only, the text is what
//     can be read of it.
//   - The first part of text/html that is no attachment is the HTML.
//   - Every other part is a file: attachments, pictures within HTML, text of other types, forwarded mails. Its name is that of the
//     Content-Disposition, or else of the Content-Type, without folders; "file" if there is none.
//   - A subject stands before the text, as in Delta Chat: "Subject – text". Not that of an answer ("Re: …").
//   - In-Reply-To is kept, the other fields say nothing: sender and recipients are those of the envelope.
//
// Unknown charsets and encodings are taken as they are, bytes that are no UTF-8 are replaced.
package letter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode"

	"github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // so that text of other charsets can be read
	"github.com/emersion/go-message/textproto"
)

// Limits bound one mail.
type Limits struct {
	Header int // bytes of the header, and of that of each part
	Parts  int // parts, those included that only hold others
	Depth  int // nesting
	Files  int // files
	File   int // bytes of one, unpacked
	Text   int // bytes of the text, and of the HTML
}

// DefaultLimits are those of a mail that is to be read in a chat.
func DefaultLimits() Limits {
	return Limits{Header: 64 << 10, Parts: 50, Depth: 8, Files: 10, File: 20 << 20, Text: 100_000}
}

// Letter is a mail, read.
type Letter struct {
	Text      string
	HTML      string
	Files     []File
	InReplyTo []string // message ids, without angle brackets
}

// File is an attachment.
type File struct {
	Name string // one path component of at most 200 bytes
	Type string // such as "image/png", in lower case; as the mail says
	Data []byte
}

// ErrTooMuch is wrapped by errors that say which limit a mail is over.
var ErrTooMuch = errors.New("the mail is too much")

// ErrMalformed is wrapped by errors of mails that are no MIME.
var ErrMalformed = errors.New("the mail cannot be read")

// ErrEmpty says that a mail has neither text nor files.
var ErrEmpty = errors.New("the mail is empty: it has neither a text nor a file")

// Read reads a mail whose lines end with CRLF or LF.
func Read(data []byte, l Limits) (Letter, error) {
	entity, err := message.ReadWithOptions(bytes.NewReader(data), &message.ReadOptions{MaxHeaderBytes: int64(l.Header)})
	if entity == nil {
		return Letter{}, fmt.Errorf("%w: its header, of at most %d bytes: %w", ErrMalformed, l.Header, err)
	}
	r := reader{limits: l}
	if err := r.part(entity, 0); err != nil {
		return Letter{}, err
	}
	if r.letter.Text == "" && r.letter.HTML != "" {
		r.letter.Text = plain(r.letter.HTML)
	}
	r.letter.Text = withSubject(entity.Header, r.letter.Text)
	switch {
	case len(r.letter.Text) > l.Text:
		return Letter{}, fmt.Errorf("%w: with its subject the text is longer than %d bytes", ErrTooMuch, l.Text)
	case r.letter.Text == "" && len(r.letter.Files) == 0:
		return Letter{}, ErrEmpty
	}
	r.letter.InReplyTo = ids(entity.Header.Get("In-Reply-To"))
	return r.letter, nil
}

// reader walks through the parts.
type reader struct {
	limits Limits
	parts  int
	letter Letter
}

func (r *reader) part(e *message.Entity, depth int) error {
	if r.parts++; r.parts > r.limits.Parts {
		return fmt.Errorf("%w: more than %d parts", ErrTooMuch, r.limits.Parts)
	}
	kind, params, err := e.Header.ContentType()
	if err != nil || kind == "" {
		kind, params = "text/plain", nil
	}
	disposition, _, _ := e.Header.ContentDisposition()
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		return r.multipart(e.Body, params["boundary"], depth)
	case strings.EqualFold(disposition, "attachment"):
	case kind == "text/plain":
		return r.text(e.Body, &r.letter.Text, "text")
	case kind == "text/html" && r.letter.HTML == "":
		return r.text(e.Body, &r.letter.HTML, "HTML")
	}
	return r.file(e, kind)
}

// maxBoundary is above the 70 bytes of RFC 2046.
const maxBoundary = 200

func (r *reader) multipart(body io.Reader, boundary string, depth int) error {
	switch {
	case depth >= r.limits.Depth:
		return fmt.Errorf("%w: parts are nested deeper than %d", ErrTooMuch, r.limits.Depth)
	case boundary == "" || len(boundary) > maxBoundary:
		return fmt.Errorf("%w: a boundary between parts is missing or longer than %d bytes", ErrMalformed, maxBoundary)
	}
	limited := &limitedReader{r: body}
	parts := textproto.NewMultipartReader(limited, boundary)
	for {
		limited.left = int64(r.limits.Header)
		p, err := parts.NextPart()
		limited.left = math.MaxInt64
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: part %d, whose header may have %d bytes: %w", ErrMalformed, r.parts+1, r.limits.Header, err)
		}
		e, _ := message.New(message.Header{Header: p.Header}, p) // its error says of which charset or encoding it knows nothing
		if err := r.part(e, depth+1); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, p); err != nil {
			return fmt.Errorf("%w: part %d does not end: %w", ErrMalformed, r.parts, err)
		}
	}
}

// limitedReader fails when more is read than is left.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("%w: too many bytes before a part", ErrTooMuch)
	}
	n, err := l.r.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// text adds a part of text to one of the letter's.
func (r *reader) text(body io.Reader, to *string, what string) error {
	data, err := io.ReadAll(io.LimitReader(body, int64(r.limits.Text)+1))
	if err != nil {
		return fmt.Errorf("%w: its %s: %w", ErrMalformed, what, err)
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(string(data), "\uFFFD"), "\r\n", "\n")
	text = strings.TrimSpace(strings.ReplaceAll(text, "\x00", ""))
	if *to != "" && text != "" {
		text = *to + "\n\n" + text
	}
	if text != "" {
		*to = text
	}
	if len(data) > r.limits.Text || len(text) > r.limits.Text {
		return fmt.Errorf("%w: its %s is longer than %d bytes: put more into a file", ErrTooMuch, what, r.limits.Text)
	}
	return nil
}

func (r *reader) file(e *message.Entity, kind string) error {
	if len(r.letter.Files) == r.limits.Files {
		return fmt.Errorf("%w: more than %d files", ErrTooMuch, r.limits.Files)
	}
	data, err := io.ReadAll(io.LimitReader(e.Body, int64(r.limits.File)+1))
	switch {
	case err != nil:
		return fmt.Errorf("%w: a file in it: %w", ErrMalformed, err)
	case len(data) > r.limits.File:
		return fmt.Errorf("%w: a file in it is larger than %d bytes", ErrTooMuch, r.limits.File)
	}
	r.letter.Files = append(r.letter.Files, File{Name: fileName(e.Header), Type: strings.ToLower(kind), Data: data})
	return nil
}

// maxName is what most file systems take, with room for what core adds; in bytes.
const maxName = 200

func fileName(h message.Header) string {
	_, params, _ := h.ContentDisposition()
	name := params["filename"]
	if name == "" {
		_, params, _ = h.ContentType()
		name = params["name"]
	}
	if decoded, err := decodeWords(name); err == nil { // RFC 2047 forbids it, and many do it
		name = decoded
	}
	name = strings.ToValidUTF8(name, "_")
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return '_'
		}
		return c
	}, name)
	name = strings.Trim(strings.TrimSpace(name), ".")
	if name == "" {
		return "file"
	}
	return shorten(name)
}

// shorten keeps the extension.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	extension := ""
	if i := strings.LastIndexByte(name, '.'); i >= 0 && len(name)-i <= 20 {
		extension = name[i:]
	}
	return strings.ToValidUTF8(name[:maxName-len(extension)], "") + extension
}

func decodeWords(s string) (string, error) {
	var h message.Header
	h.Set("X", s)
	return h.Text("X")
}

// withSubject puts the subject before the text, unless the mail is an answer.
func withSubject(h message.Header, text string) string {
	subject, _ := h.Text("Subject") // an error leaves it as it was
	subject = strings.Join(strings.Fields(strings.ToValidUTF8(subject, "\uFFFD")), " ")
	subject = strings.ReplaceAll(subject, "\x00", "")
	switch {
	case subject == "" || answers(subject):
		return text
	case text == "":
		return subject
	}
	return subject + " – " + text
}

// answers reports whether a subject is that of an answer, or of what was forwarded: it says nothing new.
func answers(subject string) bool {
	prefix, _, found := strings.Cut(subject, ":")
	switch strings.ToLower(strings.TrimSpace(prefix)) {
	case "re", "aw", "sv", "antw", "fw", "fwd", "wg":
		return found
	}
	return false
}

// maxIDs bounds the message ids that are looked at.
const maxIDs = 10

// ids are those of an In-Reply-To field.
func ids(field string) []string {
	var list []string
	for len(list) < maxIDs {
		_, rest, found := strings.Cut(field, "<")
		id, rest, closed := strings.Cut(rest, ">")
		if !found || !closed {
			return list
		}
		list, field = append(list, strings.TrimSpace(id)), rest
	}
	return list
}
