package minirelay

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// relaySession is one IMAP connection to a Relay.
type relaySession struct {
	*selected
	relay   *Relay
	account *account // set by Login
}

var (
	_ imapserver.SessionMove        = (*relaySession)(nil)
	_ imapserver.SessionNamespace   = (*relaySession)(nil)
	_ imapserver.SessionAppendLimit = (*relaySession)(nil)
)

func (r *Relay) newSession(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
	return &relaySession{selected: newSelected(c), relay: r}, nil, nil
}

func (s *relaySession) Close() error { return nil }

func (s *relaySession) Login(user, password string) error {
	if s.account = s.relay.login(user, password); s.account == nil {
		return imapserver.ErrAuthFailed
	}
	return nil
}

func (s *relaySession) box(name string, code imap.ResponseCode) (*box, error) {
	b, err := s.account.store.box(name)
	if err != nil {
		return nil, no(code, "No such mailbox")
	}
	return b, nil
}

func (s *relaySession) Select(name string, _ *imap.SelectOptions) (*imap.SelectData, error) {
	b, err := s.box(name, imap.ResponseCodeNonExistent)
	if err != nil {
		return nil, err
	}
	return s.open(s.account.store, b), nil
}

func (s *relaySession) Status(name string, _ *imap.StatusOptions) (*imap.StatusData, error) {
	b, err := s.box(name, imap.ResponseCodeNonExistent)
	if err != nil {
		return nil, err
	}
	return s.account.store.status(b), nil
}

func (s *relaySession) List(w *imapserver.ListWriter, ref string, patterns []string, o *imap.ListOptions) error {
	delimiter := s.relay.cfg.Delimiter
	if len(patterns) == 0 || len(patterns) == 1 && patterns[0] == "" { // asks for the delimiter (RFC 9051, section 6.3.9)
		return w.WriteList(&imap.ListData{Attrs: []imap.MailboxAttr{imap.MailboxAttrNoSelect}, Delim: rune(delimiter[0])})
	}
	for _, b := range s.account.store.list() {
		data, subscribed := s.account.store.listData(b, delimiter, o.ReturnStatus != nil)
		if o.SelectSubscribed && !subscribed || !matchesAny(data.Mailbox, delimiter, ref, patterns) {
			continue
		}
		if err := w.WriteList(data); err != nil {
			return err
		}
	}
	return nil
}

func matchesAny(name, delimiter, ref string, patterns []string) bool {
	for _, pattern := range patterns {
		if matchList(name, delimiter, ref, pattern) {
			return true
		}
	}
	return false
}

func (s *relaySession) Namespace() (*imap.NamespaceData, error) {
	return &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: rune(s.relay.cfg.Delimiter[0])}}}, nil
}

func (s *relaySession) Create(name string, _ *imap.CreateOptions) error {
	name, err := s.newName(name)
	if err != nil {
		return err
	}
	if len(s.account.store.list()) >= maxMailboxes {
		return no(imap.ResponseCodeOverQuota, "Too many mailboxes")
	}
	if _, ok := s.account.store.create(name, 1); !ok {
		return no(imap.ResponseCodeAlreadyExists, "Mailbox already exists")
	}
	s.relay.tell(s.account, name, 0)
	return nil
}

// newName checks the name of a mailbox to be made. A delimiter at its end only says that more will be made below it.
func (s *relaySession) newName(name string) (string, error) {
	delimiter := s.relay.cfg.Delimiter
	name = strings.TrimSuffix(name, delimiter)
	control := strings.ContainsFunc(name, unicode.IsControl)
	if name == "" || len(name) > maxMailboxName || control || strings.HasPrefix(name, delimiter) ||
		strings.Contains(name, delimiter+delimiter) {
		return "", cannot("Not a name for a mailbox")
	}
	return name, nil
}

func (s *relaySession) Delete(name string) error {
	if name == inbox {
		return cannot("INBOX cannot be deleted")
	}
	if !s.account.store.remove(name) {
		return no(imap.ResponseCodeNonExistent, "No such mailbox")
	}
	s.relay.tell(s.account, name, 0)
	return nil
}

