package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// sentTo is how many mails a contact got of a bot within the last hour, handshakes included.
func (w *world) sentTo(address bot.Address, to *person) int64 {
	w.t.Helper()
	addr, err := to.GetConfig(w.ctx, to.Account, "configured_addr")
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := w.ledger().Used(w.ctx, address, ledger.ByRecipient(bot.Address(addr)), ledger.Sent, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// A bot that tries to send 1,000 messages in a loop sends what one contact may get in an hour. It reads why; its author is told, and so is
// the operator. What the contact writes then waits, and others have their answers.
func TestAThousandMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most = 20
	w.settings = strings.NewReplacer("[log]", fmt.Sprintf("[limits.sending]\nmails_per_hour_and_contact = %d\n[log]", most))
	address, client := w.newAccount("flood0001")
	w.append(client, address, script("Flood", `export default { async message(msg) {
		for (let i = 0; i < 1000; i++) try { await msg.reply(msg.text + i) } catch (e) { console.log(i + ': ' + e.message) }
	} }`))
	w.serve()
	invite := w.installed(client)
	ada, bob := w.person("ada000031"), w.person("bob000031")
	chat := ada.join(invite)
	shaken := w.sentTo(address, ada)
	ada.say(chat, "a")
	for i := range most - int(shaken) {
		ada.expect(fmt.Sprintf("a%d", i))
	}
	run := w.run(address)
	const words = "20 mails an hour to one contact"
	if run.Record.Status != bot.RunOK || run.Record.Unsent[words] != 1000-most+int(shaken) {
		t.Errorf("record %+v", run.Record)
	}
	if want := "send_msg: the limit of " + words + " is reached: try again after 2"; !strings.Contains(run.Record.Log, want) {
		t.Errorf("%q is not in the bot's log:\n%.2000s", want, run.Record.Log)
	}
	if n := w.sentTo(address, ada); n != most {
		t.Errorf("ada got %d mails, want %d", n, most)
	}
	if m := w.status(client, 2); !strings.Contains(m, "Mayfly-State: over-limit") || !strings.Contains(m, "messages: "+words) {
		t.Errorf("the author was told\n%s", m)
	}
	ada.say(chat, "b")
	if m := ada.hear(); !strings.HasPrefix(m.Text, "You have reached a limit of Flood: 20 messages to you an hour.") {
		t.Errorf("ada hears %q", m.Text)
	}
	bobs := bob.join(invite)
	bob.say(bobs, "c")
	bob.expect("c0")
}

// What no gateway counts is counted by its envelope: of a group whose members have had enough, the others get it. All else goes on.
func TestEnvelopesAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings = strings.NewReplacer("[log]", "[limits.sending]\nmails_per_hour_and_contact = 9\n[log]")
	address, invite := w.start("pipes0001", native("Pipes", "sh", "echo pong"))
	ada, bob := w.person("ada000032"), w.person("bob000032")
	chat := ada.join(invite)
	bob.join(invite)
	group := ada.group("Club", chat, ada.meet(bob))
	ada.say(group, "hello all")
	in := bob.expect("hello all")
	if err := bob.Call(w.ctx, "accept_chat", nil, bob.Account, in.ChatID); err != nil {
		t.Fatal(err)
	}
	for w.sentTo(address, ada) < 9 {
		ada.say(chat, "ping")
		ada.expect("pong")
	}
	bob.say(in.ChatID, "@Pipes")
	ada.expect("@Pipes")
	if m := bob.expect("pong"); m.ChatID != in.ChatID {
		t.Errorf("in chat %d", m.ChatID)
	}
	run := w.run(address)
	if run.Record.Status != bot.RunOK || run.Record.Unsent["9 mails an hour to one contact"] == 0 || w.sentTo(address, ada) != 9 {
		t.Errorf("record %+v, ada got %d", run.Record, w.sentTo(address, ada))
	}
}

// An attachment above the operator's bound is refused, one below it is sent.
func TestAttachmentsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings = strings.NewReplacer("[log]", "[limits.sending]\nattachment = \"300kB\"\n[log]")
	_, invite := w.start("files0031", script("Files", `export default { async message(msg) {
		try { await msg.reply({ text: 'it', file: { name: 'a.bin', data: new Uint8Array(Number(msg.text)) } }) } catch (e) { return e.message }
	} }`))
	ada := w.person("ada000033")
	chat := ada.join(invite)
	ada.say(chat, "300001")
	if m := ada.hear(); !strings.Contains(m.Text, "send_msg: parameter 3: file ") {
		t.Errorf("above the bound: %q", m.Text)
	}
	ada.say(chat, "290000")
	if m := ada.whole(ada.hear()); m.Text != "it" || m.FileBytes != 290000 {
		t.Errorf("below the bound: %+v", m)
	}
}
