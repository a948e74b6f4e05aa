package minirelay

import (
	"bytes"
	"net/mail"

	"mayfly/internal/bot"
)

// maxHeader bounds the part of a mail in which header fields are looked for.
const maxHeader = 64 << 10

// headerFields returns the values, unfolded, of all fields of a mail that have that name, which is in lower case.
func headerFields(data []byte, name string) []string {
	rest := header(data[:min(len(data), maxHeader)])
	var values []string
	for len(rest) > 0 {
		var field []byte
		field, rest = cutField(rest)
		key, value, ok := bytes.Cut(field, []byte(":"))
		if ok && string(bytes.ToLower(bytes.TrimRight(key, " \t"))) == name {
			values = append(values, string(bytes.TrimSpace(unfold(value))))
		}
	}
	return values
}

// cutField cuts the first field, with the lines that continue it, off a header.
func cutField(h []byte) (field, rest []byte) {
	for end := 0; ; {
		i := bytes.IndexByte(h[end:], '\n')
		if i < 0 {
			return h, nil
		}
		end += i + 1
		if end == len(h) || h[end] != ' ' && h[end] != '\t' {
			return h[:end], h[end:]
		}
	}
}

func unfold(value []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(value, []byte("\r"), nil), []byte("\n"), nil)
}

// messageID reads the Message-ID of a mail's header, without angle brackets; empty unless there is exactly one.
func messageID(data []byte) string {
	ids := headerFields(data, "message-id")
	if len(ids) != 1 {
		return ""
	}
	return string(bytes.Trim([]byte(ids[0]), "<>"))
}

// fromAddress reads the one address of the one From field of a mail.
func fromAddress(data []byte) (bot.Address, bool) {
	fields := headerFields(data, "from")
	if len(fields) != 1 {
		return "", false
	}
	list, err := mail.ParseAddressList(fields[0])
	if err != nil || len(list) != 1 {
		return "", false
	}
	address, err := bot.ParseAddress(list[0].Address)
	return address, err == nil
}

// toCRLF ends every line with CRLF (RFC 5322, section 2.3).
func toCRLF(data []byte) []byte {
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
}
