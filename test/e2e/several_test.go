package e2e

import (
	"fmt"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// counting replies with how many messages it has had, and keeps that in its folder. It fails on "fail", and is slow on "slow".
const counting = `export default { async message(msg, env) {
	const n = Number(await env.storage.get("n") || 0) + 1
	await env.storage.put("n", String(n))
	if (msg.text.startsWith("slow")) await new Promise(r => setTimeout(r, 1500))
	await msg.reply(msg.text + " is " + n)
	if (msg.text === "fail") throw new Error("told to")
} }`

// cores is how many cores were up for a mail since an offset of the host's log.
func (w *world) cores(after int) int {
	return strings.Count(w.log.String()[after:], `"stage":"imap-login"`)
}

// TestSeveralInOneSession: mails that wait for a bot are answered in order, each once, on the folder that the one before has left, and one
// core serves many of them.
func TestSeveralInOneSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("several01", script("Count", counting))
	ada, bob := w.person("ada000063"), w.person("bob000063")
	adas, bobs := ada.join(invite), bob.join(invite)
	ada.say(adas, "first")
	ada.expect("first is 1")
	w.awaitJobs(address, 5) // of two handshakes
	w.stop()
	before := w.relay.Stats().Delivered
	for i := range 10 {
		ada.say(adas, fmt.Sprint("a", i))
		w.awaitDelivered(before + int64(i) + 1)
	}
	bob.say(bobs, "b")
	w.awaitDelivered(before + 11)
	w.serve()
	for i := range 10 {
		ada.expect(fmt.Sprintf("a%d is %d", i, i+2))
	}
	bob.expect("b is 12")
	w.awaitJobs(address, 16)
	if n := w.cores(0); n > 3 {
		t.Errorf("%d cores for 11 mails", n)
	}
	runs, err := w.ledger().Runs(w.ctx, address, 11)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		if len(r.Jobs) != 1 || !r.Committed || r.Record.Status != bot.RunOK || r.Record.CPU == 0 || r.Record.CoreCPU <= 0 {
			t.Errorf("a run: %+v", r)
		}
	}
	sent, err := w.ledger().Used(w.ctx, address, ledger.ByRecipient(bot.Address("bob000063@"+domain)), ledger.Sent, 3600e9)
	if err != nil || sent != 3 { // two of the handshake's
		t.Errorf("bob was sent %d mails, %v", sent, err)
	}
	ada.say(adas, "last")
	ada.expect("last is 13")
}

// TestSeveralWithAFailure: a run that fails undoes the session, and then every mail has one of its own.
func TestSeveralWithAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("several02", script("Count", counting))
	ada := w.person("ada000064")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	w.stop()
	before := w.relay.Stats().Delivered
	for i, text := range []string{"a", "b", "fail", "c"} {
		ada.say(chat, text)
		w.awaitDelivered(before + int64(i) + 1)
	}
	w.serve()
	ada.expect("a is 1")
	ada.expect("b is 2")
	if m := ada.hear(); !strings.HasPrefix(m.Text, "Sorry, this bot failed on your message") {
		t.Errorf("heard %q", m.Text)
	}
	ada.expect("c is 3")
	w.awaitJobs(address, 6)
	w.await(0, "have one each now", "told to")
	jobs, err := w.ledger().Jobs(w.ctx, address, ledger.JobCleared)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		if j.Attempts != 1 {
			t.Errorf("job %d: %d attempts", j.ID, j.Attempts)
		}
	}
	if fresh := w.run(address).Record; fresh.Status != bot.RunOK {
		t.Errorf("the last run: %+v", fresh)
	}
}

// TestKillInASessionOfSeveral: nothing was said, and everything is said once.
func TestKillInASessionOfSeveral(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("several03", script("Count", counting))
	ada := w.person("ada000065")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	w.stop()
	before := w.relay.Stats().Delivered
	for i, text := range []string{"a", "b", "slow", "c"} {
		ada.say(chat, text)
		w.awaitDelivered(before + int64(i) + 1)
	}
	w.serve()
	after := 0
	for range 3 { // the third is presented to core
		w.await(after, `"stage":"fetched"`)
		after = strings.Index(w.log.String()[after:], `"stage":"fetched"`) + after + 10
	}
	w.kill()
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 0 {
		t.Fatalf("the kill came after a commit: %v, %v", runs, err)
	}
	w.serve()
	for i, text := range []string{"a", "b", "slow", "c"} {
		ada.expect(fmt.Sprintf("%s is %d", text, i+1))
	}
	w.awaitJobs(address, 6)
	ada.say(chat, "d")
	ada.expect("d is 5")
}
