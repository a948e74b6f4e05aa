package gate

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/textproto"
	"strings"
)

const (
	maxLine   = 64 << 10 // bytes of one header line, before unfolding
	maxFields = 8192     // of one header block
)

// field is one header field: its name in lower case, its value unfolded and trimmed.
type field struct{ name, value string }

// header is a header block in its order.
type header []field

// get is the last field of that name, as in core, where later fields override earlier ones; empty if there is none.
func (h header) get(name string) string {
	for i := len(h) - 1; i >= 0; i-- {
		if h[i].name == name {
			return h[i].value
		}
	}
	return ""
}

// all lists the values of that name in their order.
func (h header) all(name string) []string {
	var values []string
	for _, f := range h {
		if f.name == name {
			values = append(values, f.value)
		}
	}
	return values
}

// mime is what of the header says how to read the body.
func (h header) mime() textproto.MIMEHeader {
	m := textproto.MIMEHeader{}
	for _, name := range []string{"content-type", "content-transfer-encoding", "content-disposition"} {
		if value := h.get(name); value != "" {
			m.Set(name, value)
		}
	}
	return m
}

// readHeader reads up to and with the empty line, and says how many bytes that were. The block ends at the end of r, too.
func readHeader(r *bufio.Reader, limit int) (header, int, error) {
	var h header
	size := 0
	for {
		line, err := r.ReadSlice('\n')
		size += len(line)
		if err != nil && err != io.EOF {
			if errors.Is(err, bufio.ErrBufferFull) {
				err = refuse(TooLarge, "a header line has more than %d bytes", maxLine)
			}
			return nil, size, err
		}
		if size > limit || len(h) > maxFields {
			return nil, size, refuse(TooLarge, "the header has more than %d bytes or %d fields", limit, maxFields)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			return h, size, nil
		}
		if h, err = h.add(text); err != nil {
			return nil, size, err
		}
	}
}

func (h header) add(line string) (header, error) {
	if line[0] == ' ' || line[0] == '\t' {
		if len(h) == 0 {
			return nil, refuse(Malformed, "the header starts with a continuation")
		}
		last := &h[len(h)-1]
		last.value += "\n" + line
		return h, nil
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || strings.ContainsAny(name, " \t") {
		return nil, refuse(Malformed, "a header line without a field name")
	}
	return append(h, field{strings.ToLower(name), strings.TrimSpace(value)}), nil
}

// lineReader is a reader for readHeader over bytes that are there already, with no larger a buffer than they need.
func lineReader(b []byte) *bufio.Reader {
	return bufio.NewReaderSize(bytes.NewReader(b), min(maxLine, len(b)+1))
}

// entity is a MIME entity (RFC 2045) whose body is still encoded.
type entity struct {
	header    header
	body      []byte
	mediaType string // lower case; text/plain if there is none
	params    map[string]string
}

func parseEntity(b []byte, bounds Bounds) (*entity, error) {
	h, n, err := readHeader(lineReader(b), bounds.Header)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"content-type", "content-transfer-encoding"} {
		if len(h.all(name)) > 1 {
			return nil, refuse(Malformed, "more than one %s", name)
		}
	}
	e := &entity{header: h, body: b[n:], mediaType: "text/plain"}
	if value := h.get("content-type"); value != "" {
		if e.mediaType, e.params, err = mime.ParseMediaType(value); err != nil {
			return nil, refuse(Malformed, "content-type: %v", err)
		}
	}
	return e, nil
}

// parts splits a multipart body (RFC 2046) without copying it. The closing delimiter must be there.
func (e *entity) parts(bounds Bounds) ([]*entity, error) {
	boundary := e.params["boundary"]
	if boundary == "" || len(boundary) > 200 {
		return nil, refuse(Malformed, "a multipart without a usable boundary")
	}
	delimiter := []byte("--" + boundary)
	var parts []*entity
	start := -1
	for at := 0; at < len(e.body); {
		end := len(e.body)
		if i := bytes.IndexByte(e.body[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		delimits, closes := matchDelimiter(e.body[at:end], delimiter)
		if delimits && start >= 0 {
			part, err := parseEntity(cutLineEnd(e.body[start:at]), bounds)
			if err != nil {
				return nil, err
			}
			if parts = append(parts, part); len(parts) > bounds.Parts {
				return nil, refuse(TooDeep, "more than %d parts", bounds.Parts)
			}
		}
		if closes {
			return parts, nil
		}
		if delimits {
			start = end
		}
		at = end
	}
	return nil, refuse(Malformed, "a multipart without its closing delimiter")
}

// matchDelimiter says whether the line stands between two parts or ends the last one; white space may follow.
func matchDelimiter(line, delimiter []byte) (delimits, closes bool) {
	rest, ok := bytes.CutPrefix(line, delimiter)
	if !ok {
		return false, false
	}
	rest, closes = bytes.CutPrefix(rest, []byte("--"))
	delimits = len(bytes.TrimRight(rest, " \t\r\n")) == 0
	return delimits, closes && delimits
}

func cutLineEnd(b []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
}

// decoded is the body without its Content-Transfer-Encoding. The result is never larger than the body.
func (e *entity) decoded() ([]byte, error) {
	var r io.Reader
	switch encoding := strings.ToLower(e.header.get("content-transfer-encoding")); encoding {
	case "", "7bit", "8bit", "binary":
		return e.body, nil
	case "base64":
		r = base64.NewDecoder(base64.StdEncoding, bytes.NewReader(e.body))
	case "quoted-printable":
		r = quotedprintable.NewReader(bytes.NewReader(e.body))
	default:
		return nil, refuse(Malformed, "unknown content-transfer-encoding %q", encoding)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, refuse(Malformed, "content-transfer-encoding: %v", err)
	}
	return b, nil
}

// addressOf is the bare address in a From header: what stands between the last angle brackets, else all of it.
func addressOf(value string) string {
	if i := strings.LastIndexByte(value, '<'); i >= 0 {
		value, _, _ = strings.Cut(value[i+1:], ">")
	}
	return strings.TrimSpace(value)
}
