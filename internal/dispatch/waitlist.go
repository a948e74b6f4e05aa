package dispatch

import (
	"maps"
	"slices"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// maxWaiting bounds the mails of an INBOX that wait for budgets. With more, those behind them are not looked at.
const maxWaiting = 20_000

// waitlist remembers the mails of one INBOX that wait there for a budget, so that they are not fetched again before there is
// room for them, and that no later mail of the same address goes first.
type waitlist struct {
	validity uint32
	mails    map[uint32]waitingMail // by UID
	before   map[uint32]waitingMail // of the turn before, as far as this one has not come to them
	held     map[bot.Address]*overBudget
	contacts map[ledger.Subject]*overBudget // who has reached a limit
	added    map[string]int                 // mails that wait since this turn, by whose budget
	gaveUp   string                         // Message-ID of the mail at hand, which nobody announced in time
}

type waitingMail struct {
	from bot.Address
	over *overBudget
}

// begin begins a turn in an INBOX of a UIDVALIDITY.
func (w *waitlist) begin(validity uint32) {
	w.before = w.mails
	if w.validity != validity {
		w.before = nil
	}
	w.contacts = map[ledger.Subject]*overBudget{}
	w.validity, w.mails, w.held, w.added = validity, map[uint32]waitingMail{}, map[bot.Address]*overBudget{}, map[string]int{}
}

// end ends a turn. Where it has not come to the end of the INBOX, what was known of the rest still holds.
func (w *waitlist) end() {
	maps.Copy(w.mails, w.before)
	w.before = nil
}

// complete forgets what the turn has not met: it is no longer in the INBOX.
func (w *waitlist) complete() { w.before = nil }

// has reports what a mail still waits for, nil where it may be looked at.
func (w *waitlist) has(uid uint32, arrived func(messageID string) bool) *overBudget {
	m, ok := w.before[uid]
	delete(w.before, uid)
	w.gaveUp = ""
	switch {
	case !ok || m.over.announced != "" && arrived(m.over.announced):
		return nil
	case w.held[m.from] != nil || w.of(m.over.contact) != nil || m.over.wait() > 0:
		w.hold(uid, m)
		return m.over
	}
	w.gaveUp = m.over.announced
	return nil
}

// knows reports whether a mail was waiting before this turn.
func (w *waitlist) knows(uid uint32) bool {
	_, ok := w.before[uid]
	return ok
}

// release lets all mail that waits for a contact's sake, or claims to be from its address, be looked at again, and reports whether this
// turn has passed some of it.
func (w *waitlist) release(contact []ledger.Subject, from bot.Address) (passed bool) {
	of := func(m waitingMail) bool {
		return m.from == from || slices.ContainsFunc(contact, func(s ledger.Subject) bool { return slices.Contains(m.over.contact, s) })
	}
	waiting := len(w.mails)
	maps.DeleteFunc(w.mails, func(_ uint32, m waitingMail) bool { return of(m) })
	maps.DeleteFunc(w.before, func(_ uint32, m waitingMail) bool { return of(m) })
	for _, s := range contact {
		delete(w.contacts, s)
	}
	return len(w.mails) < waiting
}

// waited reports whether the mail at hand has waited for one that announces it, and long enough.
func (w *waitlist) waited(messageID string) bool { return w.gaveUp != "" && w.gaveUp == messageID }

// add remembers a mail that has to wait.
func (w *waitlist) add(uid uint32, from bot.Address, over *overBudget) {
	w.hold(uid, waitingMail{from, over})
	w.added[over.whose]++
}

func (w *waitlist) hold(uid uint32, m waitingMail) {
	w.mails[uid] = m
	for _, s := range m.over.contact {
		if w.contacts[s] == nil {
			w.contacts[s] = m.over
		}
	}
	if m.from != "" && m.over.limiter != nil && w.held[m.from] == nil {
		w.held[m.from] = m.over
	}
}

// of returns what earlier mail of a contact waits for, by its key or its address; nil where none does.
func (w *waitlist) of(contact []ledger.Subject) *overBudget {
	for _, s := range contact {
		if over := w.contacts[s]; over != nil {
			return over
		}
	}
	return nil
}

func (w *waitlist) full() bool { return len(w.mails) >= maxWaiting }

// awaits reports whether a mail waits for one that announces it.
func (w *waitlist) awaits(messageID string) bool {
	for _, all := range []map[uint32]waitingMail{w.mails, w.before} {
		for _, m := range all {
			if m.over.announced == messageID {
				return true
			}
		}
	}
	return false
}
