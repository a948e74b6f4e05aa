package install

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"regexp"
	"slices"
	"strings"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/textproto"

	"mayfly/internal/bundle"
)

// request is a message of the Bot folder, read. It has a bundle, or problems, or uninstall or rollback set.
type request struct {
	messageID string // with angle brackets; "" if there is none that could be answered to
	uninstall bool
	rollback  bool
	secrets   secrets
	bundle    *bundle.Bundle
	problems  bundle.Problems
}

// size is how much the request would put on the disk, in bytes. A rollback finds everything there.
func (r request) size() int64 {
	var n int64
	if r.bundle != nil && !r.rollback {
		for _, f := range r.bundle.Files {
			n += int64(len(f.Data))
		}
	}
	return n
}

const (
	maxParts  = 2000 // of a message, at all depths
	maxNested = 8    // multiparts inside multiparts
)

// An identifier as RFC 5322 has it, and nothing that could end a header line.
var messageIDPattern = regexp.MustCompile(`^<[!-;=?-~]{1,250}>$`)

// readRequest never fails: what cannot be read is a request with problems.
func readRequest(mail []byte, c bundle.Ceilings) request {
	r := bufio.NewReader(bytes.NewReader(mail))
	h, err := textproto.ReadHeader(r)
	if err != nil && (err != io.EOF || h.Len() == 0) {
		return request{problems: bundle.Problems{{File: "message", Message: "the header cannot be read", Fix: "write it with a mail program"}}}
	}
	header := message.Header{Header: h}
	req := request{}
	if id := strings.TrimSpace(header.Get("Message-Id")); messageIDPattern.MatchString(id) {
		req.messageID = id
	}
	subject, _ := header.Text("Subject")
	switch strings.ToLower(strings.TrimSpace(subject)) {
	case "uninstall":
		req.uninstall = true
		return req
	case "rollback":
		req.rollback = true
		return req
	}
	var found attachments
	if err := found.walk(header, r, 0); err != nil {
		req.problems = bundle.Problems{{File: "message", Message: err.Error(), Fix: "attach the bundle to a new message"}}
		return req
	}
	req.secrets, err = found.takeSecrets()
	var problems bundle.Problems
	errors.As(err, &problems)
	req.bundle, err = found.bundle(c)
	if err != nil && !errors.As(err, &req.problems) {
		req.problems = bundle.Problems{{File: "message", Message: err.Error()}}
	}
	if slices.ContainsFunc(req.problems, func(p bundle.Problem) bool { return p.File == bundle.AccountName }) {
		req.secrets.there = true
	}
	if req.problems = append(problems, req.problems...); len(req.problems) > 0 {
		req.bundle = nil
	}
	return req
}

// attachments are the parts of a message that have a file name, or are zips.
type attachments struct {
	files []attached
	parts int
}

type attached struct {
	bundle.File
	zip bool
}

func (a *attachments) walk(header message.Header, body io.Reader, depth int) error {
	if a.parts++; a.parts > maxParts {
		return fmt.Errorf("more than %d parts", maxParts)
	}
	mediaType, params, _ := header.ContentType()
	if !strings.HasPrefix(mediaType, "multipart/") {
		return a.add(header, mediaType, body)
	}
	if depth == maxNested {
		return fmt.Errorf("more than %d parts inside each other", maxNested)
	}
	if params["boundary"] == "" {
		return errors.New("a multipart without a boundary")
	}
	reader := textproto.NewMultipartReader(body, params["boundary"])
	for {
		part, err := reader.NextPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the parts cannot be read: %w", err)
		}
		if err := a.walk(message.Header{Header: part.Header}, part, depth+1); err != nil {
			return err
		}
	}
}

func (a *attachments) add(header message.Header, mediaType string, body io.Reader) error {
	name := fileName(header)
	zip := isZip(name, mediaType)
	if name == "" && !zip || isSignature(mediaType) {
		return nil
	}
	data, err := decode(header, mediaType, body)
	if err != nil {
		return fmt.Errorf("the attachment %.100q cannot be decoded: %w", name, err)
	}
	a.files = append(a.files, attached{bundle.File{Path: name, Data: data}, zip})
	return nil
}

// fileName decodes RFC 2231, and RFC 2047, which is forbidden there and common.
func fileName(h message.Header) string {
	_, params, _ := h.ContentDisposition()
	if name := params["filename"]; name != "" {
		return name
	}
	_, params, _ = h.ContentType()
	return params["name"]
}

func isZip(name, mediaType string) bool {
	return strings.HasSuffix(strings.ToLower(name), ".zip") || mediaType == "application/zip" || mediaType == "application/x-zip-compressed"
}

func isSignature(mediaType string) bool {
	return slices.Contains([]string{"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"}, mediaType)
}

// decode undoes the transfer encoding, not the charset: a file's bytes are the author's.
func decode(h message.Header, mediaType string, body io.Reader) ([]byte, error) {
	encoding := strings.ToLower(strings.TrimSpace(h.Get("Content-Transfer-Encoding")))
	switch encoding {
	case "base64":
		return io.ReadAll(base64.NewDecoder(base64.StdEncoding, body))
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "", "7bit", "8bit", "binary":
	default:
		return nil, fmt.Errorf("unknown transfer encoding %.40q", encoding)
	}
	data, err := io.ReadAll(body)
	if strings.HasPrefix(mediaType, "text/") { // a mail's text has CRLF line ends, whatever the file had
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	return data, err
}

func (a *attachments) bundle(c bundle.Ceilings) (*bundle.Bundle, error) {
	problem := func(message, fix string) error {
		return bundle.Problems{{File: "message", Message: message, Fix: fix}}
	}
	files := make([]bundle.File, len(a.files))
	var zips []bundle.File
	single := false
	for i, f := range a.files {
		files[i] = f.File
		if f.zip {
			zips = append(zips, f.File)
		}
		single = single || f.Path == bundle.ManifestName
	}
	switch {
	case len(files) == 0:
		return nil, problem("no bundle is attached", `attach a zip, or bot.toml and the other files; to uninstall write the subject "uninstall"`)
	case single || len(zips) == 0:
		return bundle.FromFiles(files, c)
	case len(zips) > 1:
		return nil, problem(fmt.Sprintf("%d zips are attached", len(zips)), "attach one")
	case len(files) > 1:
		return nil, problem("a zip and other files are attached", "attach the zip alone, or all files singly with bot.toml")
	default:
		return bundle.FromZip(zips[0].Data, c)
	}
}
