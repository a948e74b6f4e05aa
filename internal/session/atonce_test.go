package session

import (
	"sync/atomic"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

// TestSayer: what is said at once is in the outbox, and told; what the ledger does not take is left for the commit.
func TestSayer(t *testing.T) {
	r, l, b, her := newSpeaker(t)
	job, err := l.Accept(t.Context(), ledger.Job{Bot: grumble, Cursor: ledger.Cursor{UIDValidity: 1, UID: 7}, Sender: her, From: ada})
	if err != nil {
		t.Fatal(err)
	}
	var told int
	var said atomic.Int32
	say := r.sayer(t.Context(), Work{Bot: b, Job: job, Said: func() { told++ }}, r.newSending(b), &said)
	mail := minirelay.Outgoing{From: grumble, To: []bot.Address{ada}, MessageID: "m@x", Data: []byte("x")}
	if !say(mail) || told != 1 || said.Load() != 1 {
		t.Errorf("told %d times, said %d", told, said.Load())
	}
	if err := l.Commit(t.Context(), ledger.Commit{Bot: grumble, Jobs: []int64{job.ID}, UIDNext: 2}); err != nil {
		t.Fatal(err)
	}
	if say(mail) || told != 1 || said.Load() != 1 {
		t.Errorf("after the commit: told %d times, said %d", told, said.Load())
	}
	if out, err := l.Outbox(t.Context(), grumble, 10); err != nil || len(out) != 1 {
		t.Errorf("in the outbox: %+v, %v", out, err)
	}
}
