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
