//go:build relay

package relay

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/mailbox"
	"mayfly/internal/user"
)

// script is a bundle with one handler.
func script(t *testing.T, handler string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.FromFiles([]bundle.File{
		{Path: "main.js", Data: []byte("export default { async message(msg) {\n" + handler + "\n} }\n")},
		{Path: "bot.toml", Data: []byte("name = \"Bot\"\nversion = \"1\"\ncontact = \"you@example.org\"\nruntime = \"js\"\nmain = \"main.js\"\n")},
	}, bundle.DefaultCeilings())
	must(t, err)
	return b
}

// talk installs a bot by the hook and lets a person join it.
func talk(t *testing.T, ctx context.Context, r *Relay, b *bundle.Bundle) (h *host, author *mailbox.Client, u *user.User, chat core.ChatID) {
	t.Helper()
	h = serve(t, r, byHook(r))
	h.awaitReady()
	author = login(t, r, dice)
	put(t, ctx, author, dice, b)
	link := invite(t, ctx, author)
	u = person(t, ctx, r, ada)
	chat, err := u.Join(ctx, link)
	must(t, err)
	return h, author, u, chat
}

func say(t *testing.T, ctx context.Context, u *user.User, chat core.ChatID, text string) {
	t.Helper()
	_, err := u.Say(ctx, chat, text)
	must(t, err)
}

func hearText(t *testing.T, ctx context.Context, u *user.User, want string) {
	t.Helper()
	m, err := u.Next(ctx)
	must(t, err)
	if !m.Authentic() || m.Text != want {
		t.Errorf("heard %q, want %q", m.Text, want)
	}
}

// TestRateLimit has a bot say at once more than the relay takes of a sender: 450 puts the rest off, and in the end all of it has come,
// once, and the relay was handed it in order. (Postfix delivers several mails at a time, so that the user may see another order.)
func TestRateLimit(t *testing.T) {
	t.Parallel()
	const replies = 14
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	r := Start(t)
	h, author, u, chat := talk(t, ctx, r, script(t, fmt.Sprintf(`for (let i = 1; i <= %d; i++) await msg.reply(String(i))`, replies)))
	say(t, ctx, u, chat, "go")
	said := map[string]string{} // texts by Message-ID
	for range replies {
		m, err := u.Next(ctx)
		must(t, err)
		said[messageID(t, ctx, u, m)] = m.Text
	}
	passed := r.Passed(dice)
	passed = passed[len(passed)-replies:] // before it come the two of the handshake
	for i, id := range passed {
		if want := fmt.Sprint(i + 1); said[id] != want {
			t.Errorf("the relay was handed %q as number %s", said[id], want)
		}
	}
	if len(said) != replies || len(r.Passed(dice)) != replies+2 {
		t.Errorf("the relay took %d mails, %d of %d replies came", len(r.Passed(dice)), len(said), replies)
	}
	if r.Filter().TooMany == 0 || !strings.Contains(h.text(), "a mail has to wait") || !strings.Contains(h.text(), "450") {
		t.Errorf("the filter put off %d mails, the host said nothing of 450", r.Filter().TooMany)
	}
	requireEmpty(t, ctx, author)
}

// messageID is that of a message in a person's core.
func messageID(t *testing.T, ctx context.Context, u *user.User, m core.Message) string {
	t.Helper()
	var info string
	must(t, u.Call(ctx, "get_message_info", &info, u.Account, m.ID))
	id := regexp.MustCompile(`(?m)^Message-ID: (\S+)$`).FindStringSubmatch(info)
	if id == nil {
		t.Fatalf("no Message-ID in:\n%s", info)
	}
	return strings.Trim(id[1], "<>")
}

// TestRefusedForGood blocks a bot at the relay: its author is told with the relay's words, one mail for all, and when it is no longer
// blocked, it goes on.
func TestRefusedForGood(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := Start(t)
	_, author, u, chat := talk(t, ctx, r, script(t, "await msg.reply(`one ${msg.text}`); await msg.reply(`two ${msg.text}`)"))
	r.Block(dice, true)
	say(t, ctx, u, chat, "a")
	text := answer(t, ctx, author, 2)
	for _, want := range []string{
		"Mayfly-State: undelivered", "Subject: undelivered: 2 mails of Bot 1",
		"2 mails: ", "554", "5.7.1", "Mail from " + string(dice) + " is blocked: ask postmaster",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the mail to the author:\n%s", want, text)
		}
	}
	say(t, ctx, u, chat, "b") // is refused too, and not told within the hour
	requireEmptyAfter(t, ctx, author, r, 4)
	r.Block(dice, false)
	say(t, ctx, u, chat, "c")
	heard := []string{}
	for range 2 {
		m, err := u.Next(ctx)
		must(t, err)
		heard = append(heard, m.Text)
	}
	if slices.Sort(heard); !slices.Equal(heard, []string{"one c", "two c"}) { // Postfix delivers both at a time
		t.Errorf("heard %q", heard)
	}
	status, err := author.Select(ctx, "Bot/Status")
	must(t, err)
	if status.Messages != 2 {
		t.Errorf("%d mails in Bot/Status, want that of the install and one", status.Messages)
	}
}

// requireEmptyAfter waits until the filter has refused n mails of a blocked sender and the INBOX is empty.
func requireEmptyAfter(t *testing.T, ctx context.Context, c *mailbox.Client, r *Relay, n int) {
	t.Helper()
	for r.Filter().Blocked < n && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	requireEmpty(t, ctx, c)
}
