package core_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
)

// pair is a bot and a user on one relay, joined by the bot's invite link.
func pair(t *testing.T) (bot, user *coretest.Core, chat core.ChatID) {
	t.Helper()
	relay := coretest.NewRelay(t)
	bot, user = coretest.Start(t, t.TempDir()), coretest.Start(t, t.TempDir())
	bot.Configure(t, relay, "dice@chat.test", true)
	user.Configure(t, relay, "alice@chat.test", false)
	bot.Online(t)
	user.Online(t)
	return bot, user, user.Join(t, bot)
}

func send(t *testing.T, c *coretest.Core, chat core.ChatID, data core.MessageData) core.MsgID {
	t.Helper()
	id, err := c.SendMsg(t.Context(), c.Account, chat, data)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMessagesGoBothWays(t *testing.T) {
	bot, user, chat := pair(t)
	send(t, user, chat, core.MessageData{Text: "2d6"})
	question := bot.WaitMessage(t)
	if question.Text != "2d6" || !question.Authentic() || question.IsBot || question.Sender.Address != "alice@chat.test" || question.DownloadState != "Done" {
		t.Errorf("the bot got %+v", question)
	}

	reply := send(t, bot, question.ChatID, core.MessageData{Text: "7", QuotedMessageID: question.ID})
	bot.Wait(t, func(e core.Event) bool { return e.Kind == core.MsgDelivered && e.MsgID == reply })
	answer := user.WaitMessage(t)
	if answer.Text != "7" || !answer.Authentic() || !answer.IsBot || answer.Quote == nil || answer.Quote.Text != "2d6" {
		t.Errorf("the user got %+v, quote %+v", answer, answer.Quote)
	}

	_, err := user.SendReaction(t.Context(), user.Account, answer.ID, "👍")
	ok(t, err)
	e := bot.Wait(t, func(e core.Event) bool { return e.Kind == core.IncomingReaction })
	if e.MsgID != reply || e.Reaction != "👍" || e.ContactID != question.FromID || e.AccountID != bot.Account {
		t.Errorf("reaction event %+v", e)
	}
	reactions, err := bot.MessageReactions(t.Context(), bot.Account, reply)
	ok(t, err)
	if got := reactions.ByContact[question.FromID]; len(got) != 1 || got[0] != "👍" {
		t.Errorf("reactions %+v", reactions)
	}

	ok(t, bot.SendEdit(t.Context(), bot.Account, reply, "8"))
	user.Wait(t, func(e core.Event) bool { return e.Kind == core.MsgsChanged && e.MsgID == answer.ID })
	edited, err := user.GetMessage(t.Context(), user.Account, answer.ID)
	ok(t, err)
	if edited.Text != "8" || !edited.IsEdited {
		t.Errorf("after the edit %+v", edited)
	}
}

func TestBigFileIsOneMessageToABot(t *testing.T) {
	bot, user, chat := pair(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	file := filepath.Join(t.TempDir(), "big.bin")
	ok(t, os.WriteFile(file, content, 0o600))
	send(t, user, chat, core.MessageData{Text: "look", File: file, ViewType: "File"})

	m := bot.WaitMessage(t)
	if m.Text != "look" || m.ViewType != "File" || m.FileName != "big.bin" || m.FileBytes != 1<<20 {
		t.Errorf("the bot got %+v", m)
	}
	got, err := os.ReadFile(m.File)
	ok(t, err)
	if !bytes.Equal(got, content) {
		t.Error("the file is not the one sent")
	}
}

func TestGroup(t *testing.T) {
	bot, user, chat := pair(t)
	ctx := t.Context()
	single, err := user.FullChat(ctx, user.Account, chat)
	ok(t, err)
	group, err := user.CreateGroup(ctx, user.Account, "Club")
	ok(t, err)
	ok(t, user.AddContactToChat(ctx, user.Account, group, single.ContactIDs[0]))
	send(t, user, group, core.MessageData{Text: "welcome"})

	m := bot.WaitMessage(t)
	basic, err := bot.BasicChat(ctx, bot.Account, m.ChatID)
	ok(t, err)
	full, err := bot.FullChat(ctx, bot.Account, m.ChatID)
	ok(t, err)
	if basic.Name != "Club" || basic.Type != "Group" || !basic.IsEncrypted || len(full.ContactIDs) != 2 || !full.CanSend {
		t.Errorf("the bot's chat is %+v, %+v", basic, full)
	}
	contact, err := bot.Contact(ctx, bot.Account, m.FromID)
	ok(t, err)
	if contact.Address != "alice@chat.test" || !contact.IsKeyContact {
		t.Errorf("the member is %+v", contact)
	}
}

func TestAccountSurvivesARestartElsewhere(t *testing.T) {
	relay, dir := coretest.NewRelay(t), filepath.Join(t.TempDir(), "first")
	c := coretest.Start(t, dir)
	c.Configure(t, relay, "dice@chat.test", true)
	ok(t, c.SetConfig(t.Context(), c.Account, "ui.note", "kept"))
	invite, err := c.Invite(t.Context(), c.Account)
	ok(t, err)
	c.End(t)

	moved := filepath.Join(t.TempDir(), "second")
	ok(t, os.Rename(dir, moved))
	c = coretest.Start(t, moved)
	if configured, err := c.IsConfigured(t.Context(), c.Account); err != nil || !configured {
		t.Errorf("configured %v, %v", configured, err)
	}
	if note, err := c.GetConfig(t.Context(), c.Account, "ui.note"); err != nil || note != "kept" {
		t.Errorf("ui.note is %q, %v", note, err)
	}
	if unset, err := c.GetConfig(t.Context(), c.Account, "ui.other"); err != nil || unset != "" {
		t.Errorf("ui.other is %q, %v", unset, err)
	}
	if again, err := c.Invite(t.Context(), c.Account); err != nil || fingerprint(again) != fingerprint(invite) {
		t.Errorf("invite %q, %v; before %q", again, err, invite)
	}
}

func TestCoreAnswersWithAnError(t *testing.T) {
	c := coretest.Start(t, t.TempDir())
	var coreErr *core.Error
	if _, err := c.GetMessage(t.Context(), 7, 1); !errors.As(err, &coreErr) || coreErr.Message == "" || !strings.HasPrefix(err.Error(), "get_message: core: ") {
		t.Errorf("got %v, want core's own error", err)
	}
	info, err := c.SystemInfo(t.Context())
	if err != nil || !strings.HasPrefix(info["deltachat_core_version"], "v2.") {
		t.Errorf("system info %v, %v", info, err)
	}
}

func TestCallsEndWithTheirContextAndWithCore(t *testing.T) {
	c := coretest.Start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "sleep", nil, 5); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call over its deadline: %v", err)
	}
	if _, err := c.AccountIDs(t.Context()); err != nil {
		t.Errorf("a call after one that was given up: %v", err)
	}
	c.End(t)
	if _, err := c.AccountIDs(t.Context()); !errors.Is(err, core.ErrClosed) {
		t.Errorf("a call after Close: %v", err)
	}
	select {
	case _, open := <-c.Events:
		for open {
			_, open = <-c.Events
		}
	case <-time.After(5 * time.Second):
		t.Error("the events go on after core's end")
	}
}

// fingerprint is the part of an invite link that stays: core makes a new auth token for each link.
func fingerprint(invite string) string {
	_, rest, _ := strings.Cut(invite, "#")
	key, _, _ := strings.Cut(rest, "&")
	return key
}
