package session

import (
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gateway"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

const bob = bot.Address("bob@chat.test")

func mailTo(size int, to ...bot.Address) minirelay.Outgoing {
	return minirelay.Outgoing{From: grumble, To: to, Data: make([]byte, size)}
}

// say commits a session that sends mails.
func say(t *testing.T, l *ledger.Ledger, mails ...minirelay.Outgoing) {
	t.Helper()
	b, err := l.Bot(t.Context(), grumble)
	if err != nil {
		t.Fatal(err)
	}
	c := ledger.Commit{Bot: grumble, UIDNext: b.UIDNext}
	for _, m := range mails {
		c.Outgoing = append(c.Outgoing, ledger.Outgoing{To: m.To, Path: "x", Size: int64(len(m.Data))})
	}
	if err := l.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// Each limit of sending holds by itself, with what was sent within the last hour; what is refused takes nothing, and is told with the time
// when there is room.
func TestQuota(t *testing.T) {
	for name, c := range map[string]struct {
		limits bot.Sending
		words  string
	}{
		"the bot's mails":     {bot.Sending{Mails: 4}, "4 mails an hour"},
		"the bot's bytes":     {bot.Sending{Bytes: 449}, "449B an hour"},
		"the contact's mails": {bot.Sending{MailsPerContact: 3}, "3 mails an hour to one contact"},
		"the contact's bytes": {bot.Sending{BytesPerContact: 300}, "300B an hour to one contact"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, l, b, _ := newSpeaker(t)
				r.Limits.Sending = c.limits
				say(t, l, mailTo(100, ada))
				time.Sleep(10 * time.Minute)
				s := r.newSending(b)
				both := []string{string(ada), string(bob)}
				if err := s.Take(t.Context(), both, 1, 100); err != nil {
					t.Fatal(err)
				}
				if err := s.Take(t.Context(), []string{string(ada)}, 1, 100); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					err := s.Take(t.Context(), both[:1], 1, 101)
					var over *gateway.Over
					if !errors.As(err, &over) || over.Limit != c.words || over.Until.Before(time.Now().Add(49*time.Minute)) || over.Until.After(time.Now().Add(time.Hour)) {
						t.Errorf("%v %+v", err, over)
					}
				}
				if err := s.Take(t.Context(), both, 1, 50); (err == nil) != (c.limits.MailsPerContact+int(c.limits.BytesPerContact) > 0) {
					t.Errorf("to another who has room: %v", err)
				}
				time.Sleep(51 * time.Minute)
				if err := r.newSending(b).Take(t.Context(), both, 1, 101); err != nil {
					t.Errorf("an hour later: %v", err)
				}
				b.Manifest.Sending = bot.Sending{Mails: 1}
				if err := r.newSending(b).Take(t.Context(), both, 1, 101); err == nil {
					t.Error("the manifest's lower limit does not hold")
				}
			})
		})
	}
}

// The envelopes of what core submits are counted by themselves: recipients for whom there is no room are left out, in order, and mails
// for whom none is left; the others are sent.
func TestStrip(t *testing.T) {
	r, l, b, _ := newSpeaker(t)
	r.Limits.Sending = bot.Sending{MailsPerContact: 2, Mails: 4}
	say(t, l, mailTo(1, ada))
	s := r.newSending(b)
	if err := s.Take(t.Context(), []string{string(ada)}, 1, 1); err != nil { // the call of the first mail, which is not counted twice
		t.Fatal(err)
	}
	s.Missed("50 messages in one run", 3)
	got, err := s.strip(t.Context(), []minirelay.Outgoing{mailTo(1, ada), mailTo(2, ada, bob), mailTo(3, ada), mailTo(4, bob), mailTo(5, "carol@chat.test")})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for _, m := range got {
		sizes = append(sizes, len(m.Data))
	}
	if !slices.Equal(sizes, []int{1, 2, 4}) || !slices.Equal(got[1].To, []bot.Address{bob}) {
		t.Errorf("%v, the second to %v", sizes, got[1].To)
	}
	want := map[string]int{"2 mails an hour to one contact": 3, "4 mails an hour": 2, "50 messages in one run": 3}
	if unsent := s.unsent(map[string]int{"4 mails an hour": 1, "2 mails an hour to one contact": 1}); !maps.Equal(unsent, want) {
		t.Errorf("unsent %v, want %v", unsent, want)
	}
}

// What is said at once is counted likewise, each mail as it comes.
func TestSayerStrips(t *testing.T) {
	r, l, b, her := newSpeaker(t)
	r.Limits.Sending = bot.Sending{MailsPerContact: 2}
	job, err := l.Accept(t.Context(), ledger.Job{Bot: grumble, Cursor: ledger.Cursor{UIDValidity: 1, UID: 7}, Sender: her, From: ada})
	if err != nil {
		t.Fatal(err)
	}
	var said atomic.Int32
	s := r.newSending(b)
	say := r.sayer(t.Context(), Work{Bot: b, Job: job}, s, &said)
	for i := range 5 {
		if !say(mailTo(1, ada)) {
			t.Errorf("mail %d waits for the end", i)
		}
	}
	if out, err := l.Outbox(t.Context(), grumble, 10); err != nil || len(out) != 2 || said.Load() != 2 || s.missed["2 mails an hour to one contact"] != 3 {
		t.Errorf("in the outbox %d, said %d, missed %v, %v", len(out), said.Load(), s.missed, err)
	}
}
