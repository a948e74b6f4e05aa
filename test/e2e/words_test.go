package e2e

import (
	"strings"
	"testing"
)

// A user stops a bot and hears nothing from it, also in a group where another user goes on, until the user says /start.
func TestStopAndStart(t *testing.T) {
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
