package minirelay

import (
	"errors"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
)

const inbox = "INBOX"

var (
	errQuota     = errors.New("minirelay: the mailbox is full")
	errNoMailbox = errors.New("minirelay: no such mailbox")
)

// store holds the mailboxes of one account. Its mutex guards everything below it.
type store struct {
	mu       sync.Mutex
	boxes    map[string]*box
	validity uint32 // UIDVALIDITY of the next mailbox to be made
	quota    int64  // bytes of all mailboxes, messageOverhead for each message included; 0 means no bound
	used     int64
	changed  chan struct{} // closed, and replaced, when a message has come or gone
}

// messageOverhead is added to a message's size, so that empty messages cost something, too.
const messageOverhead = 1 << 10

type box struct {
	name       string
	validity   uint32
	uidNext    imap.UID
	messages   []*message // in the order of their UIDs
	subscribed bool
}

// message is immutable but for flags, once it was announced.
type message struct {
	uid   imap.UID
	date  time.Time
	data  []byte
	flags flags

	structure func() *structured // of data that is of our own making, once; nil otherwise
}

func newStore(validity uint32, quota int64) *store {
	return &store{boxes: make(map[string]*box), validity: validity, quota: quota, changed: make(chan struct{})}
}

// watch returns a channel that is closed at the next change.
func (s *store) watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *store) announceLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// create makes an empty mailbox whose first UID will be uidNext.
func (s *store) create(name string, uidNext imap.UID) (*box, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boxes[name] != nil {
		return nil, false
	}
	b := &box{name: name, validity: s.validity, uidNext: uidNext}
	s.validity++ // a mailbox that is made again under its old name must not have its old UIDVALIDITY
	s.boxes[name] = b
	return b, true
}

func (s *store) box(name string) (*box, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.boxes[name]; b != nil {
		return b, nil
	}
	return nil, errNoMailbox
}

// remove deletes a mailbox with all that is in it.
func (s *store) remove(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[name]
	if b == nil {
		return false
	}
	delete(s.boxes, name)
	for _, m := range b.messages {
		s.used -= m.cost()
	}
	b.messages = nil
	s.announceLocked()
	return true
}

// rename moves a mailbox and those below it, which delimiter separates. It refuses when a name is taken.
func (s *store) rename(from, to, delimiter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	moved := make(map[string]string)
	for name := range s.boxes {
		if rest, below := strings.CutPrefix(name, from+delimiter); below {
			moved[name] = to + delimiter + rest
		}
	}
	moved[from] = to
	for _, name := range moved {
		if s.boxes[name] != nil {
			return false
		}
	}
	for old, name := range moved {
		if b := s.boxes[old]; b != nil {
			delete(s.boxes, old)
			b.name = name
			s.boxes[name] = b
		}
	}
	return true
}

// list returns the mailboxes in the order of their names.
func (s *store) list() []*box {
	s.mu.Lock()
	defer s.mu.Unlock()
	boxes := make([]*box, 0, len(s.boxes))
	for _, b := range s.boxes {
		boxes = append(boxes, b)
	}
	sort.Slice(boxes, func(i, j int) bool { return boxes[i].name < boxes[j].name })
	return boxes
}

// hasRoom says whether size more bytes fit into the quota.
func (s *store) hasRoom(size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hasRoomLocked(size)
}

func (s *store) hasRoomLocked(size int) bool {
	return s.quota == 0 || s.used+int64(size)+messageOverhead <= s.quota
}

// add appends a message, which it owns from now on, and mints its UID.
func (s *store) add(b *box, data []byte, date time.Time, f flags) (imap.UID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hasRoomLocked(len(data)) {
		return 0, errQuota
	}
	return s.addLocked(b, data, date, f), nil
}

func (s *store) addLocked(b *box, data []byte, date time.Time, f flags) imap.UID {
	m := &message{uid: b.uidNext, date: date, data: data, flags: f}
	b.uidNext++
	b.messages = append(b.messages, m)
	s.used += m.cost()
	s.announceLocked()
	return m.uid
}

