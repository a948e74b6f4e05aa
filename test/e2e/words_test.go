package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/core"
)

// A user stops a bot and hears nothing from it, also in a group where another user goes on, until the user says /start.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	echo := script("Echo", `export default { message(msg) { return "echo " + msg.text } }`)
	address, invite := w.start("words0001", echo)
	ada, bob := w.person("ada000021"), w.person("bob000021")
	chat, bobs := ada.join(invite), bob.join(invite)
	group := ada.group("Club", chat, ada.meet(bob))
	ada.say(chat, "one")
	ada.expect("echo one")
	bob.say(bobs, "hi")
	bob.expect("echo hi")

	mark := w.log.offset()
	ada.say(chat, "/STOP please")
	if m := ada.hear(); !strings.Contains(m.Text, "/start") || m.ChatID != chat || !m.ShowPadlock || !m.IsBot {
		t.Errorf("the answer to /stop is %+v", m)
	}
	ada.say(chat, "two")
	w.await(mark, "mail refused", `"reason":"stopped"`)
	runs, err := w.ledger().Runs(w.ctx, address, 10)
	if err != nil || len(runs) != 2 {
		t.Errorf("%d runs, %v: want the two before", len(runs), err)
	}

	ada.say(group, "hello all")
	in := bob.expect("hello all")
	if err := bob.Call(w.ctx, "accept_chat", nil, bob.Account, in.ChatID); err != nil {
		t.Fatal(err)
	}
	bob.say(in.ChatID, "@Echo are you there?")
	bob.expect("echo @Echo are you there?")
	ada.expect("@Echo are you there?") // bob's, and not the bot's behind it: the next is the answer to /start
	ada.say(chat, "/start")
	if m := ada.hear(); !strings.Contains(m.Text, "again") || m.ChatID != chat {
		t.Errorf("after /start ada hears %q", m.Text)
	}
	ada.say(chat, "three")
	ada.expect("echo three")
	ada.say(chat, "/about")
	if m := ada.hear(); !strings.Contains(m.Text, "Hosted by Mayfly on ") || m.ChatID != chat {
		t.Errorf("/about: %q", m.Text)
	}
}

// Chatter of a group starts nothing, once core knows its sender.
func TestGroupChatterStartsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("words0002", script("Echo", `export default { message(msg) { return "echo " + msg.text } }`))
	ada := w.person("ada000022")
	chat := ada.join(invite)
	group := ada.group("Club", chat)
	ada.say(group, "@echo hello")
	ada.expect("echo @echo hello")
	jobs := func() int {
		t.Helper()
		all, err := w.ledger().Runs(w.ctx, address, 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before, mark := jobs(), w.log.offset()
	ada.say(group, "only chatter")
	w.await(mark, "mail refused", `"reason":"group privacy"`)
	if after := jobs(); after != before {
		t.Errorf("%d runs, %d before", after, before)
	}
}

// operate runs a verb of the operator's beside the host.
func (w *world) operate(args ...string) {
	w.t.Helper()
	args = append(args, "-config", w.config)
	if out, err := exec.CommandContext(w.ctx, filepath.Join(binaries, "mayfly"), args...).CombinedOutput(); err != nil {
		w.t.Fatalf("mayfly %s: %v\n%s", args, err, out)
	}
}

// A bot that is paused is not started, and what is written to it waits; the host's words are answered all the same.
func TestHostWordsOfAPausedBot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	echo := script("Echo", `export default { message(msg) { return "echo " + msg.text } }`).with("[[commands]]\nname = \"again\"\ndescription = \"once more\"\n")
	address, invite := w.start("words0003", echo)
	ada, bob := w.person("ada000023"), w.person("bob000023")
	chat, bobs := ada.join(invite), bob.join(invite)
	ada.say(chat, "one")
	ada.expect("echo one")
	bob.say(bobs, "two")
	bob.expect("echo two")

	w.operate("pause", "echo", "--why", "a test")
	ada.say(chat, "/help")
	if m := ada.hear(); !strings.Contains(m.Text, "/again – once more\n/about – ") || m.ChatID != chat {
		t.Errorf("/help: %q", m.Text)
	}
	bob.say(bobs, "three")
	ada.say(chat, "this waits, and is deleted then")
	ada.say(chat, "/usage")
	if m := ada.hear(); !strings.Contains(m.Text, " of 60 messages in the last hour") || !strings.Contains(m.Text, "The operator has paused it") {
		t.Errorf("/usage: %q", m.Text)
	}
	ada.say(chat, "/stop")
	if m := ada.hear(); !strings.Contains(m.Text, "You have stopped Echo.") {
		t.Errorf("/stop: %q", m.Text)
	}
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 2 {
		t.Errorf("%d runs, %v: want the two before the pause", len(runs), err)
	}
	mark := w.log.offset()
	w.operate("resume", "echo")
	bob.expect("echo three")
	w.await(mark, "mail refused", `"reason":"stopped"`)
	ada.say(chat, "/start")
	if m := ada.hear(); m.Text != "Echo may write to you again." {
		t.Errorf("/start: %q", m.Text)
	}
}

// What only core can tell to be a word to the host is heard, too: in a group the answer to a message of the bot's, and a word with a file.
func TestStopThatOnlyCoreCanTell(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("words0004", script("Echo", `export default { message(msg) { return "echo " + msg.text } }`))
	ada := w.person("ada000024")
	chat := ada.join(invite)
	group := ada.group("Club", chat)
	answer := func(text string, to core.MsgID) {
		t.Helper()
		if _, err := ada.SendMsg(w.ctx, ada.Account, group, core.MessageData{Text: text, QuotedMessageID: to}); err != nil {
			t.Fatal(err)
		}
	}
	own := ada.say(group, "@echo hello")
	echo := ada.expect("echo @echo hello")
	answer("/stop", own) // not the bot's: one answer is heard, and not two
	answer("/stop", echo.ID)
	if m := ada.hear(); !strings.Contains(m.Text, "You have stopped Echo.") || m.ChatID != chat {
		t.Errorf("/stop in answer: %q", m.Text)
	}
	ada.say(group, "@echo are you there?")
	ada.say(chat, "/start")
	if m := ada.hear(); m.Text != "Echo may write to you again." {
		t.Errorf("after /start ada hears %q", m.Text)
	}
	picture := w.write("dot.png", "no picture")
	if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "/stop", File: picture}); err != nil {
		t.Fatal(err)
	}
	if m := ada.hear(); !strings.Contains(m.Text, "You have stopped Echo.") {
		t.Errorf("/stop with a file: %q", m.Text)
	}
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 1 {
		t.Errorf("%d runs, %v: want the one of the first message", len(runs), err)
	}
}
