package minirelay

import (
	"slices"
	"sync"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
)

// view is what one connection has been told of the mailbox that it has selected. Sequence numbers are positions in known,
// so that they change only when the client is told so. Locks are taken in the order view, store; the store's is never held
// while something is written to the client.
type view struct {
	store *store
	box   *box

	mu    sync.Mutex
	known []imap.UID // in ascending order
}

// hit is a message that a command has named, as it was at that moment.
type hit struct {
	seq   uint32
	msg   *message
	flags flags
}

// newView selects b.
func newView(s *store, b *box) (*view, *imap.SelectData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &view{store: s, box: b}
	data := &imap.SelectData{
		Flags:          flagsAll.list(),
		PermanentFlags: flagsAll.list(),
		NumMessages:    uint32(len(b.messages)),
		UIDNext:        b.uidNext,
		UIDValidity:    b.validity,
	}
	for i, m := range b.messages {
		v.known = append(v.known, m.uid)
		if data.FirstUnseenSeqNum == 0 && m.flags&flagSeen == 0 {
			data.FirstUnseenSeqNum = uint32(i) + 1
		}
	}
	return v, data
}

// poll tells the client what has come and, where the protocol permits it, what has gone.
func (v *view) poll(w *imapserver.UpdateWriter, allowExpunge bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	gone, come := v.news()
	if allowExpunge {
		if err := v.forgetLocked(gone, w.WriteExpunge); err != nil {
			return err
		}
	}
	if len(come) == 0 {
		return nil
	}
	v.known = append(v.known, come...)
	return w.WriteNumMessages(uint32(len(v.known)))
}

// news compares the mailbox with what is known.
func (v *view) news() (gone, come []imap.UID) {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	var last imap.UID
	for _, uid := range v.known {
		last = uid
		if v.box.findLocked(uid) == nil {
			gone = append(gone, uid)
		}
	}
	for i := len(v.box.messages) - 1; i >= 0 && v.box.messages[i].uid > last; i-- {
		come = append(come, v.box.messages[i].uid)
	}
	slices.Reverse(come)
	return gone, come
}

// forgetLocked takes uids out of what is known, telling the client of each by its sequence number, the highest first.
func (v *view) forgetLocked(uids []imap.UID, tell func(seq uint32) error) error {
	for _, uid := range slices.Backward(uids) {
		i, ok := slices.BinarySearch(v.known, uid)
		if !ok {
			continue
		}
		v.known = slices.Delete(v.known, i, i+1)
		if err := tell(uint32(i) + 1); err != nil {
			return err
		}
	}
	return nil
}

// idle polls at every change until stop is closed.
func (v *view) idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	for {
		changed := v.store.watch() // before the poll: what comes after it must not be missed
		if err := v.poll(w, true); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stop:
			return nil
		}
	}
}

// find returns the messages of set that the client knows of and that are still there.
func (v *view) find(set imap.NumSet) ([]hit, error) {
	if imap.IsSearchRes(set) {
		return nil, clientBug("SEARCHRES is not supported")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.findLocked(set), nil
}

func (v *view) findLocked(set imap.NumSet) []hit {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	var hits []hit
	for i, uid := range v.known {
		seq := uint32(i) + 1
		if set != nil && !v.contains(set, seq, uid) {
			continue
		}
		if m := v.box.findLocked(uid); m != nil {
			hits = append(hits, hit{seq: seq, msg: m, flags: m.flags})
		}
	}
	return hits
}

// contains resolves "*", which go-imap gives as 0, to the last message that the client knows of.
func (v *view) contains(set imap.NumSet, seq uint32, uid imap.UID) bool {
	switch set := set.(type) {
	case imap.SeqSet:
		last := uint32(len(v.known))
		return slices.ContainsFunc(set, func(r imap.SeqRange) bool { return inRange(seq, r.Start, r.Stop, last) })
	case imap.UIDSet:
		last := uint32(v.known[len(v.known)-1])
		return slices.ContainsFunc(set, func(r imap.UIDRange) bool {
			return inRange(uint32(uid), uint32(r.Start), uint32(r.Stop), last)
		})
	}
	return false
}

func inRange(n, start, stop, last uint32) bool {
	if start == 0 {
		start = last
	}
	if stop == 0 {
		stop = last
	}
	return min(start, stop) <= n && n <= max(start, stop)
}

// change applies STORE to the hits and refreshes their flags.
func (v *view) change(hits []hit, op imap.StoreFlagsOp, f flags) {
	v.store.mu.Lock()
	defer v.store.mu.Unlock()
	for i := range hits {
		m := hits[i].msg
		switch op {
		case imap.StoreFlagsSet:
			m.flags = f
		case imap.StoreFlagsAdd:
			m.flags |= f
		case imap.StoreFlagsDel:
			m.flags &^= f
		}
		hits[i].flags = m.flags
	}
}

// expunge removes the messages marked \Deleted, of uids if that is not nil, and reports which.
func (v *view) expunge(w *imapserver.ExpungeWriter, uids *imap.UIDSet) ([]imap.UID, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var set imap.NumSet
	if uids != nil {
		set = *uids
	}
	var gone []imap.UID
	for _, h := range v.findLocked(set) {
		if h.flags&flagDeleted != 0 {
			gone = append(gone, h.msg.uid)
		}
	}
	return gone, v.removeLocked(gone, w.WriteExpunge)
}

func (v *view) removeLocked(uids []imap.UID, tell func(seq uint32) error) error {
	v.store.mu.Lock()
	v.store.expungeLocked(v.box, uids)
	v.store.mu.Unlock()
	return v.forgetLocked(uids, tell)
}

// remove takes uids out of the mailbox, whatever their flags.
func (v *view) remove(uids []imap.UID, tell func(seq uint32) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.removeLocked(uids, tell)
}
