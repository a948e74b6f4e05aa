package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/session"
)

// batches runs sessions that take all that they get, and commit it, or do what end says.
type batches struct {
	*sessions
	used session.Used // of each mail
	end  func(all []session.Work) error

	mu  sync.Mutex
	ran [][]uint32 // the UIDs of each session
}

func (s *batches) Run(ctx context.Context, w session.Work) (session.Outcome, error) {
	all := []session.Work{w}
	used := s.used
	for w.Next != nil {
		next, ok := w.Next(ctx, used)
		if !ok {
			break
		}
		all = append(all, next)
		used = session.Used{CPU: used.CPU + s.used.CPU, Wall: used.Wall + s.used.Wall, Sent: used.Sent + s.used.Sent, Bytes: used.Bytes + s.used.Bytes}
	}
	var uids []uint32
	var commits []ledger.Commit
	var done []session.Outcome
	for _, w := range all {
		uids = append(uids, w.Job.Cursor.UID)
		commits = append(commits, ledger.Commit{
			Bot: w.Bot.Address, Jobs: []int64{w.Job.ID}, Account: w.Bot.Account + 1, UIDNext: w.Bot.UIDNext + 1, State: w.Bot.State,
			Consent: w.Job.Sender, ConsentFrom: w.Job.From, Run: &bot.RunRecord{Status: bot.RunOK}, Started: time.Now(), Ended: time.Now(),
		})
		done = append(done, session.Outcome{Bot: w.Bot.Address, Job: w.Job.ID})
	}
	s.mu.Lock()
	s.ran = append(s.ran, uids)
	s.mu.Unlock()
	if s.end != nil {
		if err := s.end(all); err != nil {
			return session.Outcome{}, err
		}
	}
	if err := s.ledger.Commit(ctx, commits...); err != nil {
		return session.Outcome{}, err
	}
	done[0].More = done[1:]
	return done[0], nil
}

func (s *batches) sessionsOf() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.ran)
}

func newBatches(t *testing.T) (*bench, *batches) {
	b := newBench(t, one)
	s := &batches{sessions: b.sessions}
	b.opts.Sessions = s
	return b, s
}

// workOff has texts of the contact wait, and returns the sessions in which they were worked off.
func (b *bench) workOff(s *batches, texts ...string) string {
	b.t.Helper()
	for i, text := range texts {
		b.say(one, uint32(i+1), text)
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	return s.sessionsOf()
}

func TestASessionTakesWhatWaits(t *testing.T) {
	for _, test := range []struct {
		name  string
		set   func(b *bench, s *batches)
		texts []string
		want  string
	}{
		{"all", nil, []string{"a", "b", "c"}, "[[1 2 3]]"},
		{"not more than eight", nil, slices.Repeat([]string{"a"}, 10), "[[1 2 3 4 5 6 7 8] [9 10]]"},
		{"not a command of the host's", nil, []string{"a", "b", "/about", "c", "d"}, "[[1 2] [4 5]]"},
		{"nor what is after it", nil, []string{"a", "/stop", "b"}, "[[1]]"},
		{"none where too much was sent", func(_ *bench, s *batches) { s.used.Bytes = severalBytes }, []string{"a", "b"}, "[[1] [2]]"},
		{"none for which there is no memory", func(b *bench, _ *batches) {
			b.opts.Memory, b.held = 64<<10, semaphore.NewWeighted(64<<10)
		}, []string{"a", "b"}, "[[1] [2]]"},
		{"none for which the account has no room", func(_ *bench, s *batches) { s.room = 1100 << 10 }, []string{"a", "b"}, "[[1] [2]]"},
		{"none for a bot that replies at once", func(b *bench, _ *batches) {
			must(b.t, b.ledger.Install(b.ctx, ledger.Bot{Address: one, Account: 1, Manifest: bot.Manifest{AtOnce: true}}))
		}, []string{"a", "b"}, "[[1] [2]]"},
		{"none over the contact's time", func(b *bench, s *batches) {
			b.opts.Limits.PerUser.SecondsPerHour, s.used.Wall = 10, 4*time.Second
		}, []string{"a", "b", "c", "d", "e"}, "[[1 2 3] [4 5]]"},
		{"none over the bot's CPU time", func(b *bench, s *batches) {
			b.opts.Limits.CPUPerHour, s.used.CPU = 3*time.Second, time.Second
		}, []string{"a", "b", "c", "d", "e"}, "[[1 2 3] [4 5]]"},
		{"none over what it may send", func(b *bench, s *batches) {
			b.opts.Limits.Sending.Mails, s.used.Sent = 4, 2
		}, []string{"a", "b", "c"}, "[[1 2] [3]]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b, s := newBatches(t)
			if test.set != nil {
				test.set(b, s)
			}
			if got := b.workOff(s, test.texts...); got != test.want {
				t.Errorf("sessions of the mails %s, want %s", got, test.want)
			}
		})
	}
}

