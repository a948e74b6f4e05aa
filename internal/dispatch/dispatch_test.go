package dispatch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"golang.org/x/sync/semaphore"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
	"mayfly/internal/session"
)

const samples = "../gate/testdata/"

// inbox is the relay's INBOX of one account, in memory.
type inbox struct {
	mu    sync.Mutex
	mails map[uint32][]byte
	fail  error // of every Select
	slow  time.Duration
	dials int

	closed, fetches int
	deleted         []uint32
}

func (i *inbox) fetched() int { return i.count().fetches }

// count is how often it was dialled, closed and fetched from.
func (i *inbox) count() (c struct{ dials, closed, fetches int }) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c.dials, c.closed, c.fetches = i.dials, i.closed, i.fetches
	return c
}

func (i *inbox) Select(context.Context, string) (mailbox.Status, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return mailbox.Status{UIDValidity: 1}, i.fail
}

func (i *inbox) List(_ context.Context, after uint32, limit int) ([]mailbox.Message, error) {
	time.Sleep(i.slow)
	i.mu.Lock()
	defer i.mu.Unlock()
	var list []mailbox.Message
	for uid, mail := range i.mails {
		if uid > after {
			list = append(list, mailbox.Message{UID: uid, Size: int64(len(mail))})
		}
	}
	slices.SortFunc(list, func(a, b mailbox.Message) int { return int(a.UID) - int(b.UID) })
	return list[:min(len(list), limit)], nil
}

func (i *inbox) Fetch(_ context.Context, uid uint32, max int64) ([]byte, error) {
	time.Sleep(i.slow)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches++
	mail, ok := i.mails[uid]
	if !ok {
		return nil, mailbox.ErrVanished
	}
	if int64(len(mail)) > max {
		return nil, mailbox.ErrTooLarge
	}
	return mail, nil
}

func (i *inbox) Delete(ctx context.Context, uids ...uint32) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, uid := range uids {
		delete(i.mails, uid)
		i.deleted = append(i.deleted, uid)
	}
	return nil
}

func (i *inbox) Close() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed++
	return nil
}

func (i *inbox) uids() []uint32 {
	list, _ := i.List(context.Background(), 0, 1000)
	var uids []uint32
	for _, m := range list {
		uids = append(uids, m.UID)
	}
	return uids
}

// sessions commits at once, or does what run says.
type sessions struct {
	ledger *ledger.Ledger
	run    func(w session.Work) error
	stuck  chan bool // not nil: told of each session, which then ends with its context
	mu     sync.Mutex
	order  []uint32
	spend  func(w session.Work) bot.RunRecord // what a run used; nil: nothing
	room   int64                              // bytes in the account; 0: enough

	replies bool // each session sends a mail of 10 bytes to who wrote
}

func (s *sessions) Run(ctx context.Context, w session.Work) (session.Outcome, error) {
	s.mu.Lock()
	s.order = append(s.order, w.Job.Cursor.UID)
	s.mu.Unlock()
	if s.stuck != nil {
		s.stuck <- true
		<-ctx.Done()
		return session.Outcome{}, ctx.Err()
	}
	if s.run != nil {
		if err := s.run(w); err != nil {
			return session.Outcome{}, err
		}
	}
	record := bot.RunRecord{Status: bot.RunOK}
	if s.spend != nil {
		record = s.spend(w)
	}
	c := ledger.Commit{
		Bot: w.Bot.Address, Account: w.Bot.Account + 1, UIDNext: w.Bot.UIDNext + 1, State: w.Bot.State,
		Consent: w.Job.Sender, Run: &record, Started: time.Now(), Ended: time.Now(),
	}
	if w.Schedule != nil {
		c.Schedule = &w.Schedule.Instant
	} else {
		c.Jobs = []int64{w.Job.ID}
	}
	if s.replies {
		c.Outgoing = []ledger.Outgoing{{To: []bot.Address{w.Job.From}, Path: fmt.Sprint(w.Job.ID), Size: 10}}
	}
	err := s.ledger.Commit(ctx, c)
	return session.Outcome{Bot: w.Bot.Address, Job: w.Job.ID}, err
}

