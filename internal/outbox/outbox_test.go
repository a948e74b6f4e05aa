package outbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

const (
	dice = bot.Address("dice@relay.example")
	user = bot.Address("user@relay.example")
)

// house is an outbox on a real ledger and a real SMTP server.
type house struct {
	t      *testing.T
	dir    string
	ledger *ledger.Ledger
	relay  *relay
	smtp   *SMTP
	box    *Outbox
	now    time.Time
	log    bytes.Buffer
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, dir: t.TempDir(), relay: newRelay(t), now: time.Now()}
	h.smtp = h.relay.client(TLSPlain)
	var err error
	h.ledger, err = ledger.Open(t.Context(), filepath.Join(h.dir, "ledger.db"))
	must(t, err)
	must(t, h.ledger.Install(t.Context(), ledger.Bot{Address: dice}))
	h.start()
	t.Cleanup(func() { must(t, errors.Join(h.smtp.Close(), h.box.Close(), h.ledger.Close())) })
	return h
}

// start is what a start of the daemon does.
func (h *house) start() {
	var err error
	h.box, err = New(filepath.Join(h.dir, "outbox"), h.ledger, h.smtp, slog.New(slog.NewTextHandler(&h.log, nil)))
	must(h.t, err)
	h.box.now = func() time.Time { return h.now }
	must(h.t, h.box.Sweep(h.t.Context()))
}

// say commits a session that says these texts.
func (h *house) say(texts ...string) {
	h.t.Helper()
	c := ledger.Commit{Bot: dice, UIDNext: 1}
	for _, text := range texts {
		data := mail(text)
		path, err := h.box.Stage(data)
		must(h.t, err)
		c.Outgoing = append(c.Outgoing, ledger.Outgoing{From: dice, To: []bot.Address{user}, MessageID: "<" + text + "@x>", Path: path, Size: int64(len(data))})
	}
	must(h.t, h.ledger.Commit(h.t.Context(), c))
}

// sayTo commits a session that says one text.
func (h *house) sayTo(text string, to ...bot.Address) {
	h.t.Helper()
	data := mail(text)
	path, err := h.box.Stage(data)
	must(h.t, err)
	must(h.t, h.ledger.Commit(h.t.Context(), ledger.Commit{Bot: dice, UIDNext: 1, Outgoing: []ledger.Outgoing{
		{From: dice, To: to, MessageID: "<" + text + "@x>", Path: path, Size: int64(len(data))},
	}}))
}

func mail(text string) []byte {
	return []byte("From: dice@relay.example\r\nMessage-ID: <" + text + "@x>\r\n\r\n" + text + "\r\n")
}

func (h *house) flush() {
	h.t.Helper()
	must(h.t, h.box.Flush(h.t.Context(), dice))
}

func (h *house) waiting() []ledger.Outgoing {
	h.t.Helper()
	out, err := h.ledger.Outbox(h.t.Context(), dice, 100)
	must(h.t, err)
	return out
}

func (h *house) dead() []ledger.Outgoing {
	h.t.Helper()
	out, err := h.ledger.Dead(h.t.Context(), dice, 100)
	must(h.t, err)
	return out
}

