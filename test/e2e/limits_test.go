package e2e

import (
	"strings"
	"testing"

	"mayfly/internal/bot"
)

// A contact over its limit is told once, and its mail is worked off later: here when the author grants more, and the host, which
// remembers how long mail waits, has started again.
func TestAContactOverItsLimit(t *testing.T) {
	w := newWorld(t)
	const source = "export default { message(msg) { return 'echo ' + msg.text } }"
	// Two of the four are the handshake.
	address, client := w.newAccount("limited01")
	w.append(client, address, script("Limited", source).with("[limits.per_user]\nmails_per_hour = 4\n"))
	w.serve()
	invite := w.installed(client)
	ada := w.person("ada000001")
	chat := ada.join(invite)
	for _, text := range []string{"one", "two", "three", "four"} {
		ada.say(chat, text)
	}
	ada.expect("echo one")
	ada.expect("echo two")
	if notice := ada.hear(); !strings.HasPrefix(notice.Text, "You have reached a limit of Limited: 4 messages an hour. What you write is kept") {
		t.Errorf("the contact was told %q", notice.Text)
	}
	w.await(0, "mail waits: over a budget", `"mails":2`)
	w.append(client, address, script("Limited", source))
	w.status(client, 2)
	w.stop()
	w.serve()
	ada.expect("echo three") // and no second notice before it
	ada.expect("echo four")
}

// A bot that burns CPU time is ended when its budget is used up. Then its mail waits, and its author is told.
func TestABotThatBurnsItsBudget(t *testing.T) {
	w := newWorld(t)
	w.settings = strings.NewReplacer("[log]", "[limits]\ncpu_per_hour = \"2s\"\n[log]")
	address, client := w.newAccount("burner001")
	w.append(client, address, script("Burner", "export default { message() { for (;;) {} } }").with("[limits.per_user]\nmails_per_hour = 50\n"))
	w.serve()
	invite := w.installed(client)
	ada := w.person("ada000001")
	chat := ada.join(invite)
	ada.say(chat, "burn")
	w.awaitJobs(address, 3)
	if run := w.run(address); run.Record.Status != bot.RunTimeout || !strings.Contains(run.Record.Message, "CPU time") {
		t.Errorf("record %s %q", run.Record.Status, run.Record.Message)
	}
	ada.say(chat, "again")
	var answer string
	for n := 2; n <= 3 && !strings.Contains(answer, "Mayfly-State: over-limit"); n++ { // that the run failed is told apart
		answer = w.status(client, n)
	}
	if !strings.Contains(answer, "Mayfly-State: over-limit") || !strings.Contains(answer, "2s of CPU time an hour") {
		t.Errorf("the author was told\n%s", answer)
	}
}
