package e2e

import (
	"strings"
	"testing"

	"mayfly/internal/bot"
)

// atOnce is a script whose replies do not wait for the end of its run.
func atOnce(name, source string) files {
	f := script(name, source)
	f["bot.toml"] = "replies = \"at once\"\n" + strings.ReplaceAll(f["bot.toml"], `wall = "5s"`, `wall = "30s"`)
	return f
}

const oneAndTwo = `export default { async message(msg) {
	await msg.reply("one to " + msg.text)
	await new Promise(r => setTimeout(r, 5000))
	await msg.reply("two to " + msg.text)
} }`

// TestAtOnce: what a bot says is there before its run ends, and once each, in order.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("atonce001", atOnce("Now", oneAndTwo))
	ada := w.person("ada000060")
	chat := ada.join(invite)
	ada.say(chat, "a")
	ada.expect("one to a")
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 0 {
		t.Fatalf("the run was over before its first message came: %v, %v", runs, err)
	}
	ada.expect("two to a")
	ada.say(chat, "b")
	ada.expect("one to b") // and nothing twice
	ada.expect("two to b")
	w.awaitJobs(address, 4) // the handshake's among them
	if r := w.run(address).Record; r.Status != bot.RunOK || r.AtOnce != 2 {
		t.Errorf("the run's record: %+v", r)
	}
}

// TestAtOnceIsAtLeastOnce kills the host with SIGKILL between two messages: the first has been sent, and the message is answered anew.
func TestAtOnceIsAtLeastOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("atonce002", atOnce("Now", oneAndTwo))
	ada := w.person("ada000061")
	chat := ada.join(invite)
	ada.say(chat, "a")
	ada.expect("one to a")
	w.kill()
	w.serve()
	ada.expect("one to a")
	ada.expect("two to a")
	w.awaitJobs(address, 3)
}

// TestAtOnceThatFails: what the bot has said stays said, core's account remembers it, and its folder is as it was.
func TestAtOnceThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("atonce003", atOnce("Torn", `export default { async message(msg, env) {
		if (msg.text === "kept?") return JSON.stringify([await env.storage.get("k"), msg.quote && msg.quote.text])
		await env.storage.put("k", "v")
		await msg.reply("one")
		throw new Error("and no more")
	} }`))
	ada := w.person("ada000062")
	chat := ada.join(invite)
	ada.say(chat, "a")
	one := ada.expect("one")
	if sorry := ada.hear(); !strings.Contains(sorry.Text, "something may be missing") {
		t.Errorf("the user is told %q", sorry.Text)
	}
	w.awaitJobs(address, 3)
	if r := w.run(address); r.Record.Status != bot.RunError || r.Record.AtOnce != 1 || !r.Committed {
		t.Errorf("the run's record: %+v", r)
	}
	if err := ada.Call(w.ctx, "send_msg", nil, ada.Account, chat, map[string]any{"text": "kept?", "quotedMessageId": one.ID}); err != nil {
		t.Fatal(err)
	}
	ada.expect(`[null,"one"]`)
	w.awaitJobs(address, 4) // it said so before its session was committed
}