// TestMailOfStrangersHasASessionOfItsOwn: what core learns from a mail may change what the gate says of the next.
func TestMailOfStrangersHasASessionOfItsOwn(t *testing.T) {
	b, s := newBatches(t)
	state := bot.AccountState{Readable: true, PublicKeys: [][]byte{public(t, "user2-secret.asc")}, AuthTokens: []string{"mtlmg9S1NgHae8FVqCbg9M2N"}}
	must(t, b.ledger.Install(t.Context(), ledger.Bot{Address: one, Account: 2, State: state}))
	b.put(one, 1, valid[0])
	b.put(one, 2, "eml/1-vc-request-pubkey.user.eml")
	b.put(one, 3, valid[1])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	if got := s.sessionsOf(); got != "[[1] [2] [3]]" {
		t.Errorf("sessions of the mails %s", got)
	}
}

// TestOthersWaitForNoMoreThanASecond: where another bot wants a slot, a session takes no mail after a second.
func TestOthersWaitForNoMoreThanASecond(t *testing.T) {
	b, _ := newBatches(t)
	b.opts.Slots = NewSlots(1, 0)
	a := b.newActor(one)
	s := &several{a: a, jobs: make([]ledger.Job, 1), began: time.Now().Add(-2 * time.Second)}
	if !s.goesOn(mailbox.Message{UID: 1, Size: 1}, session.Used{}) {
		t.Error("nobody waits, and the session does not go on")
	}
	in, out := make(chan bool), make(chan bool)
	go b.opts.Slots.Do(t.Context(), one, 1, func() error { in <- true; <-out; return nil })
	<-in
	go b.opts.Slots.Do(t.Context(), "other0001@chat.test", 1, func() error { out <- true; return nil })
	b.await("somebody to wait", b.opts.Slots.wanted)
	if s.goesOn(mailbox.Message{UID: 1, Size: 1}, session.Used{}) {
		t.Error("the session goes on beyond its share")
	}
	s.began = time.Now()
	if !s.goesOn(mailbox.Message{UID: 1, Size: 1}, session.Used{}) {
		t.Error("the session does not go on within its share")
	}
	s.began = time.Now().Add(-11 * time.Second)
	out <- true
	<-out
	if s.goesOn(mailbox.Message{UID: 1, Size: 1}, session.Used{}) {
		t.Error("the session goes on for ever")
	}
}

// TestAnUndoneSessionIsDoneMailByMail: nothing counts against its mails, and later ones have sessions of their own for a while.
func TestAnUndoneSessionIsDoneMailByMail(t *testing.T) {
	for _, failed := range []bool{true, false} {
		b, s := newBatches(t)
		s.end = func(all []session.Work) error {
			if len(all) == 1 {
				return nil
			}
			return &session.Undone{Cause: errors.New("the third failed"), Failed: failed, CPU: time.Second}
		}
		if got := b.workOff(s, "a", "b", "c"); got != "[[1 2 3] [1] [2] [3]]" {
			t.Errorf("sessions of the mails %s", got)
		}
		jobs, err := b.ledger.Jobs(t.Context(), one, ledger.JobCleared)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs {
			if j.Attempts != 1 {
				t.Errorf("%d attempts of %d", j.Attempts, j.ID)
			}
		}
		used, err := b.ledger.Used(t.Context(), one, ledger.WholeBot, ledger.CPU, time.Hour)
		if err != nil || used != time.Second.Microseconds() {
			t.Errorf("%d µs of CPU time were used, %v", used, err)
		}
		b.say(one, 4, "d")
		b.say(one, 5, "e")
		b.Wake(b.ctx, one, WakeInbox)
		b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
		if got := s.sessionsOf(); got != "[[1 2 3] [1] [2] [3] [4] [5]]" {
			t.Errorf("afterwards, sessions of the mails %s", got)
		}
	}
}

// TestAMailThatWasTriedHasASessionOfItsOwn is the start after a death in a session of several mails.
func TestAMailThatWasTriedHasASessionOfItsOwn(t *testing.T) {
	b, s := newBatches(t)
	b.say(one, 1, "a")
	b.say(one, 2, "b")
	job, err := b.ledger.Accept(t.Context(), ledger.Job{Bot: one, Cursor: ledger.Cursor{UIDValidity: 1, UID: 2}, Kind: "message"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ledger.Attempt(t.Context(), job.ID); err != nil {
		t.Fatal(err)
	}
	if got := b.workOff(s, "a", "b", "c"); got != "[[1] [2] [3]]" {
		t.Errorf("sessions of the mails %s", got)
	}
}
