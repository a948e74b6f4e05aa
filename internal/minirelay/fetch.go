package minirelay

import (
	"bufio"
	"bytes"
	"slices"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/textproto"
)

// fetchItems bounds the sections that one FETCH may name: each is written out for every message.
const fetchItems = 32

// knowledge is what a server knows of the mails that it holds.
type knowledge int

const (
	knowsBytes     knowledge = iota // headers and bytes
	knowsStructure                  // the parts of mails of our own making
	knowsMIME                       // whatever a parser of MIME can tell
)

// checkFetch refuses a FETCH that asks for too much, or for what is not known.
func checkFetch(o *imap.FetchOptions, known knowledge) error {
	if len(o.BodySection)+len(o.BinarySection)+len(o.BinarySectionSize) > fetchItems {
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeLimit, Text: "Too many items in one FETCH"}
	}
	if known < knowsMIME && len(o.BinarySection)+len(o.BinarySectionSize) > 0 {
		return cannot("There is no BINARY here")
	}
	if known < knowsStructure && (o.Envelope || o.BodyStructure != nil || slices.ContainsFunc(o.BodySection, inside)) {
		return cannot("Only whole messages and their headers can be fetched here")
	}
	return nil
}

// marksSeen says whether a FETCH sets \Seen (RFC 3501, section 6.4.5).
func marksSeen(o *imap.FetchOptions) bool {
	for _, s := range o.BodySection {
		if !s.Peek {
			return true
		}
	}
	for _, s := range o.BinarySection {
		if !s.Peek {
			return true
		}
	}
	return false
}

// isWhole says whether s asks for all of a message.
func isWhole(s *imap.FetchItemBodySection) bool {
	return len(s.Part) == 0 && s.Specifier == imap.PartSpecifierNone && s.Partial == nil
}

// writeFetch writes one FETCH response. Nothing of the message is copied for a whole section.
func writeFetch(w *imapserver.FetchWriter, h hit, o *imap.FetchOptions) error {
	r := w.CreateMessage(h.seq)
	if o.UID {
		r.WriteUID(h.msg.uid)
	}
	if o.Flags {
		r.WriteFlags(h.flags.list())
	}
	if o.InternalDate {
		r.WriteInternalDate(h.msg.date)
	}
	if o.RFC822Size {
		r.WriteRFC822Size(int64(len(h.msg.data)))
	}
	if o.Envelope {
		r.WriteEnvelope(envelope(h.msg.data))
	}
	if o.BodyStructure != nil {
		r.WriteBodyStructure(h.msg.bodyStructure())
	}
	if err := writeSections(r, h.msg, o); err != nil {
		r.Close() // releases the connection's writer; the first error is the one that tells
		return err
	}
	return r.Close()
}

func (m *message) bodyStructure() imap.BodyStructure {
	if m.structure != nil {
		return m.structure().bodyStructure()
	}
	return imapserver.ExtractBodyStructure(bytes.NewReader(m.data))
}

func writeSections(r *imapserver.FetchResponseWriter, m *message, o *imap.FetchOptions) error {
	data := m.data
	for _, s := range o.BodySection {
		section := m.section(s)
		w := r.WriteBodySection(s, int64(len(section)))
		if _, err := w.Write(section); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	for _, s := range o.BinarySection {
		section := imapserver.ExtractBinarySection(bytes.NewReader(data), s)
		w := r.WriteBinarySection(s, int64(len(section)))
		if _, err := w.Write(section); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	}
	for _, s := range o.BinarySectionSize {
		r.WriteBinarySectionSize(s, imapserver.ExtractBinarySectionSize(bytes.NewReader(data), s))
	}
	return nil
}

func (m *message) section(s *imap.FetchItemBodySection) []byte {
	if m.structure != nil && inside(s) {
		return partial(m.structure().section(s), s.Partial)
	}
	return bodySection(m.data, s)
}

// inside says whether a section is a part of a mail's body, for which its structure must be known.
func inside(s *imap.FetchItemBodySection) bool {
	return len(s.Part) > 0 || s.Specifier == imap.PartSpecifierText || s.Specifier == imap.PartSpecifierMIME
}

func bodySection(data []byte, s *imap.FetchItemBodySection) []byte {
	switch {
	case len(s.Part) == 0 && s.Specifier == imap.PartSpecifierNone:
		return partial(data, s.Partial)
	case len(s.Part) == 0 && s.Specifier == imap.PartSpecifierHeader:
		data = header(data)
	}
	whole := *s
	whole.Partial = nil
	return partial(imapserver.ExtractBodySection(bytes.NewReader(data), &whole), s.Partial)
}

// header is data up to and with the empty line that ends the header.
func header(data []byte) []byte {
	for _, end := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(data, []byte(end)); i >= 0 {
			return data[:i+len(end)]
		}
	}
	return data
}

func partial(data []byte, p *imap.SectionPartial) []byte {
	if p == nil {
		return data
	}
	size := int64(len(data))
	start := min(p.Offset, size)
	return data[start : start+min(p.Size, size-start)]
}

func envelope(data []byte) *imap.Envelope {
	h, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(header(data))))
	if err != nil {
		return nil
	}
	return imapserver.ExtractEnvelope(h)
}
