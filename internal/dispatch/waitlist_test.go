package dispatch

import (
	"testing"
	"time"

	"mayfly/internal/bot"
)

func never(string) bool { return false }

// TestAFileWaitsForItsText looks at a second mail before its first has come, when it has come, and when the minute is over.
func TestAFileWaitsForItsText(t *testing.T) {
	var w waitlist
	w.begin(1)
	w.add(7, "ada@x", &overBudget{need: need{whose: "first part"}, until: time.Now().Add(time.Hour), announced: "id"})
	w.complete()
	if !w.awaits("id") || w.awaits("another") {
		t.Error("it is not known for what the mail waits")
	}
	w.begin(1)
	if over := w.has(7, never); over == nil || w.waited("id") {
		t.Errorf("before the first has come: %v", over)
	}
	if len(w.held) != 0 {
		t.Error("it holds up other mail of its address")
	}
	w.complete()
	w.begin(1)
	if over := w.has(7, func(id string) bool { return id == "id" }); over != nil || w.waited("id") {
		t.Errorf("when the first has come: %v", over)
	}
	w.add(7, "ada@x", &overBudget{need: need{whose: "first part"}, until: time.Now(), announced: "id"})
	w.complete()
	w.begin(1)
	if over := w.has(7, never); over != nil || !w.waited("id") || w.waited("another") {
		t.Errorf("when the time is over: %v", over)
	}
}

// TestTheWaitlistIsOfOneInbox: it forgets what is gone and what another UIDVALIDITY makes of the UIDs, and nothing else.
func TestTheWaitlistIsOfOneInbox(t *testing.T) {
	later := func() *overBudget { return &overBudget{until: time.Now().Add(time.Hour)} }
	fill := func() *waitlist {
		w := &waitlist{}
		w.begin(1)
		for uid := range uint32(3) {
			w.add(uid, bot.Address("ada@x"), later())
		}
		w.complete()
		return w
	}
	w := fill()
	w.begin(1)
	w.has(1, never)
	w.end() // the relay went away behind the second
	if len(w.mails) != 3 {
		t.Errorf("after half a turn %d mails wait, want 3", len(w.mails))
	}
	w.begin(1)
	w.has(1, never)
	w.complete()
	w.end()
	if len(w.mails) != 1 {
		t.Errorf("of 3 mails one is still there, %d wait", len(w.mails))
	}
	w = fill()
	w.begin(2)
	if w.has(1, never) != nil {
		t.Error("a mail waits in an INBOX of another UIDVALIDITY")
	}
}

// TestLaterMailOfAnAddressIsHeld: there is room for the second mail of an address, and none yet for its first.
func TestLaterMailOfAnAddressIsHeld(t *testing.T) {
	none, room := Rate{1, 1}.limiter(), Rate{1, 1}.limiter()
	none.Allow()
	var w waitlist
	w.begin(1)
	w.add(1, "ada@x", &overBudget{need: need{"bot", none, 1}})
	w.add(2, "ada@x", &overBudget{need: need{"sender", room, 1}})
	w.add(3, "bob@x", &overBudget{need: need{"sender", room, 1}})
	w.complete()
	w.begin(1)
	if w.has(1, never) == nil || w.has(2, never) == nil || w.has(3, never) != nil {
		t.Error("want the first two to wait, and the other's not")
	}
}
