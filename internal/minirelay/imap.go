package minirelay

import (
	"crypto/tls"
	"strings"
	"sync/atomic"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// selected holds the commands of RFC 3501's selected state, which Private and Relay share. go-imap calls one command at a
// time, but may still be in Idle when the next one comes from a client that breaks the protocol.
type selected struct {
	conn *guardedConn
	view atomic.Pointer[view] // nil in the authenticated state
}

func newSelected(c *imapserver.Conn) *selected {
	conn := c.NetConn()
	if encrypted, ok := conn.(*tls.Conn); ok {
		conn = encrypted.NetConn()
	}
	guarded, _ := conn.(*guardedConn)
	return &selected{conn: guarded}
}

func (s *selected) open(st *store, b *box) *imap.SelectData {
	v, data := newView(st, b)
	s.view.Store(v)
	return data
}

// Unselect leaves the mailbox.
func (s *selected) Unselect() error {
	s.view.Store(nil)
	return nil
}

// Poll announces what has happened since the last command.
func (s *selected) Poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	v := s.view.Load()
	if v == nil {
		return nil
	}
	return v.poll(w, allowExpunge)
}

// Idle announces what happens until stop is closed.
func (s *selected) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	guard := s.conn.listener.guard
	if !guard.enter() {
		return nil
	}
	defer guard.leave()
	s.conn.setIdling(true)
	defer s.conn.setIdling(false)
	v := s.view.Load()
	if v == nil {
		<-stop
		return nil
	}
	return v.idle(w, stop)
}

// Search answers SEARCH and UID SEARCH.
func (s *selected) Search(kind imapserver.NumKind, c *imap.SearchCriteria, _ *imap.SearchOptions) (*imap.SearchData, error) {
	return s.view.Load().search(kind, c)
}

// fetch answers FETCH and returns the messages it has written.
func (s *selected) fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions, known knowledge) ([]hit, error) {
	if err := checkFetch(o, known); err != nil {
		return nil, err
	}
	hits, err := s.view.Load().find(set)
	if err != nil {
		return nil, err
	}
	if marksSeen(o) {
		s.view.Load().change(hits, imap.StoreFlagsAdd, flagSeen)
	}
	for i, h := range hits {
		if err := writeFetch(w, h, o); err != nil {
			return hits[:i], err
		}
	}
	return hits, nil
}

// Store answers STORE and UID STORE.
func (s *selected) Store(w *imapserver.FetchWriter, set imap.NumSet, f *imap.StoreFlags, _ *imap.StoreOptions) error {
	hits, err := s.view.Load().find(set)
	if err != nil {
		return err
	}
	s.view.Load().change(hits, f.Op, flagsOf(f.Flags))
	if f.Silent {
		return nil
	}
	for _, h := range hits {
		if err := writeFetch(w, h, &imap.FetchOptions{UID: true, Flags: true}); err != nil {
			return err
		}
	}
	return nil
}

// Expunge removes what is marked \Deleted, of uids if that is not nil.
func (s *selected) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	_, err := s.view.Load().expunge(w, uids)
	return err
}

func no(code imap.ResponseCode, text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeNo, Code: code, Text: text}
}

func cannot(text string) error { return no(imap.ResponseCodeCannot, text) }

func clientBug(text string) error {
	return &imap.Error{Type: imap.StatusResponseTypeBad, Code: imap.ResponseCodeClientBug, Text: text}
}

// longestPattern bounds the patterns of LIST, whose matching takes time by the product of lengths.
const longestPattern = 512

// matchList says whether LIST's reference and pattern mean name: "*" stands for anything, "%" for anything without the
// delimiter (RFC 3501, section 6.3.8). go-imap's matcher takes exponential time for many wildcards.
func matchList(name, delimiter, reference, pattern string) bool {
	pattern = reference + pattern
	if len(pattern) > longestPattern {
		return false
	}
	reached := make([]bool, len(name)+1) // reached[i]: the pattern so far matches name[:i]
	reached[0] = true
	for _, p := range []byte(pattern) {
		next := make([]bool, len(name)+1)
		for i := range next {
			switch {
			case p == '*' || p == '%':
				next[i] = reached[i] || i > 0 && next[i-1] && (p == '*' || !strings.HasPrefix(name[i-1:], delimiter))
			default:
				next[i] = i > 0 && reached[i-1] && name[i-1] == p
			}
		}
		reached = next
	}
	return reached[len(name)]
}