func (s *sessions) Memory(ledger.Bot) (int64, error) { return 1, nil }

func (s *sessions) Fits(_ ledger.Bot, unpacked int64) (bool, error) {
	return s.room == 0 || unpacked <= s.room, nil
}

func (s *sessions) uids() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.order)
}

type noFolder struct{}

func (noFolder) Process(context.Context, bot.Address, Inbox) error { return nil }
func (noFolder) Tell(context.Context, bot.Address, func(context.Context) (Inbox, error)) (at time.Time, err error) {
	return
}

type noOutbox struct{}

func (noOutbox) Stage(mail []byte) (string, error) {
	return fmt.Sprintf("%x", sha256.Sum256(mail)), nil
}
func (noOutbox) Discard(string) error                        { return nil }
func (noOutbox) Prepare(context.Context, bot.Address)        {}
func (noOutbox) Flush(context.Context, bot.Address) error    { return nil }
func (noOutbox) Next(bot.Address) (at time.Time, later bool) { return }

type keys struct{ secret []byte }

func (k keys) Keys(bot.Address) ([][]byte, error) { return [][]byte{k.secret}, nil }

// bench is a dispatcher with a real ledger, a real gate and one installed bot for each account.
type bench struct {
	*Dispatcher
	t        *testing.T
	ctx      context.Context
	stop     context.CancelFunc
	ledger   *ledger.Ledger
	sessions *sessions
	inboxes  map[bot.Address]*inbox
}

