package e2e

import (
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/core"
)

// resident is a bundle of a script that speaks to deltachat-rpc-server.
func resident(name, interpreter, script string) files {
	f := native(name, interpreter, script)
	f["bot.toml"] = strings.Replace(f["bot.toml"], "[limits]", "mode = \"resident\"\n[limits]", 1)
	return f
}

// client is a JSON-RPC client in twenty lines of Python, as authors write who use no framework.
const client = `
import json, subprocess, sys, time
server = subprocess.Popen("deltachat-rpc-server", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
last = 0
def rpc(method, *params):
    global last
    last += 1
    print(json.dumps({"jsonrpc": "2.0", "id": last, "method": method, "params": params}), file=server.stdin, flush=True)
    answer = json.loads(server.stdout.readline())
    if "error" in answer:
        raise Exception(answer["error"]["message"])
    return answer.get("result")
[account] = rpc("get_all_account_ids")
assert rpc("is_configured", account)
def messages():
    rpc("start_io", account)
    while True:
        event = rpc("get_next_event")["event"]
        if event["kind"] == "IncomingMsg":
            yield rpc("get_message", account, event["msgId"])
def say(msg, text, **more):
    rpc("send_msg", account, msg["chatId"], {"text": text, **more})
`

// TestResidentBot runs a daemon for one message after the other: it answers, keeps a state, sends a file and reads one. What lies in
// site-packages it can import, and deltachat-rpc-server tells the version that core has.
func TestResidentBot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := resident("Resident", "python3", client+`
import os, packaged
version = subprocess.run(["deltachat-rpc-server", "--version"], capture_output=True, text=True).stdout.strip()
assert packaged.ok and rpc("get_system_info")["deltachat_core_version"] == "v" + version, version
for msg in messages():
    n = int(rpc("get_config", account, "ui.count") or 0) + 1
    rpc("set_config", account, "ui.count", str(n))
    open("/tmp/note.txt", "w").write("note %d" % n)
    got = open(msg["file"]).read() if msg["file"] else "nothing"
    say(msg, "%d: %s with %s" % (n, msg["text"], got), file="/tmp/note.txt")
    os.unlink("/tmp/note.txt")
`)
	f["site-packages/packaged/__init__.py"] = "ok = True\n"
	address, invite := w.start("resident1", f)
	ada := w.person("ada000030")
	chat := ada.join(invite)
	ada.say(chat, "one")
	if m := ada.whole(ada.expect("1: one with nothing")); m.FileName != "note.txt" || string(readAll(t, m.File)) != "note 1" {
		t.Errorf("the file came as %+v", m)
	}
	path := w.write("in.txt", "an attachment")
	if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "two", File: path, Filename: "in.txt"}); err != nil {
		t.Fatal(err)
	}
	ada.expect("2: two with an attachment")
	if r := w.run(address).Record; r.Status != bot.RunOK || r.CPU <= 0 {
		t.Errorf("the run record lacks something: %+v", r)
	} else {
		t.Logf("the run took %s, %s of CPU", r.Wall, r.CPU)
	}
}