func (s *relaySession) Rename(from, to string, _ *imap.RenameOptions) error {
	to, err := s.newName(to)
	if err != nil {
		return err
	}
	if from == inbox || to == inbox || strings.HasPrefix(to, from+s.relay.cfg.Delimiter) {
		return cannot("This mailbox cannot be renamed so")
	}
	if _, err := s.box(from, imap.ResponseCodeNonExistent); err != nil {
		return err
	}
	if !s.account.store.rename(from, to, s.relay.cfg.Delimiter) {
		return no(imap.ResponseCodeAlreadyExists, "Mailbox already exists")
	}
	s.relay.tell(s.account, from, 0)
	s.relay.tell(s.account, to, 0)
	return nil
}

func (s *relaySession) Subscribe(name string) error   { return s.subscribe(name, true) }
func (s *relaySession) Unsubscribe(name string) error { return s.subscribe(name, false) }

func (s *relaySession) subscribe(name string, on bool) error {
	b, err := s.box(name, imap.ResponseCodeNonExistent)
	if err != nil {
		return err
	}
	s.account.store.subscribe(b, on)
	return nil
}

// AppendLimit is told to the client as APPENDLIMIT (RFC 7889).
func (s *relaySession) AppendLimit() uint32 { return uint32(s.relay.cfg.MaxMail) }

func (s *relaySession) Append(name string, r imap.LiteralReader, o *imap.AppendOptions) (*imap.AppendData, error) {
	b, err := s.box(name, imap.ResponseCodeTryCreate)
	if err != nil {
		return nil, err
	}
	if !s.account.store.hasRoom(int(r.Size())) {
		return nil, no(imap.ResponseCodeOverQuota, "The mailbox is full")
	}
	var data bytes.Buffer
	if _, err := io.Copy(&data, r); err != nil {
		return nil, err
	}
	date := o.Time
	if date.IsZero() {
		date = time.Now()
	}
	uid, err := s.put(b, name, data.Bytes(), date, flagsOf(o.Flags))
	if err != nil {
		return nil, err
	}
	return &imap.AppendData{UID: uid, UIDValidity: b.validity}, nil
}

func (s *relaySession) put(b *box, name string, data []byte, date time.Time, f flags) (imap.UID, error) {
	uid, err := s.account.store.add(b, data, date, f)
	if errors.Is(err, errQuota) {
		return 0, no(imap.ResponseCodeOverQuota, "The mailbox is full")
	}
	if err == nil {
		s.relay.tell(s.account, name, uid)
	}
	return uid, err
}

func (s *relaySession) Fetch(w *imapserver.FetchWriter, set imap.NumSet, o *imap.FetchOptions) error {
	_, err := s.fetch(w, set, o, knowsMIME)
	return err
}

// Copy answers COPY and UID COPY.
func (s *relaySession) Copy(set imap.NumSet, dest string) (*imap.CopyData, error) {
	b, err := s.box(dest, imap.ResponseCodeTryCreate)
	if err != nil {
		return nil, err
	}
	hits, err := s.view.Load().find(set)
	if err != nil {
		return nil, err
	}
	return s.copyTo(b, dest, hits)
}

// copyTo returns nil if there was nothing to copy.
func (s *relaySession) copyTo(b *box, dest string, hits []hit) (*imap.CopyData, error) {
	if len(hits) == 0 {
		return nil, nil
	}
	data := &imap.CopyData{UIDValidity: b.validity}
	for _, h := range hits {
		uid, err := s.put(b, dest, h.msg.data, h.msg.date, h.flags)
		if err != nil {
			return nil, err
		}
		data.SourceUIDs.AddNum(h.msg.uid)
		data.DestUIDs.AddNum(uid)
	}
	return data, nil
}

// Move answers MOVE and UID MOVE (RFC 6851).
func (s *relaySession) Move(w *imapserver.MoveWriter, set imap.NumSet, dest string) error {
	b, err := s.box(dest, imap.ResponseCodeTryCreate)
	if err != nil {
		return err
	}
	v := s.view.Load()
	hits, err := v.find(set)
	if err != nil {
		return err
	}
	data, err := s.copyTo(b, dest, hits)
	if err != nil || data == nil {
		return err
	}
	if err := w.WriteCopyData(data); err != nil {
		return err
	}
	var uids []imap.UID
	for _, h := range hits {
		uids = append(uids, h.msg.uid)
	}
	return v.remove(uids, w.WriteExpunge)
}