func newBench(t *testing.T, accounts ...bot.Address) *bench {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, ledger: l, sessions: &sessions{ledger: l}, inboxes: map[bot.Address]*inbox{}}
	state := bot.AccountState{Readable: true, PublicKeys: [][]byte{public(t, "user2-secret.asc")}}
	for _, a := range accounts {
		if err := l.Install(t.Context(), ledger.Bot{Address: a, Account: 1, State: state}); err != nil {
			t.Fatal(err)
		}
		b.inboxes[a] = &inbox{mails: map[uint32][]byte{}}
	}
	b.Dispatcher = New(Options{
		Dial: func(_ context.Context, a bot.Address) (Inbox, error) {
			b.inboxes[a].mu.Lock()
			defer b.inboxes[a].mu.Unlock()
			b.inboxes[a].dials++
			return b.inboxes[a], nil
		},
		Folder: noFolder{}, Ledger: l, Sessions: b.sessions, Outbox: noOutbox{}, Keys: keys{dearmored(t, "bot2-secret.asc")},
		Bounds: gate.DefaultBounds(), Slots: NewSlots(2, 0), Memory: 1 << 20, MaxAttempts: 2, Backoff: 10 * time.Millisecond, IdleClose: time.Minute, Looks: 16, ScheduleGap: time.Hour, Done: func(session.Outcome) {},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	b.ctx, b.stop = context.WithCancel(t.Context())
	t.Cleanup(func() {
		b.stop()
		b.Wait()
		l.Close()
	})
	return b
}

func dearmored(t *testing.T, name string) []byte {
	t.Helper()
	block, err := armor.Decode(bytes.NewReader(sample(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(block.Body); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func public(t *testing.T, name string) []byte {
	t.Helper()
	ring, err := openpgp.ReadKeyRing(bytes.NewReader(dearmored(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := ring[0].Serialize(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sample(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(samples + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (b *bench) put(a bot.Address, uid uint32, name string) {
	b.t.Helper()
	b.inboxes[a].mu.Lock()
	defer b.inboxes[a].mu.Unlock()
	b.inboxes[a].mails[uid] = sample(b.t, name)
}

func (b *bench) await(what string, holds func() bool) {
	b.t.Helper()
	for start := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 15*time.Second {
			b.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

const one bot.Address = "bot000002@chat.test"

// valid are samples that make a message each.
var valid = []string{"eml/5-text.user.eml", "abuse/abuse-07.eml", "abuse/abuse-08.eml", "abuse/abuse-09.eml", "abuse/abuse-11.eml"}

func TestMailIsWorkedOffInOrder(t *testing.T) {
	b := newBench(t, one)
	for i, name := range valid {
		b.put(one, uint32(10-i), name)
	}
	b.put(one, 3, "abuse/abuse-01.eml")
	b.put(one, 20, "eml/5-text.user.eml") // again, under a new UID
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	if got, want := b.sessions.uids(), []uint32{6, 7, 8, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("sessions for the UIDs %v, want %v", got, want)
	}
	refusals, err := b.ledger.Refusals(t.Context(), one)
	if err != nil || refusals["cleartext"] != 1 || refusals["replay"] != 1 {
		t.Errorf("refusals %v, %v; want one of cleartext and one replay", refusals, err)
	}
}

func TestMailWithoutABotStays(t *testing.T) {
	b := newBench(t, one)
	const other bot.Address = "nobody001@chat.test"
	b.inboxes[other] = &inbox{mails: map[uint32][]byte{}}
	b.put(other, 1, valid[0])
	b.Wake(b.ctx, other, WakeInbox)
	time.Sleep(100 * time.Millisecond)
	if len(b.inboxes[other].uids()) != 1 || len(b.sessions.uids()) != 0 {
		t.Error("a mail to an account without a bot was touched")
	}
}

func TestHostFailureKeepsTheMailForEver(t *testing.T) {
	b := newBench(t, one)
	b.put(one, 1, valid[0])
	var failures atomic.Int32
	b.sessions.run = func(session.Work) error {
		if failures.Add(1) <= 4 { // more than MaxAttempts
			return errors.New("disk full")
		}
		return nil
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	runs, err := b.ledger.Runs(t.Context(), one, 10)
	if err != nil || len(runs) != 5 || runs[0].Record.Status != bot.RunOK || runs[4].Record.Message != "disk full" {
		t.Errorf("runs %+v, %v; want four failures and then OK", runs, err)
	}
}

func TestPoisonedMailIsSetAside(t *testing.T) {
	b := newBench(t, one)
	b.put(one, 1, valid[0])
	b.put(one, 2, valid[1])
	b.sessions.run = func(w session.Work) error {
		if w.Job.Cursor.UID == 1 {
			return fmt.Errorf("%w: it died", session.ErrMail)
		}
		return nil
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the second mail's end", func() bool { return !slices.Contains(b.inboxes[one].uids(), 2) })
	if got := b.inboxes[one].uids(); !slices.Equal(got, []uint32{1}) {
		t.Errorf("in the INBOX are %v, want the poisoned mail", got)
	}
	failed, err := b.ledger.Jobs(t.Context(), one, ledger.JobFailed)
	if err != nil || len(failed) != 1 || failed[0].Cursor.UID != 1 {
		t.Errorf("set aside are %v, %v", failed, err)
	}
	tried := len(b.sessions.uids())
	b.Wake(b.ctx, one, WakeInbox)
	time.Sleep(100 * time.Millisecond)
	if len(b.sessions.uids()) != tried {
		t.Error("a mail that was set aside got another session")
	}
}

func TestStoppingTheHostCountsAgainstNoMail(t *testing.T) {
	b := newBench(t, one)
	b.put(one, 1, valid[0])
	started := make(chan bool)
	b.sessions.run = func(session.Work) error {
		started <- true
		<-b.ctx.Done()
		return fmt.Errorf("%w: %w", session.ErrMail, b.ctx.Err())
	}
	b.Wake(b.ctx, one, WakeInbox)
	<-started
	b.stop()
	b.Wait()
	jobs, err := b.ledger.Jobs(t.Context(), one, ledger.JobAccepted)
	if err != nil || len(jobs) != 1 || jobs[0].Attempts != 0 {
		t.Errorf("jobs %+v, %v; want one, without an attempt", jobs, err)
	}
}

// TestCommittedMailIsOnlyDeleted is the next start after a death between the commit and the deletion.
func TestCommittedMailIsOnlyDeleted(t *testing.T) {
	b := newBench(t, one)
	b.put(one, 1, valid[0])
	job, err := b.ledger.Accept(t.Context(), ledger.Job{Bot: one, Cursor: ledger.Cursor{UIDValidity: 1, UID: 1}, Kind: "message"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ledger.Commit(t.Context(), ledger.Commit{Bot: one, Jobs: []int64{job.ID}, Account: 1, UIDNext: 2}); err != nil {
		t.Fatal(err)
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	b.await("a cleared job", func() bool {
		job, err := b.ledger.JobAt(t.Context(), one, job.Cursor)
		return err == nil && job.State == ledger.JobCleared
	})
	if len(b.sessions.uids()) != 0 {
		t.Error("a committed mail got another session")
	}
}

func TestSlotsBoundTheHost(t *testing.T) {
	accounts := []bot.Address{"bot000001@chat.test", one, "bot000003@chat.test", "bot000004@chat.test", "bot000005@chat.test"}
	b := newBench(t, accounts...)
	var now, most atomic.Int32
	b.sessions.run = func(session.Work) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(30 * time.Millisecond)
		now.Add(-1)
		return nil
	}
	for _, a := range accounts {
		b.put(a, 1, valid[0])
		b.Wake(b.ctx, a, WakeInbox)
	}
	for _, a := range accounts {
		b.await("an empty INBOX", func() bool { return len(b.inboxes[a].uids()) == 0 })
	}
	if most.Load() != 2 {
		t.Errorf("%d sessions at a time, want Slots, which is 2", most.Load())
	}
}

// TestLentSlots: whoever waits for a disk holds up nobody else, and no more sessions are under way than twice the slots.
func TestLentSlots(t *testing.T) {
	slow := []bot.Address{"bot000003@chat.test", "bot000004@chat.test", "bot000005@chat.test", "bot000006@chat.test", "bot000007@chat.test"}
	b := newBench(t, append([]bot.Address{one}, slow...)...)
	var waiting, most, now atomic.Int32
	waits := make(chan struct{})
	release := sync.OnceFunc(func() { close(waits) })
	t.Cleanup(release)
	b.sessions.run = func(w session.Work) error {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		if w.Bot.Address == one {
			return nil
		}
		back := w.Lend()
		waiting.Add(1)
		<-waits
		back()
		return nil
	}
	for _, a := range slow[:2] {
		b.put(a, 1, valid[0])
		b.Wake(b.ctx, a, WakeInbox)
	}
	b.await("two that wait for their disks", func() bool { return waiting.Load() == 2 })
	b.put(one, 1, valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX of the bot that wrote little", func() bool { return len(b.inboxes[one].uids()) == 0 })
	for _, a := range slow[2:] {
		b.put(a, 1, valid[0])
		b.Wake(b.ctx, a, WakeInbox)
	}
	b.await("two more, which keep their slots", func() bool { return waiting.Load() == 4 })
	release()
	for _, a := range slow {
		b.await("an empty INBOX", func() bool { return len(b.inboxes[a].uids()) == 0 })
	}
	if most.Load() != 4 {
		t.Errorf("%d sessions under way, want twice the slots", most.Load())
	}
}

// TestReinstalledBotHasItsNewKey judges a mail at the first generation of one installation, and then one at the first generation
// of the next, whose key is another.
func TestReinstalledBotHasItsNewKey(t *testing.T) {
	b := newBench(t, one)
	b.opts.Keys = keys{dearmored(t, "user2-secret.asc")}
	b.put(one, 1, "abuse/abuse-01.eml")
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the first mail's end", func() bool { return len(b.inboxes[one].uids()) == 0 })
	bots, err := b.ledger.Bots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.ledger.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	again := bots[0]
	again.Installed, again.Updated = time.Time{}, time.Time{}
	if err := b.ledger.Install(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	b.opts.Keys = keys{dearmored(t, "bot2-secret.asc")}
	b.put(one, 2, valid[1])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a session for the second mail", func() bool { return slices.Contains(b.sessions.uids(), 2) })
}

// TestABrokenFolderDoesNotStopTheMail has an installer that fails while a version is installed and mail waits.
func TestABrokenFolderDoesNotStopTheMail(t *testing.T) {
	b := newBench(t, one)
	b.opts.Folder = brokenFolder{}
	b.put(one, 1, valid[0])
	b.Wake(b.ctx, one, WakeInbox|WakeFolder)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
}

type brokenFolder struct{ noFolder }

func (brokenFolder) Process(context.Context, bot.Address, Inbox) error {
	return errors.New("the sandbox of the check failed")
}

// TestHandshakesRunNoBot looks at what the session is told.
func TestHandshakesRunNoBot(t *testing.T) {
	b := newBench(t, one)
	state := bot.AccountState{Readable: true, AuthTokens: []string{"mtlmg9S1NgHae8FVqCbg9M2N"}}
	if err := b.ledger.Install(t.Context(), ledger.Bot{Address: one, Account: 2, State: state}); err != nil {
		t.Fatal(err)
	}
	told := make(chan bool, 1)
	b.sessions.run = func(w session.Work) error { told <- w.Message; return nil }
	b.put(one, 1, "eml/1-vc-request-pubkey.user.eml")
	b.Wake(b.ctx, one, WakeInbox)
	select {
	case message := <-told:
		if message {
			t.Error("a handshake was given to the session as a message")
		}
	case <-time.After(5 * time.Second):
		t.Error("no session for a handshake")
	}
}

// TestMemoryBoundsTheHost has three bots fetch a mail each whose size is more than half of what the host may hold.
func TestMemoryBoundsTheHost(t *testing.T) {
	accounts := []bot.Address{"bot000001@chat.test", one, "bot000003@chat.test"}
	b := newBench(t, accounts...)
	b.opts.Slots = NewSlots(10, 0)
	var now, most atomic.Int32
	b.sessions.run = func(session.Work) error {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(50 * time.Millisecond)
		now.Add(-1)
		return nil
	}
	large := append(sample(t, valid[0]), bytes.Repeat([]byte("\r\n"), 300_000)...)
	for _, a := range accounts {
		b.inboxes[a].mails[1] = large
		b.Wake(b.ctx, a, WakeInbox)
	}
	for _, a := range accounts {
		b.await("an empty INBOX", func() bool { return len(b.inboxes[a].uids()) == 0 })
	}
	if most.Load() != 1 {
		t.Errorf("%d large mails in memory at a time, want one", most.Load())
	}
}

// TestFullAccountKeepsLargeMailWaiting has room for a mail of 3 kB and not for one of 180 kB, which waits in the INBOX.
func TestFullAccountKeepsLargeMailWaiting(t *testing.T) {
	b := newBench(t, one)
	b.sessions.room = b.opts.Bounds.Unpacked(10_000)
	for i, name := range valid[:3] {
		b.put(one, uint32(i+1), name)
	}
	large := append(sample(t, valid[3]), bytes.Repeat([]byte("\r\n"), 100_000)...)
	b.inboxes[one].mails[2] = large
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the others' end", func() bool { return len(b.inboxes[one].uids()) == 1 })
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{1, 3}) || b.inboxes[one].uids()[0] != 2 {
		t.Errorf("sessions %v and %v in the INBOX, want the large mail to wait", got, b.inboxes[one].uids())
	}
}

// TestBudgetsMakeMailWait gives one address a budget of two mails: its third waits, those of others do not, and nothing is lost.
func TestBudgetsMakeMailWait(t *testing.T) {
	b := newBench(t, one)
	b.opts.Budgets.Address = Rate{PerMinute: 60, Burst: 2}
	for i, name := range []string{"abuse/abuse-10.eml", "abuse/abuse-05.eml", "eml/5-text.user.eml", "abuse/abuse-08.eml"} {
		b.put(one, uint32(i+1), name) // three claim to be of user00002, the last is mallory's
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the stranger's session", func() bool { return slices.Equal(b.sessions.uids(), []uint32{4}) })
	if got := b.inboxes[one].uids(); !slices.Equal(got, []uint32{3}) && !slices.Equal(got, []uint32{3, 4}) {
		t.Errorf("in the INBOX are %v, want the third mail of the address", got)
	}
	b.await("an empty INBOX, without another wake", func() bool { return len(b.inboxes[one].uids()) == 0 })
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{4, 3}) {
		t.Errorf("sessions %v, want those of the mails 4 and 3", got)
	}
}

func TestBudgetOfTheBotHoldsItsOrder(t *testing.T) {
	b := newBench(t, one)
	b.opts.Budgets.Bot = Rate{PerMinute: 30, Burst: 1}
	for i, name := range valid[:3] {
		b.put(one, uint32(i+1), name)
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{1, 2, 3}) {
		t.Errorf("sessions %v, want all in order", got)
	}
}

// from is a sample that claims to be from another address. It is not valid any more, which only decryption shows.
func (b *bench) from(from, name string) []byte {
	b.t.Helper()
	mail := sample(b.t, name)
	out := regexp.MustCompile(`(?m)^From:.*$`).ReplaceAll(mail, []byte("From: <"+from+">\r"))
	if bytes.Equal(mail, out) {
		b.t.Fatalf("%s has no From", name)
	}
	return out
}

// know lets the bot have worked off a mail of an address.
func (b *bench) know(a, from bot.Address) {
	b.t.Helper()
	ctx := b.t.Context()
	known, err := b.ledger.Bot(ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	job, err := b.ledger.Accept(ctx, ledger.Job{Bot: a, Cursor: ledger.Cursor{UIDValidity: 9, UID: 1}, Kind: "message", From: from})
	if err == nil {
		err = b.ledger.Commit(ctx, ledger.Commit{Bot: a, Jobs: []int64{job.ID}, Account: 1, UIDNext: 1, State: known.State})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestStrangersHoldUpStrangersOnly has 300 encrypted junk mails of as many addresses, more than the bot's budget, and behind them
// one of an address that the bot knows. What waits is not fetched again and again.
func TestStrangersHoldUpStrangersOnly(t *testing.T) {
	b := newBench(t, one)
	b.opts.Budgets.Bot = Rate{PerMinute: 60, Burst: 100}
	b.know(one, "user00002@chat.test")
	for i := range 300 {
		b.inboxes[one].mails[uint32(i+1)] = b.from(fmt.Sprintf("junk%05d@elsewhere.test", i), "abuse/abuse-05.eml")
	}
	b.put(one, 301, "eml/5-text.user.eml")
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the session of the one who is known", func() bool { return slices.Equal(b.sessions.uids(), []uint32{301}) })
	b.await("its end", func() bool { return !slices.Contains(b.inboxes[one].uids(), 301) })
	before := b.inboxes[one].fetched()
	time.Sleep(leastWait + time.Second)
	if left, fetched := len(b.inboxes[one].uids()), b.inboxes[one].fetched()-before; left < 150 || left > 200 || fetched > 20 {
		t.Errorf("%d mails are left, and %d were fetched in %v", left, fetched, leastWait+time.Second)
	}
}

// TestCleartextNeedsNoBudget has more junk than any budget allows.
func TestCleartextNeedsNoBudget(t *testing.T) {
	b := newBench(t, one)
	small := Rate{PerMinute: 1, Burst: 1}
	b.opts.Budgets = Budgets{Address: small, Bot: small, Host: small, Sessions: small}
	for i := range 500 {
		b.put(one, uint32(i+1), "abuse/abuse-01.eml")
	}
	b.put(one, 501, valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{501}) {
		t.Errorf("sessions %v, want one for what was behind the junk", got)
	}
}

// TestLaterMailOfAnAddressWaitsToo: when the budget has room again between two mails of one address, the second is not first.
func TestLaterMailOfAnAddressWaitsToo(t *testing.T) {
	b := newBench(t, one)
	b.opts.Budgets.Address = Rate{PerMinute: 600, Burst: 1} // a mail each 100 ms
	b.inboxes[one].slow = 60 * time.Millisecond
	for i := range 4 {
		b.inboxes[one].mails[uint32(i+1)] = b.from("ada@elsewhere.test", valid[1+i])
	}
	b.inboxes[one].mails[5] = b.from("bob@elsewhere.test", valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("an empty INBOX", func() bool { return len(b.inboxes[one].uids()) == 0 })
	if got := b.inboxes[one].deleted; !slices.Equal(got, []uint32{1, 5, 2, 3, 4}) {
		t.Errorf("worked off in the order %v, want 1, the other's, and the rest in order", got)
	}
}

// TestNobodyLooksForARemovedBot uninstalls a bot while mail waits for a budget.
func TestNobodyLooksForARemovedBot(t *testing.T) {
	b := newBench(t, one)
	b.opts.Budgets.Sessions = Rate{PerMinute: 1, Burst: 1}
	b.put(one, 1, valid[0])
	b.put(one, 2, "abuse/abuse-08.eml")
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a look at both", func() bool { return len(b.inboxes[one].uids()) == 1 && b.inboxes[one].fetched() == 2 })
	time.Sleep(100 * time.Millisecond) // the second waits now
	if err := b.ledger.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a look", func() bool { c := b.inboxes[one].count(); return c.closed == c.dials })
	before := b.inboxes[one].count().dials
	b.mu.Lock()
	a := b.actors[one]
	b.mu.Unlock()
	b.stop()
	b.Wait()
	if a.waiting != 0 {
		t.Errorf("the INBOX is looked at again in %v, after %d looks", a.waiting, before)
	}
}

// TestSessionsOfStrangersAreBounded: a stranger has a budget of two sessions; the third waits, the mail of who is known does not.
func TestSessionsOfStrangersAreBounded(t *testing.T) {
	b := newBench(t, one)
	b.opts.Budgets.Sessions = Rate{PerMinute: 1, Burst: 1}
	for i, name := range []string{"eml/5-text.user.eml", "abuse/abuse-08.eml", "abuse/abuse-09.eml"} { // user2's, mallory's, user2's
		b.put(one, uint32(i+1), name)
	}
	b.Wake(b.ctx, one, WakeInbox)
	b.await("two sessions", func() bool { return len(b.sessions.uids()) == 2 })
	b.await("one mail", func() bool { return len(b.inboxes[one].uids()) == 1 })
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{1, 3}) || b.inboxes[one].uids()[0] != 2 {
		t.Errorf("sessions %v, and %v wait, want the other stranger to", got, b.inboxes[one].uids())
	}
}

// TestUncertainMailHasASmallBudget has a bot whose account the host cannot read.
func TestUncertainMailHasASmallBudget(t *testing.T) {
	b := newBench(t, one)
	if err := b.ledger.Install(t.Context(), ledger.Bot{Address: one, Account: 2, State: bot.AccountState{Schema: 1}}); err != nil {
		t.Fatal(err)
	}
	b.opts.Budgets.Uncertain = Rate{PerMinute: 1, Burst: 1}
	b.put(one, 1, "eml/1-vc-request-pubkey.user.eml")
	b.put(one, 2, "eml/1-vc-request-pubkey.user.eml")
	b.Wake(b.ctx, one, WakeInbox)
	b.await("one session", func() bool { return len(b.inboxes[one].uids()) == 1 })
	time.Sleep(50 * time.Millisecond)
	if got := b.sessions.uids(); !slices.Equal(got, []uint32{1}) {
		t.Errorf("sessions %v, want one", got)
	}
}

// TestIdleBotsHoldNoConnection: a look that finds nothing is closed at once, and one that found a mail after IdleClose.
func TestIdleBotsHoldNoConnection(t *testing.T) {
	b := newBench(t, one)
	b.opts.IdleClose = time.Hour
	box := b.inboxes[one]
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the end of a connection that found nothing", func() bool { return box.count().closed == 1 })
	b.put(one, 1, valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the mail's end", func() bool { return len(box.uids()) == 0 })
	time.Sleep(200 * time.Millisecond)
	if c := box.count(); c.closed != 1 || c.dials != 2 {
		t.Errorf("%d of %d connections are closed, want that of the mail to be kept", c.closed, c.dials)
	}

	b = newBench(t, one)
	b.opts.IdleClose = 50 * time.Millisecond
	b.put(one, 1, valid[0])
	b.Wake(b.ctx, one, WakeInbox)
	b.await("the end of an idle connection", func() bool { return b.inboxes[one].count().closed == 1 && len(b.inboxes[one].uids()) == 0 })
}

// TestLooksAreBounded wakes 50 bots at once, as a start does: few have a connection at a time. Those that have mail do not count.
func TestLooksAreBounded(t *testing.T) {
	var accounts []bot.Address
	for i := range 50 {
		accounts = append(accounts, bot.Address(fmt.Sprintf("bot%06d@chat.test", i)))
	}
	b := newBench(t, accounts...)
	b.looks = semaphore.NewWeighted(3)
	var now, most, all atomic.Int32
	dial := b.opts.Dial
	b.opts.Dial = func(ctx context.Context, a bot.Address) (Inbox, error) {
		most.Store(max(most.Load(), now.Add(1)))
		inbox, err := dial(ctx, a)
		return closing{inbox, func() { now.Add(-1); all.Add(1) }}, err
	}
	for _, a := range accounts {
		b.inboxes[a].slow = 5 * time.Millisecond
		b.Wake(b.ctx, a, WakeInbox)
	}
	b.await("a look at all", func() bool { return all.Load() == 50 })
	if most.Load() != 3 {
		t.Errorf("%d connections at a time, want 3", most.Load())
	}

	working, done := make(chan bool), make(chan bool)
	b.sessions.run = func(session.Work) error { working <- true; <-done; return nil }
	defer close(done)
	b.opts.Slots = NewSlots(10, 0)
	for _, a := range accounts[:4] {
		b.put(a, 1, valid[0])
		b.Wake(b.ctx, a, WakeInbox)
	}
	for range 4 {
		select {
		case <-working:
		case <-time.After(15 * time.Second):
			t.Fatal("bots that work keep another from looking")
		}
	}
}

// closing tells of its end.
type closing struct {
	Inbox
	closed func()
}

func (c closing) Close() error {
	c.closed()
	return c.Inbox.Close()
}

func TestBudgetForgetsAddresses(t *testing.T) {
	b := newBudget(Budgets{Address: Rate{1, 1}}, Rate{}.lanes())
	for i := range 3 * maxSenders {
		b.decryption(bot.Address(fmt.Sprintf("a%d@x", i)), false, 1)
		if len(b.senders) > maxSenders {
			t.Fatalf("%d addresses are remembered", len(b.senders))
		}
	}
}

// TestLargeMailIsManyUnits: the budget counts what a decryption costs, and a mail that is larger than the budget can have its turn.
func TestLargeMailIsManyUnits(t *testing.T) {
	b := newBudget(Budgets{Bot: Rate{60, 10}}, Rate{}.lanes())
	for range 2 {
		if over := b.decryption("a@x", false, 400_000); over != nil {
			t.Fatalf("%v", over)
		}
	}
	if over := b.decryption("a@x", false, 1); over == nil || over.whose != "bot" || over.wait() < 500*time.Millisecond {
		t.Errorf("after ten units: %v", over)
	}
	b = newBudget(Budgets{Bot: Rate{60, 10}}, Rate{}.lanes())
	if over := b.decryption("a@x", false, 5_000_000); over != nil {
		t.Errorf("a mail of more units than the budget ever has waits for ever: %v", over)
	}
}

func TestRelayFailureIsTriedAgainOnANewConnection(t *testing.T) {
	b := newBench(t, one)
	b.put(one, 1, valid[0])
	box := b.inboxes[one]
	box.fail = errors.New("connection reset")
	b.Wake(b.ctx, one, WakeInbox)
	b.await("a second connection", func() bool { box.mu.Lock(); defer box.mu.Unlock(); return box.dials >= 2 })
	box.mu.Lock()
	box.fail = nil
	box.mu.Unlock()
	b.await("an empty INBOX", func() bool { return len(box.uids()) == 0 })
}
