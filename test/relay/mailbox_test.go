//go:build relay

package relay

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
)

// TestFullAccount fills a bot's account up to its quota with junk while the host is away, and has an update wait in it, whose answer
// finds no room. The host makes room, the update is answered, and so is who writes then.
func TestFullAccount(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r := StartWith(t, Config{Quota: "300k"})
	h, author, u, chat := talk(t, ctx, r, script(t, "return `one: ${msg.text}`"))
	say(t, ctx, u, chat, "a")
	hearText(t, ctx, u, "one: a")
	h.stop()

	put(t, ctx, author, dice, script(t, "return `two: ${msg.text}`"))
	for _, size := range []int{30_000, 1000} {
		full := false
		for n := 0; n < 400 && !full; n++ {
			full = r.Deliver(dice, noise(size)) != nil
		}
		if !full {
			t.Fatal("the account takes more than its quota")
		}
	}
	h.start(r)
	if text := answer(t, ctx, author, 2); !strings.Contains(text, "Mayfly-State: updated") {
		t.Errorf("the answer:\n%s", text)
	}
	requireEmpty(t, ctx, author)
	if !strings.Contains(h.text(), "Quota exceeded") {
		t.Error("the answer had room at once, or the host does not say why it had none")
	}
	say(t, ctx, u, chat, "b")
	hearText(t, ctx, u, "two: b")
}

// noise is junk that does not compress.
func noise(size int) string {
	b := make([]byte, size*3/4)
	rand.Read(b)
	lines := base64.StdEncoding.EncodeToString(b)
	var mail strings.Builder
	mail.WriteString("From: someone@chat.test\r\nSubject: junk\r\n\r\n")
	for ; len(lines) > 76; lines = lines[76:] {
		mail.WriteString(lines[:76] + "\r\n")
	}
	return mail.String()
}

// TestChangedUIDValidity gives the bot's INBOX another UIDVALIDITY, twice, as a relay does that lost its indexes. A mail that waits in it
// is answered once; one that was answered before and lies there again is known by its sender and Message-ID.
func TestChangedUIDValidity(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := Start(t)
	h, author, u, chat := talk(t, ctx, r, script(t, "return `you said: ${msg.text}`"))
	say(t, ctx, u, chat, "one")
	hearText(t, ctx, u, "you said: one")
	requireEmpty(t, ctx, author)
	h.stop()

	say(t, ctx, u, chat, "two")
	mail := waitingMail(t, ctx, author)
	loseIndexes(t, ctx, r)
	h.start(r)
	hearText(t, ctx, u, "you said: two")
	requireEmpty(t, ctx, login(t, r, dice))
	h.stop()

	must(t, r.Deliver(dice, string(mail)))
	loseIndexes(t, ctx, r)
	h.start(r)
	requireEmpty(t, ctx, login(t, r, dice))
	say(t, ctx, u, chat, "three")
	hearText(t, ctx, u, "you said: three")
	l, err := ledger.Open(ctx, filepath.Join(h.dir, "state", "ledger.db"))
	must(t, err)
	defer l.Close()
	refusals, err := l.Refusals(ctx, dice)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 10)
	must(t, err)
	if refusals["replay"] != 1 || len(refusals) != 1 || len(runs) != 3 {
		t.Errorf("refused %v and %d runs, want one replay and three runs", refusals, len(runs))
	}
}

// waitingMail waits for a mail in the INBOX and returns it.
func waitingMail(t *testing.T, ctx context.Context, c *mailbox.Client) []byte {
	t.Helper()
	for {
		_, err := c.Select(ctx, "INBOX")
		must(t, err)
		list, err := c.List(ctx, 0, 1)
		must(t, err)
		if len(list) == 1 {
			mail, err := c.Fetch(ctx, list[0].UID, 1<<20)
			must(t, err)
			return mail
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// loseIndexes deletes what Dovecot knows of the bot's INBOX beside the mails.
func loseIndexes(t *testing.T, ctx context.Context, r *Relay) {
	t.Helper()
	validity := func() uint32 {
		c := login(t, r, dice)
		defer c.Close()
		status, err := c.Select(ctx, "INBOX")
		must(t, err)
		return status.UIDValidity
	}
	before := validity()
	time.Sleep(time.Second) // Dovecot takes the time in seconds
	for _, pattern := range []string{"dovecot-uidlist", "dovecot-uidvalidity*", "dovecot.index*", "dovecot.list.index*"} {
		found, err := filepath.Glob(filepath.Join(r.dir, "mail", string(dice), pattern))
		must(t, err)
		for _, path := range found {
			if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
				must(t, err)
			}
		}
	}
	if after := validity(); after == before {
		t.Fatalf("the UIDVALIDITY is still %d", after)
	}
}