func (h *house) files() []string {
	h.t.Helper()
	entries, err := os.ReadDir(filepath.Join(h.dir, "outbox"))
	must(h.t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (h *house) received(texts ...string) {
	h.t.Helper()
	var want [][]byte
	for _, text := range texts {
		want = append(want, mail(text))
	}
	got := h.relay.bodies()
	if !slices.EqualFunc(got, want, bytes.Equal) {
		h.t.Errorf("the relay received %q, want %q", got, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMailGoesOutInOrder(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	h.say("three")
	h.flush()
	h.received("one", "two", "three")
	if n := len(h.waiting()); n != 0 {
		t.Errorf("%d mails still wait", n)
	}
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if _, ok := h.box.Next(dice); ok {
		t.Error("there is nothing to come back for")
	}
	if n := h.relay.logins; n != 1 {
		t.Errorf("%d logins for three mails", n)
	}
}

func TestMoreThanABatchGoesOut(t *testing.T) {
	h := newHouse(t)
	var texts []string
	for n := range batch + 5 {
		texts = append(texts, fmt.Sprint(n))
	}
	h.say(texts...)
	h.flush()
	h.received(texts...)
}

func TestTemporaryFailureStopsTheQueueAndBacksOff(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	h.relay.answerData(&smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "too many mails"}, 3)
	for _, wait := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute} {
		h.flush()
		next, ok := h.box.Next(dice)
		if !ok || next.Sub(h.now) != wait {
			t.Fatalf("next try after %v (%v), want %v", next.Sub(h.now), ok, wait)
		}
		tries := h.relay.tries
		h.now = next.Add(-time.Millisecond)
		h.flush()
		if h.relay.tries != tries {
			t.Fatal("tried before its time")
		}
		if again, ok := h.box.Next(dice); !ok || again.Sub(next).Abs() > time.Millisecond {
			t.Fatalf("an early flush moved the time from %v to %v", next, again)
		}
		h.now = next
	}
	out := h.waiting()
	if len(out) != 2 || out[0].Attempts != 3 || out[1].Attempts != 0 || !strings.Contains(out[0].LastError, "too many mails") {
		t.Errorf("%+v", out)
	}
	h.received()
	h.flush()
	h.received("one", "two")
}

func TestWaitDoublesUpToAnHour(t *testing.T) {
	var total time.Duration
	for n := range maxAttempts - 1 {
		if w := wait(n); w > time.Hour || w < 30*time.Second || n > 0 && w < wait(n-1) {
			t.Errorf("wait %d is %v", n, w)
		}
		total += wait(n)
	}
	if wait(6) != 32*time.Minute || wait(7) != time.Hour || total < 119*time.Hour || total > 121*time.Hour {
		t.Errorf("%v, %v, all %v", wait(6), wait(7), total)
	}
}

func TestTemporaryFailureIsGivenUpInTheEnd(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	id := h.waiting()[0].ID
	for range maxAttempts - 1 {
		must(t, h.ledger.Deferred(t.Context(), id, h.now, "450"))
	}
	h.relay.answerData(&smtp.SMTPError{Code: 450, Message: "still not"}, 1)
	h.flush()
	h.received("two")
	if dead := h.dead(); len(dead) != 1 || !strings.Contains(dead[0].LastError, "still not") {
		t.Errorf("dead %+v", dead)
	}
}

func TestPermanentFailureDoesNotStopTheQueue(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	h.relay.answerData(&smtp.SMTPError{Code: 523, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Encryption Needed"}, 1)
	h.flush()
	h.received("two")
	dead := h.dead()
	if len(dead) != 1 || !strings.Contains(dead[0].LastError, "Encryption Needed") || len(h.waiting()) != 0 {
		t.Errorf("dead %+v", dead)
	}
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if !strings.Contains(h.log.String(), "Encryption Needed") {
		t.Errorf("log: %s", h.log.String())
	}
}

// TestWhatFailedIsCountedForTheAuthor has a mail that is refused at its end, one whose only recipient is refused, and one that is
// refused for one of two; the mails behind them go out.
func TestWhatFailedIsCountedForTheAuthor(t *testing.T) {
	h := newHouse(t)
	const gone = "gone@relay.example"
	h.relay.rcptErrs[gone] = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody is here"}
	h.sayTo("one", gone)
	h.sayTo("two", gone, user)
	h.sayTo("three", user)
	h.flush()
	h.received("two", "three")
	failures, _, err := h.ledger.Failures(t.Context(), dice)
	must(t, err)
	if len(failures) != 1 || failures[0].Count != 2 || !strings.Contains(failures[0].Why, "RCPT TO "+gone) || !strings.Contains(failures[0].Why, "nobody is here") {
		t.Errorf("counted %+v, want the relay's words twice", failures)
	}
	if dead := h.dead(); len(dead) != 1 || dead[0].MessageID != "<one@x>" || len(h.waiting()) != 0 {
		t.Errorf("given up are %+v, waiting %+v", dead, h.waiting())
	}
}

// TestMailForSomeThatCouldNotBeRecorded: the ledger is full when it is to be told. Nothing is sent twice, and the failure is counted.
func TestMailForSomeThatCouldNotBeRecorded(t *testing.T) {
	h := newHouse(t)
	full := &failing{h.ledger, true}
	h.box.ledger = full
	h.relay.rcptErrs["gone@relay.example"] = &smtp.SMTPError{Code: 550, Message: "nobody"}
	h.sayTo("one", "gone@relay.example", user)
	if err := h.box.Flush(t.Context(), dice); !errors.Is(err, ledger.ErrFull) {
		t.Fatal(err)
	}
	full.full = false
	h.flush()
	h.received("one")
	if failures, _, err := h.ledger.Failures(t.Context(), dice); err != nil || len(failures) != 1 || failures[0].Count != 1 {
		t.Errorf("counted %+v, %v", failures, err)
	}
}

func TestConnectionCutBeforeTheAnswerIsTriedAgain(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	h.relay.cutAfterData(1)
	h.flush()
	out := h.waiting()
	if len(out) != 2 || out[0].Attempts != 1 {
		t.Fatalf("%+v", out)
	}
	h.now = h.now.Add(firstWait)
	h.flush()
	// The relay had taken it, and got the very same bytes again: the receiver knows them by the Message-ID.
	h.received("one", "one", "two")
}

func TestRelayDown(t *testing.T) {
	h := newHouse(t)
	h.say("one")
	h.relay.server.Close()
	h.flush()
	if out := h.waiting(); len(out) != 1 || out[0].Attempts != 1 || !strings.Contains(out[0].LastError, h.relay.addr) {
		t.Errorf("%+v", out)
	}
}

func TestVanishedOrCutFileIsUndeliverable(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two", "three")
	out := h.waiting()
	must(t, os.Remove(filepath.Join(h.dir, "outbox", out[0].Path)))
	must(t, os.Truncate(filepath.Join(h.dir, "outbox", out[1].Path), 20))
	h.flush()
	h.received("three")
	dead := h.dead()
	if len(dead) != 2 || !strings.Contains(dead[1].LastError, "is gone") || !strings.Contains(dead[0].LastError, "20 bytes") {
		t.Errorf("%+v", dead)
	}
}

func TestRestartGoesOnAndSweeps(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	_, err := h.box.Stage(mail("never committed"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(h.dir, "outbox", "README"), nil, 0o600))
	must(t, h.box.Close())
	h.start()
	if names := h.files(); len(names) != 3 {
		t.Errorf("after the sweep: %v", names)
	}
	h.flush()
	h.received("one", "two")
}

// Beside work, only files that no session can still be about to name are deleted.
func TestSweepOld(t *testing.T) {
	h := newHouse(t)
	h.say("one")
	_, err := h.box.Stage(mail("never committed"))
	must(t, err)
	for range 2 {
		removed, err := h.box.SweepOld(t.Context(), time.Hour)
		must(t, err)
		if removed != 0 || len(h.files()) != 2 {
			t.Fatalf("%d deleted, left %v", removed, h.files())
		}
	}
	h.box.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	removed, err := h.box.SweepOld(t.Context(), time.Hour)
	must(t, err)
	if removed != 1 || len(h.files()) != 1 {
		t.Errorf("%d deleted, left %v", removed, h.files())
	}
	h.box.now = time.Now
	h.flush()
	h.received("one")
}

// failing is a ledger on a full disk: it cannot record.
type failing struct {
	*ledger.Ledger
	full bool
}

func (f *failing) Sent(ctx context.Context, id int64) error {
	if f.full {
		return ledger.ErrFull
	}
	return f.Ledger.Sent(ctx, id)
}

func (f *failing) SentToSome(ctx context.Context, id int64, why string) error {
	if f.full {
		return ledger.ErrFull
	}
	return f.Ledger.SentToSome(ctx, id, why)
}

func TestMailThatCouldNotBeRecordedIsNotSentAgain(t *testing.T) {
	h := newHouse(t)
	full := &failing{h.ledger, true}
	h.box.ledger = full
	h.say("one", "two")
	for range 3 {
		if err := h.box.Flush(t.Context(), dice); !errors.Is(err, ledger.ErrFull) {
			t.Fatal(err)
		}
		if _, ok := h.box.Next(dice); !ok {
			t.Fatal("nobody comes back")
		}
	}
	full.full = false
	h.flush()
	h.received("one", "two")
}

func TestCancelledFlushIsNotTheMailsFault(t *testing.T) {
	h := newHouse(t)
	h.say("one")
	ctx, cancel := context.WithCancel(t.Context())
	h.relay.onData(cancel)
	h.relay.hang = true
	h.box.grace = 50 * time.Millisecond
	if err := h.box.Flush(ctx, dice); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if out := h.waiting(); len(out) != 1 || out[0].Attempts != 0 {
		t.Errorf("%+v", out)
	}
}

// A mail that the relay is about to take when the daemon is told to end is not sent again by the next one.
func TestMailOnItsWayIsFinished(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two")
	ctx, cancel := context.WithCancel(t.Context())
	h.relay.onData(cancel)
	if err := h.box.Flush(ctx, dice); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	h.received("one")
	if out := h.waiting(); len(out) != 1 || out[0].MessageID != "<two@x>" {
		t.Errorf("%+v", out)
	}
}

func TestBotRemovedWhileItsMailIsSent(t *testing.T) {
	h := newHouse(t)
	h.say("one")
	h.relay.onData(func() { must(t, h.ledger.Remove(context.Background(), dice)) })
	h.flush()
	if names := h.files(); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

func TestSecondFlushWaitsForTheFirst(t *testing.T) {
	h := newHouse(t)
	h.say("one", "two", "three")
	errs := make(chan error, 4)
	for range 4 {
		go func() { errs <- h.box.Flush(context.Background(), dice) }()
	}
	for range 4 {
		must(t, <-errs)
	}
	h.received("one", "two", "three")
}

// TestWhoHasStoppedTheBotGetsNothing strips them from the envelope. Answers of the host's own go to everybody.
func TestWhoHasStoppedTheBotGetsNothing(t *testing.T) {
	h, other := newHouse(t), bot.Address("other@relay.example")
	must(t, h.ledger.Answer(t.Context(), ledger.Answer{Bot: dice, Word: &ledger.Word{Contact: "AB12", Address: user, Stop: true}, At: h.now}))
	h.sayTo("alone", user)
	h.sayTo("both", user, other)
	data := mail("host")
	path, err := h.box.Stage(data)
	must(t, err)
	must(t, h.ledger.Answer(t.Context(), ledger.Answer{Bot: dice, At: h.now, Outgoing: []ledger.Outgoing{
		{From: dice, To: []bot.Address{user}, MessageID: "<host@x>", Path: path, Size: int64(len(data))},
	}}))
	h.flush()
	h.received("both", "host")
	if got := fmt.Sprint(h.relay.rcpts); got != "[[other@relay.example] [user@relay.example]]" {
		t.Errorf("recipients %s", got)
	}
	if len(h.waiting()) > 0 || len(h.files()) > 0 {
		t.Errorf("left: %v, %v: what nobody gets counts as sent", h.waiting(), h.files())
	}
}

func TestStage(t *testing.T) {
	h := newHouse(t)
	path, err := h.box.Stage(mail("one"))
	must(t, err)
	full := filepath.Join(h.dir, "outbox", path)
	data, err := os.ReadFile(full)
	must(t, err)
	info, err := os.Stat(full)
	must(t, err)
	if !bytes.Equal(data, mail("one")) || info.Mode().Perm() != 0o600 || filepath.Ext(path) != ".eml" || len(path) != 36 {
		t.Errorf("%s %v %q", path, info.Mode(), data)
	}
	must(t, h.box.Discard(path))
	must(t, h.box.Discard(path))
	if _, err := os.Stat(full); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := h.box.Discard("../ledger.db"); err == nil {
		t.Error("discarded a file outside")
	}
}
