package minirelay

import (
	"io"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// privateSession is one IMAP connection of core, or of a bot.
type privateSession struct {
	*selected
	private *Private
}

var _ imapserver.SessionAppendLimit = (*privateSession)(nil)

func (p *Private) newSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	return &privateSession{selected: newSelected(c), private: p}, nil, nil
}

func (s *privateSession) Close() error {
	s.private.setIdling(s, false)
	return nil
}

func (s *privateSession) Login(user, password string) error {
	if !s.private.isUser(user, password) {
		return imapserver.ErrAuthFailed
	}
	s.private.tell("imap-login")
	return nil
}

func (s *privateSession) Select(name string, _ *imap.SelectOptions) (*imap.SelectData, error) {
	if name == inbox {
		s.private.open()
		return s.open(s.private.store, s.private.inbox), nil
	}
	empty := s.empty(name)
	b, _ := empty.box(name)
	return s.open(empty, b), nil
}

// empty makes the mailbox of some other name: there is never anything in it, so it need not be kept.
func (s *privateSession) empty(name string) *store {
	st := newStore(max(s.private.cfg.UIDValidity, 1), 0)
	st.create(name, 1)
	return st
}

func (s *privateSession) Status(name string, _ *imap.StatusOptions) (*imap.StatusData, error) {
	if name == inbox {
		return s.private.store.status(s.private.inbox), nil
	}
	empty := s.empty(name)
	b, _ := empty.box(name)
	return empty.status(b), nil
}

func (s *privateSession) List(w *imapserver.ListWriter, ref string, patterns []string, _ *imap.ListOptions) error {
	for _, pattern := range patterns {
		if matchList(inbox, "/", ref, pattern) {
			return w.WriteList(&imap.ListData{Mailbox: inbox, Delim: '/'})
		}
	}
	return nil
}

func (s *privateSession) Create(string, *imap.CreateOptions) error         { return nil }
func (s *privateSession) Delete(string) error                              { return nil }
func (s *privateSession) Rename(string, string, *imap.RenameOptions) error { return nil }
func (s *privateSession) Subscribe(string) error                           { return nil }
func (s *privateSession) Unsubscribe(string) error                         { return nil }

// AppendLimit is told to the client as APPENDLIMIT (RFC 7889).
func (s *privateSession) AppendLimit() uint32 { return privateAppend }

// Append swallows the message, except for the INBOX, where only Present puts mail.
func (s *privateSession) Append(name string, r imap.LiteralReader, _ *imap.AppendOptions) (*imap.AppendData, error) {
	if name == inbox {
		return nil, cannot("Nothing can be appended to this INBOX")
	}
	_, err := io.Copy(io.Discard, r)
	return nil, err
}

// Copy swallows the messages, as Append does.
func (s *privateSession) Copy(_ imap.NumSet, dest string) (*imap.CopyData, error) {
	if dest == inbox {
		return nil, cannot("Nothing can be copied to this INBOX")
	}
	return nil, nil
}

func (s *privateSession) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	guard := s.conn.listener.guard // whose close waits until nothing is noted any more
	if !guard.enter() {
		return nil
	}
	defer guard.leave()
	if v := s.view.Load(); v != nil && v.box == s.private.inbox {
		s.private.setIdling(s, true)
		defer s.private.setIdling(s, false)
	}
	return s.selected.Idle(w, stop)
}

func (s *privateSession) Fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions) error {
	known := knowsBytes
	if s.private.cfg.Bot != nil {
		known = knowsStructure
	}
	hits, err := s.fetch(w, set, o, known)
	if s.view.Load().box == s.private.inbox {
		s.note(hits, o)
	}
	return err
}

func (s *privateSession) note(hits []hit, o *imap.FetchOptions) {
	whole := false
	for _, section := range o.BodySection {
		whole = whole || isWhole(section) || inside(section)
	}
	if len(o.BodySection) == 0 && !o.Envelope && o.BodyStructure == nil {
		return // flags or sizes only: the client has not looked at the mail
	}
	for _, h := range hits {
		s.private.fetched(h.msg.uid, whole)
	}
}

func (s *privateSession) Expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) error {
	v := s.view.Load()
	gone, err := v.expunge(w, uids)
	if v.box == s.private.inbox && len(gone) > 0 {
		s.private.deleted(gone)
	}
	return err
}

// Store notes that a bot is done with a mail which it marks as seen or deleted. Core marks only what it has fetched.
func (s *privateSession) Store(w *imapserver.FetchWriter, set imap.NumSet, f *imap.StoreFlags, o *imap.StoreOptions) error {
	v := s.view.Load()
	if s.private.cfg.Bot != nil && v.box == s.private.inbox && f.Op != imap.StoreFlagsDel && flagsOf(f.Flags)&(flagSeen|flagDeleted) != 0 {
		hits, err := v.find(set)
		if err != nil {
			return err
		}
		for _, h := range hits {
			s.private.fetched(h.msg.uid, true)
		}
	}
	return s.selected.Store(w, set, f, o)
}

// Search notes that a bot has looked at what it searched and did not find.
func (s *privateSession) Search(kind imapserver.NumKind, c *imap.SearchCriteria, o *imap.SearchOptions) (*imap.SearchData, error) {
	v := s.view.Load()
	data, err := s.selected.Search(kind, c, o)
	if err == nil && data.Count == 0 && s.private.cfg.Bot != nil && v.box == s.private.inbox {
		hits, err := v.find(imap.SeqSet{{Start: 1, Stop: 0}})
		if err != nil {
			return nil, err
		}
		for _, h := range hits {
			s.private.fetched(h.msg.uid, false)
		}
	}
	return data, err
}
