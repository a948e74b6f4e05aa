package e2e

import (
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// TestCoreDiesOfACall has a bot hand core pictures that core cannot take apart in its memory. That is a failed run of the bot, at once:
// the user reads a sentence, no mail is set aside, and the next one is answered.
func TestCoreDiesOfACall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := resident("Bomber", "python3", client+`
import struct, zlib
def chunk(name, data): return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
def bomb(side):
    z, row = zlib.compressobj(1), bytes(1 + 4 * side)
    data = b"".join(z.compress(row) for _ in range(side)) + z.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
for msg in messages():
    if msg["text"] == "bomb":
        open("/tmp/bomb.png", "wb").write(bomb(10000))
        for n in range(4): # at once
            print(json.dumps({"jsonrpc": "2.0", "id": 100 + n, "method": "send_msg",
                "params": [account, msg["chatId"], {"viewtype": "Image", "file": "/tmp/bomb.png"}]}), file=server.stdin, flush=True)
        for n in range(4):
            print(server.stdout.readline(), file=sys.stderr)
    say(msg, "you said: " + msg["text"])
`)
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "30s"`, 1)
	address, invite := w.start("bomber001", f)
	ada := w.person("ada000130")
	chat := ada.join(invite)
	ada.say(chat, "bomb")
	if m := ada.hear(); !strings.Contains(m.Text, "this bot failed on your message") {
		t.Errorf("heard %q", m.Text)
	}
	r := w.run(address).Record
	if r.Status != bot.RunError || !strings.Contains(r.Message, "the last call was send_msg") || !strings.Contains(r.Message, "more memory than it has") || r.CPU <= 0 {
		t.Errorf("%s %q with %s of CPU, want RE that names the call and the memory", r.Status, r.Message, r.CPU)
	}
	ada.say(chat, "well")
	ada.expect("you said: well")
	w.noneSetAside(address)
}

// TestCoreDiesDuringACall kills core after a call of the bot, twice: the first time may have been the host's fault, the second is the
// bot's. Then core hangs at its end, with the same result.
func TestCoreDiesDuringACall(t *testing.T) {
	w := newWorld(t)
	address, invite := w.start("corekill1", script("Caller", `export default { async message(msg) {
		await msg.reply("you said: " + msg.text)
		console.log("replied")
		if (msg.text === "wait") await new Promise(r => setTimeout(r, 3000))
	} }`))
	ada := w.person("ada000131")
	chat := ada.join(invite)
	ada.say(chat, "wait")
	for range 2 {
		after := w.log.offset()
		w.await(after, "minirelay", "submitted")
		w.killProcess(func(command string) bool { return command == "core " })
	}
	if m := ada.hear(); !strings.Contains(m.Text, "this bot failed on your message") {
		t.Errorf("heard %q", m.Text)
	}
	r := w.run(address).Record
	if r.Status != bot.RunError || !strings.Contains(r.Message, "core, which does what the bot calls, failed") {
		t.Errorf("%s %q, want RE that names core", r.Status, r.Message)
	}
	ada.say(chat, "well")
	ada.expect("you said: well")
	w.noneSetAside(address)
}

// noneSetAside requires that every mail of a bot is over.
func (w *world) noneSetAside(address bot.Address) {
	w.t.Helper()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		waiting, err := w.ledger().Jobs(w.ctx, address, ledger.JobAccepted)
		failed, err2 := w.ledger().Jobs(w.ctx, address, ledger.JobFailed)
		if err != nil || err2 != nil {
			w.t.Fatal(err, err2)
		}
		switch {
		case len(failed) > 0:
			w.t.Errorf("mails were set aside: %+v", failed)
			return
		case len(waiting) == 0:
			return
		case time.Since(start) > time.Minute:
			w.t.Errorf("mails wait: %+v", waiting)
			return
		}
	}
}

// TestABotThatFillsItsAccount has a bot leave so much with core that the next mail would find no room, for ever: the run that goes that far
// is a failed one, and the next is answered.
func TestABotThatFillsItsAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := resident("Hoarder", "python3", client+`
import os
for msg in messages():
    if msg["text"].startswith("fill"):
        size = int(msg["text"].split()[1]) << 20
        while size > 0:
            open("/tmp/f.bin", "wb").write(os.urandom(min(size, 12 << 20)))
            size -= 12 << 20
            rpc("misc_set_draft", account, msg["chatId"], None, "/tmp/f.bin", None, None, None)
        os.unlink("/tmp/f.bin")
    say(msg, "you said: " + msg["text"])
`)
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "30s"`, 1)
	address, invite := w.start("hoarder01", f)
	ada := w.person("ada000132")
	chat := ada.join(invite)
	for _, text := range []string{"fill 59", "fill 59", "fill 59"} {
		ada.say(chat, text)
		ada.expect("you said: " + text)
	}
	ada.say(chat, "fill 20")
	if m := ada.hear(); !strings.Contains(m.Text, "this bot failed on your message") {
		t.Errorf("heard %q", m.Text)
	}
	if r := w.run(address).Record; r.Status != bot.RunError || !strings.Contains(r.Message, "the last call was") || !strings.Contains(r.Message, "more with it than the account may hold") {
		t.Errorf("%s %q, want RE that names what is too much", r.Status, r.Message)
	}
	ada.say(chat, "well")
	ada.expect("you said: well")
	w.noneSetAside(address)
}
