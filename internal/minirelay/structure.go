package minirelay

import (
	"bufio"
	"bytes"
	"mime"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	gomessage "github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"
)

// structured is a mail of our own making, taken apart once: it has one part, or a list of parts that hold no others. Nothing of
// it is copied, so that a client which asks for parts again and again costs what it has to read.
type structured struct {
	whole piece
	parts []piece // of a multipart mail
}

// piece is a header, up to and with the empty line, and a body.
type piece struct{ header, body []byte }

func pieceOf(data []byte) piece {
	h := header(data)
	return piece{h, data[len(h):]}
}

// maxParts is above what we make.
const maxParts = 10

func structure(data []byte) *structured {
	s := &structured{whole: pieceOf(data)}
	boundary := s.whole.boundary()
	if boundary == "" {
		return s
	}
	rest, more := bytes.CutPrefix(s.whole.body, []byte("--"+boundary+"\r\n"))
	for more && len(s.parts) < maxParts {
		part, after, found := bytes.Cut(rest, []byte("\r\n--"+boundary))
		if found {
			s.parts = append(s.parts, pieceOf(part))
		}
		rest, more = bytes.CutPrefix(after, []byte("\r\n")) // behind the last there is "--"
	}
	return s
}

func (p piece) fields() gomessage.Header {
	h, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(p.header)))
	if err != nil {
		return gomessage.Header{}
	}
	return gomessage.Header{Header: h}
}

// boundary is that between the parts of a multipart mail; "" of any other.
func (p piece) boundary() string {
	fields := p.fields()
	kind, params, err := mime.ParseMediaType(fields.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return ""
	}
	return params["boundary"]
}

// section is the part of the mail that a client asked for, without regard to Partial; nil if there is none.
func (s *structured) section(o *imap.FetchItemBodySection) []byte {
	p := s.whole
	switch {
	case len(o.Part) == 1 && len(s.parts) == 0 && o.Part[0] == 1: // the only part of a mail without parts is its body
	case len(o.Part) == 1 && o.Part[0] >= 1 && o.Part[0] <= len(s.parts):
		p = s.parts[o.Part[0]-1]
	case len(o.Part) > 0:
		return nil
	}
	switch {
	case len(o.Part) > 0 && o.Specifier == imap.PartSpecifierNone, len(o.Part) == 0 && o.Specifier == imap.PartSpecifierText:
		return p.body
	case len(o.Part) > 0 && o.Specifier == imap.PartSpecifierMIME:
		return p.header
	}
	return nil // the header and the text of a part are those of a mail in it
}

// bodyStructure is what BODYSTRUCTURE says.
func (s *structured) bodyStructure() imap.BodyStructure {
	outer := s.whole.bodyStructure()
	multi, ok := outer.(*imap.BodyStructureMultiPart)
	if !ok {
		return outer
	}
	for _, p := range s.parts {
		multi.Children = append(multi.Children, p.bodyStructure())
	}
	return multi
}

// bodyStructure is that of the header, with the size of the body.
func (p piece) bodyStructure() imap.BodyStructure {
	b := imapserver.ExtractBodyStructure(bytes.NewReader(p.header))
	if single, ok := b.(*imap.BodyStructureSinglePart); ok {
		single.Size = uint32(len(p.body))
		if single.Text != nil {
			single.Text.NumLines = int64(bytes.Count(p.body, []byte("\n")))
		}
	}
	return b
}
