package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// giveUp lets the relay refuse n mails for good.
func (h *host) giveUp(n int, why string) {
	h.t.Helper()
	c := ledger.Commit{Bot: addr, UIDNext: 1}
	for i := range n {
		c.Outgoing = append(c.Outgoing, ledger.Outgoing{To: []bot.Address{"u@example.org"}, Path: fmt.Sprint(time.Now().UnixNano(), i)})
	}
	if err := h.ledger.Commit(h.t.Context(), c); err != nil {
		h.t.Fatal(err)
	}
	waiting, err := h.ledger.Outbox(h.t.Context(), addr, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, m := range waiting {
		if err := h.ledger.Undeliverable(h.t.Context(), m.ID, why); err != nil {
			h.t.Fatal(err)
		}
	}
}

// tell calls Tell and reports whether it connected.
func (h *host) tell() (again time.Time, connected bool) {
	h.t.Helper()
	again, err := h.installer.Tell(h.t.Context(), addr, func(context.Context) (Appender, error) {
		connected = true
		return h.mailbox, nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return again, connected
}

// TestAFloodOfRefusalsIsOneMailAnHour: what the relay refuses is told with its words, summed up, and once an hour.
func TestAFloodOfRefusalsIsOneMailAnHour(t *testing.T) {
	h := newHost(t)
	now := time.Now().Truncate(time.Microsecond)
	h.installer.Now = func() time.Time { return now }
	h.append(pack(t, "1"))
	h.process()
	if again, connected := h.tell(); connected || !again.IsZero() {
		t.Errorf("nothing is to be told: connected %v, again %v", connected, again)
	}
	h.giveUp(200, "the mail: 554 5.7.1\r\n <you> are blocked")
	h.giveUp(1, "RCPT TO u@example.org: 550 5.1.1 nobody")
	if again, _ := h.tell(); !again.IsZero() {
		t.Errorf("again %v", again)
	}
	h.giveUp(3, "554 once more")
	for range 5 {
		if again, connected := h.tell(); !again.Equal(now.Add(time.Hour)) || connected {
			t.Errorf("within the hour: again %v, connected %v, want in an hour", again, connected)
		}
	}
	now = now.Add(time.Hour)
	h.tell()
	h.tell()
	answers := h.answers()
	if len(answers) != 3 {
		t.Fatalf("%d mails, want that of the install and two", len(answers))
	}
	m := parse(t, answers[1])
	body, err := io.ReadAll(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(body), "=\r\n", ""), "=3D", "=")
	if s := m.Header.Get("Subject"); s != "undelivered: 201 mails of Dice 1" || m.Header.Get("Mayfly-State") != "undelivered" {
		t.Errorf("subject %q", s)
	}
	for _, want := range []string{
		"200 mails: the mail: 554 5.7.1 <you> are blocked\r\n", "1 mail: RCPT TO u@example.org: 550 5.1.1 nobody\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if s := parse(t, answers[2]).Header.Get("Subject"); s != "undelivered: 3 mails of Dice 1" {
		t.Errorf("the second says %q", s)
	}
}

// fail records runs that failed.
func (h *host) fail(n int, message string) {
	h.t.Helper()
	for range n {
		record := bot.RunRecord{Status: bot.RunError, Message: message}
		if err := h.ledger.Commit(h.t.Context(), ledger.Commit{Bot: addr, UIDNext: 1, Run: &record, Ended: time.Now()}); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestFailedRunsAreTold: with the line of the error, once an hour, in the folder, and by chat where the author's key is known.
func TestFailedRunsAreTold(t *testing.T) {
	h := newHost(t)
	now := time.Now().Truncate(time.Microsecond)
	h.installer.Now = func() time.Time { return now }
	h.append(pack(t, "1"))
	h.process()
	h.fail(7, "main.js:4:11: Error: no luck\n    at message (main.js:4:11)\n    at more")
	h.fail(1, "killed: the program ran longer than [limits] wall allows")
	h.giveUp(1, "550 5.1.1 nobody")
	h.tell()
	if len(h.letters) != 0 {
		t.Errorf("letters to an unknown author: %q", h.letters)
	}
	m := parse(t, h.answers()[1])
	body, err := io.ReadAll(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.ReplaceAll(string(body), "=\r\n", ""), "=3D", "=")
	if s := m.Header.Get("Subject"); s != "failed: 8 runs, undelivered: 1 mail of Dice 1" || m.Header.Get("Mayfly-State") != "failed" {
		t.Errorf("subject %q, state %q", s, m.Header.Get("Mayfly-State"))
	}
	for _, want := range []string{
		"8 runs of Dice 1 failed, 2", "7 times: main.js:4:11: Error: no luck at message (main.js:4:11)\r\n",
		"1 time: killed: the program ran longer than [limits] wall allows\r\n", "1 mail: 550 5.1.1 nobody\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}

	h.known = true
	h.fail(100, strings.Repeat("long ", 1000))
	for n := range 30 {
		h.fail(1, fmt.Sprintf("main.js:%d:1: %s", n, strings.Repeat("x", 1000)))
	}
	if again, connected := h.tell(); connected || !again.Equal(now.Add(time.Hour)) {
		t.Errorf("within the hour: connected %v, again %v", connected, again)
	}
	now = now.Add(time.Hour)
	h.tell()
	if len(h.letters) != 1 || len(h.letters[0]) > 2*maxChat || !strings.Contains(h.letters[0], "130 runs of Dice 1 failed") ||
		!strings.HasSuffix(h.letters[0], "write /stop.\n") || !strings.Contains(h.letters[0], "The whole list is in") {
		t.Errorf("letters %q", h.letters)
	}
	if out, err := h.ledger.Outbox(t.Context(), addr, 10); err != nil || len(out) != 1 || out[0].Path != "letter 1" || out[0].Exempt {
		t.Errorf("outbox %+v, %v", out, err)
	}
}

// TestToldAgainWhereItCouldNotBe: an append that fails forgets nothing.
func TestToldAgainWhereItCouldNotBe(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1"))
	h.process()
	h.giveUp(1, "550")
	broken := errors.New("over quota")
	_, err := h.installer.Tell(t.Context(), addr, func(context.Context) (Appender, error) { return failingAppend{broken}, nil })
	if !errors.Is(err, broken) {
		t.Errorf("told %v", err)
	}
	h.tell()
	if n := len(h.answers()); n != 2 {
		t.Errorf("%d mails, want that of the install and one", n)
	}
}

type failingAppend struct{ err error }

func (f failingAppend) Append(context.Context, string, []byte) error { return f.err }

// TestCoreRefusesTheKey: the author is told, the bot is not installed, and the same message without the key installs it.
func TestCoreRefusesTheKey(t *testing.T) {
	h := newHost(t)
	h.refuseKey = true
	h.append(pack(t, "1"))
	h.want(Result{State: Refused}, "")
	if answer := string(h.answers()[0]); !strings.Contains(answer, "core refuses the secret key") || !strings.Contains(answer, "No bot is installed.") {
		t.Errorf("the answer:\n%s", answer)
	}
	h.refuseKey = false
	h.append(pack(t, "1"))
	h.want(Result{Changed: true, State: Installed}, "1")
}

// TestWhatWasNotSentIsTold: by the limit, apart from what the relay refused.
func TestWhatWasNotSentIsTold(t *testing.T) {
	h := newHost(t)
	h.append(pack(t, "1"))
	h.process()
	c := ledger.Commit{Bot: addr, UIDNext: 1, Unsent: map[string]int{"20 mails an hour to one contact": 980}, Ended: time.Now()}
	if err := h.ledger.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	h.tell()
	m := parse(t, h.answers()[1])
	body, err := io.ReadAll(m.Body)
	if err != nil {
		t.Fatal(err)
	}
	if s := m.Header.Get("Subject"); s != "over-limit: 980 messages of Dice 1" || m.Header.Get("Mayfly-State") != "over-limit" ||
		!strings.Contains(string(body), "980 messages: 20 mails an hour to one contact\r\n") {
		t.Errorf("subject %q\n%s", s, body)
	}
}
