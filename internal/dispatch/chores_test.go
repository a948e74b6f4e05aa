package dispatch

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"mayfly/internal/session"
)

// What the operator wants is done between two mails, and a bot that is gone then gets no more of them.
func TestDoComesBetweenMails(t *testing.T) {
	b := newBench(t, one)
	for i, name := range valid {
		b.put(one, uint32(i+1), name)
	}
	started, goOn := make(chan bool, 9), make(chan bool)
	running := false
	b.sessions.run = func(session.Work) error {
		running = true
		started <- true
		<-goOn
		running = false
		return nil
	}
	b.Wake(b.ctx, one, WakeInbox)
	<-started
	time.AfterFunc(50*time.Millisecond, func() { close(goOn) })
	err := b.Do(b.ctx, t.Context(), one, func() {
		if running {
			t.Error("a session is under way")
		}
		if err := b.ledger.Remove(t.Context(), one); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Wake(b.ctx, one, WakeInbox)
	time.Sleep(100 * time.Millisecond)
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{1}) {
		t.Errorf("sessions for the UIDs %v, want 1 alone", got)
	}
}

// What cannot wait ends the session that is under way, and no other begins before it is done.
func TestDoNowEndsTheSession(t *testing.T) {
	b := newBench(t, one)
	b.opts.Backoff = time.Hour
	b.put(one, 1, valid[0])
	b.put(one, 2, valid[1])
	b.sessions.stuck = make(chan bool, 9)
	b.Wake(b.ctx, one, WakeInbox)
	<-b.sessions.stuck
	ended, err := b.DoNow(b.ctx, t.Context(), one, func() {
		if err := b.ledger.Remove(t.Context(), one); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !ended {
		t.Fatalf("ended: %v, %v", ended, err)
	}
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{1}) {
		t.Errorf("sessions for the UIDs %v, want 1 alone", got)
	}
	if ended, err := b.DoNow(b.ctx, t.Context(), one, func() {}); err != nil || ended {
		t.Errorf("ended again: %v, %v", ended, err)
	}
}

// A relay that is away does not keep the operator waiting, and the mails come after it.
func TestDoIsNotHeldUpByTheRelay(t *testing.T) {
	b := newBench(t, one)
	b.opts.Backoff = time.Hour
	b.put(one, 1, valid[0])
	b.inboxes[one].fail = errors.New("the relay is away")
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a failed turn", func() bool { return b.inboxes[one].count().closed > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	did := false
	if err := b.Do(b.ctx, ctx, one, func() { did = true }); err != nil || !did {
		t.Errorf("done: %v, %v", did, err)
	}
}

func TestDoOfABotThatWasNeverWoken(t *testing.T) {
	b := newBench(t, one)
	did := false
	if err := b.Do(b.ctx, t.Context(), one, func() { did = true }); err != nil || !did {
		t.Errorf("done: %v, %v", did, err)
	}
	b.stop()
	b.Wait()
	if err := b.Do(b.ctx, t.Context(), one, func() { t.Error("called after the end") }); !errors.Is(err, ErrEnded) {
		t.Errorf("after the end: %v", err)
	}
}

// The mail of a committed session is deleted, also when the host is told to end meanwhile.
func TestCommittedMailIsDeletedAtTheEnd(t *testing.T) {
	b := newBench(t, one)
	b.put(one, 1, valid[0])
	b.opts.Done = func(session.Outcome) { b.stop() }
	b.Wake(b.ctx, one, WakeInbox)
	<-b.ctx.Done()
	b.Wait()
	if left := b.inboxes[one].uids(); len(left) != 0 {
		t.Errorf("left in the INBOX: %v", left)
	}
}

// Mail of a paused bot stays where it is until it is resumed; a pause in the middle of many mails holds up those behind it.
func TestMailOfAPausedBotWaits(t *testing.T) {
	b := newBench(t, one)
	for i, name := range valid {
		b.put(one, uint32(i+1), name)
	}
	b.opts.Done = func(session.Outcome) {
		if len(b.sessions.uids()) == 2 {
			if err := b.ledger.Pause(t.Context(), one, "a test"); err != nil {
				t.Error(err)
			}
		}
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("two sessions", func() bool { return len(b.inboxes[one].uids()) == len(valid)-2 })
	b.Wake(b.ctx, one, WakeInbox)
	time.Sleep(100 * time.Millisecond)
	if got := b.sessions.uids(); len(got) != 2 || len(b.inboxes[one].uids()) != len(valid)-2 {
		t.Errorf("sessions %v, want 2", got)
	}
	if err := b.ledger.Resume(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
}
