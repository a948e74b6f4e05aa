package minirelay

import (
	"bufio"
	"bytes"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/textproto"
)

// search answers SEARCH. BODY, TEXT and the SENT dates are refused: nobody of ours asks for them.
func (v *view) search(kind imapserver.NumKind, c *imap.SearchCriteria) (*imap.SearchData, error) {
	if !searchable(c) {
		return nil, cannot("SEARCH knows sets, flags, sizes, arrival dates and header fields only")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var (
		data imap.SearchData
		seqs imap.SeqSet
		uids imap.UIDSet
	)
	for _, h := range v.findLocked(nil) {
		if !v.matches(h, c) {
			continue
		}
		n := h.seq
		if kind == imapserver.NumKindUID {
			n = uint32(h.msg.uid)
		}
		seqs.AddNum(h.seq)
		uids.AddNum(h.msg.uid)
		data.Count++
		data.Max = n
		if data.Min == 0 {
			data.Min = n
		}
	}
	data.All = seqs
	if kind == imapserver.NumKindUID {
		data.All = uids
	}
	return &data, nil
}

func searchable(c *imap.SearchCriteria) bool {
	if len(c.Body)+len(c.Text) > 0 || !c.SentSince.IsZero() || !c.SentBefore.IsZero() || c.ModSeq != nil {
		return false
	}
	for _, set := range c.UID {
		if imap.IsSearchRes(set) {
			return false
		}
	}
	for i := range c.Not {
		if !searchable(&c.Not[i]) {
			return false
		}
	}
	for i := range c.Or {
		if !searchable(&c.Or[i][0]) || !searchable(&c.Or[i][1]) {
			return false
		}
	}
	return true
}

func (v *view) matches(h hit, c *imap.SearchCriteria) bool {
	for _, set := range c.SeqNum {
		if !v.contains(set, h.seq, h.msg.uid) {
			return false
		}
	}
	for _, set := range c.UID {
		if !v.contains(set, h.seq, h.msg.uid) {
			return false
		}
	}
	if !flagsMatch(h.flags, c) || !sizeAndDateMatch(h.msg, c) || !fieldsMatch(h.msg, c.Header) {
		return false
	}
	for i := range c.Not {
		if v.matches(h, &c.Not[i]) {
			return false
		}
	}
	for i := range c.Or {
		if !v.matches(h, &c.Or[i][0]) && !v.matches(h, &c.Or[i][1]) {
			return false
		}
	}
	return true
}

func flagsMatch(f flags, c *imap.SearchCriteria) bool {
	for _, name := range c.Flag {
		if f&flagBit(name) == 0 {
			return false
		}
	}
	for _, name := range c.NotFlag {
		if f&flagBit(name) != 0 {
			return false
		}
	}
	return true
}

// sizeAndDateMatch compares days only, without their time zones (RFC 3501, section 6.4.4).
func sizeAndDateMatch(m *message, c *imap.SearchCriteria) bool {
	size := int64(len(m.data))
	if c.Larger != 0 && size <= c.Larger || c.Smaller != 0 && size >= c.Smaller {
		return false
	}
	day := time.Date(m.date.Year(), m.date.Month(), m.date.Day(), 0, 0, 0, 0, time.UTC)
	return (c.Since.IsZero() || !day.Before(c.Since)) && (c.Before.IsZero() || day.Before(c.Before))
}

func fieldsMatch(m *message, fields []imap.SearchCriteriaHeaderField) bool {
	if len(fields) == 0 {
		return true
	}
	h, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(header(m.data))))
	if err != nil {
		return false
	}
	for _, f := range fields {
		if !fieldMatches(h, f) {
			return false
		}
	}
	return true
}

func fieldMatches(h textproto.Header, f imap.SearchCriteriaHeaderField) bool {
	want := strings.ToLower(f.Value)
	for fields := h.FieldsByKey(f.Key); fields.Next(); {
		if strings.Contains(strings.ToLower(fields.Value()), want) {
			return true
		}
	}
	return false
}