// setStructure has a message taken apart when a client asks for its parts.
func (s *store) setStructure(b *box, uid imap.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := b.findLocked(uid); m != nil {
		m.structure = sync.OnceValue(func() *structured { return structure(m.data) })
	}
}

// renew gives a message a new UID, as if it had come at date. It says false when the message is gone.
func (s *store) renew(b *box, uid imap.UID, date time.Time) (imap.UID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := b.findLocked(uid)
	if m == nil {
		return 0, false
	}
	s.expungeLocked(b, []imap.UID{uid})
	fresh := s.addLocked(b, m.data, date, m.flags)
	b.findLocked(fresh).structure = m.structure
	return fresh, true
}

// expungeLocked takes the messages with these UIDs, in ascending order, out of b.
func (s *store) expungeLocked(b *box, uids []imap.UID) {
	if len(uids) == 0 {
		return
	}
	kept := make([]*message, 0, len(b.messages))
	for _, m := range b.messages {
		if len(uids) > 0 && uids[0] == m.uid {
			uids = uids[1:]
			s.used -= m.cost()
			continue
		}
		kept = append(kept, m)
	}
	b.messages = kept
	s.announceLocked()
}

// status answers STATUS for b.
func (s *store) status(b *box) *imap.StatusData {
	s.mu.Lock()
	defer s.mu.Unlock()
	var total, unseen, deleted, recent uint32
	var size int64
	for _, m := range b.messages {
		total++
		size += int64(len(m.data))
		if m.flags&flagSeen == 0 {
			unseen++
		}
		if m.flags&flagDeleted != 0 {
			deleted++
		}
	}
	var reclaimable int64
	return &imap.StatusData{
		Mailbox: b.name, UIDNext: b.uidNext, UIDValidity: b.validity,
		NumMessages: &total, NumUnseen: &unseen, NumDeleted: &deleted, NumRecent: &recent,
		Size: &size, DeletedStorage: &reclaimable,
	}
}

func (b *box) findLocked(uid imap.UID) *message {
	i := sort.Search(len(b.messages), func(i int) bool { return b.messages[i].uid >= uid })
	if i < len(b.messages) && b.messages[i].uid == uid {
		return b.messages[i]
	}
	return nil
}

func (m *message) cost() int64 { return int64(len(m.data)) + messageOverhead }

// flags is a set of the system flags of RFC 3501, section 2.3.2. Nothing else is kept.
type flags uint8

const (
	flagAnswered flags = 1 << iota
	flagFlagged
	flagDeleted
	flagSeen
	flagDraft
	flagsAll = flagAnswered | flagFlagged | flagDeleted | flagSeen | flagDraft
)

func flagBit(f imap.Flag) flags {
	switch strings.ToLower(string(f)) {
	case `\answered`:
		return flagAnswered
	case `\flagged`:
		return flagFlagged
	case `\deleted`:
		return flagDeleted
	case `\seen`:
		return flagSeen
	case `\draft`:
		return flagDraft
	}
	return 0
}

func flagsOf(list []imap.Flag) flags {
	var f flags
	for _, name := range list {
		f |= flagBit(name)
	}
	return f
}

func (f flags) list() []imap.Flag {
	list := []imap.Flag{}
	for _, name := range []imap.Flag{imap.FlagAnswered, imap.FlagFlagged, imap.FlagDeleted, imap.FlagSeen, imap.FlagDraft} {
		if f&flagBit(name) != 0 {
			list = append(list, name)
		}
	}
	return list
}

// listData answers LIST for b.
func (s *store) listData(b *box, delimiter string, withStatus bool) (data *imap.ListData, subscribed bool) {
	s.mu.Lock()
	data = &imap.ListData{Mailbox: b.name, Delim: rune(delimiter[0])}
	subscribed = b.subscribed
	s.mu.Unlock()
	if subscribed {
		data.Attrs = append(data.Attrs, imap.MailboxAttrSubscribed)
	}
	if withStatus {
		data.Status = s.status(b)
	}
	return data, subscribed
}

func (s *store) subscribe(b *box, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.subscribed = on
}
