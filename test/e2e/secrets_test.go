package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/core/coretest"
	"mayfly/internal/keystore"
)

// TestNoSecretReachesABot has a bot call every method of core, write down every answer, and send that: nothing in it is the
// password, the key, a path or a server of the host's or of core's. Files that are none are refused on the way.
func TestNoSecretReachesABot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec, err := exec.Command(coretest.Binary(t), "--openrpc").Output()
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct{ Methods []json.RawMessage }
	if err := json.Unmarshal(spec, &parsed); err != nil || len(parsed.Methods) < 150 {
		t.Fatalf("core specifies %d methods: %v", len(parsed.Methods), err)
	}
	bundle := resident("Curious", "python3", client+`
import os
skip = {"get_next_event", "get_next_event_batch", "wait_next_msgs", "sleep", "delete_chat", "block_chat", "block_contact", "delete_contact",
    "delete_messages", "leave_group", "remove_contact_from_chat"}
os.symlink("/proc/self/environ", "/tmp/link")
os.mkfifo("/tmp/fifo")
open("/tmp/a.txt", "w").write("x")
log = open("/tmp/traffic.txt", "w")
def call(method, *params):
    try:
        log.write("%s %s\n" % (method, json.dumps(rpc(method, *params))))
    except Exception as e:
        log.write("%s error %s\n" % (method, e))
for msg in messages():
    def value(p):
        name, kind = p["name"], json.dumps(p["schema"])
        if name == "accountId": return account
        if "array" in kind: return [msg["id"]] if "uint32" in kind else ["mail_pw"] if name == "keys" else None if "null" in kind else ["x"]
        if "chatid" in name.lower(): return msg["chatId"]
        if "msgid" in name.lower() or "messageid" in name.lower(): return msg["id"]
        if "contactid" in name.lower(): return msg["fromId"]
        if "integer" in kind or "number" in kind: return 1
        if "boolean" in kind: return False
        if "MessageData" in kind: return {"text": "hi"}
        if "Viewtype" in kind: return "File"
        if "object" in kind or "$ref" in kind: return {}
        return "/tmp/a.txt" if "path" in name.lower() or name == "file" else "mail_pw" if name == "key" else "x"
    for m in json.load(open("methods.json")):
        if m["name"] not in skip:
            call(m["name"], *[value(p) for p in m["params"]])
    for key in ["configured_mail_pw", "mail_server", "send_server", "configured_imap_certificate_checks", "sys.config_keys", "proxy_url", "addr"]:
        call("get_config", account, key)
    for n in [0, 1, 3, 6, 7, 9, 4294967295, -1, 1.5, "1", None, [], {}]:
        for method in ["get_message", "get_full_chat_by_id", "get_contact", "get_contact_encryption_info", "get_message_html"]:
            call(method, n, n)
        call("send_msg", account, n, {"text": "never"})
    for path in ["/tmp/link", "/tmp/fifo", "/proc/self/environ", "/etc/passwd", "/account/core/accounts.toml", "/tmp/../etc/passwd", "/tmp", "/files/1"]:
        call("send_msg", account, msg["chatId"], {"text": "stolen", "file": path})
        call("set_config", account, "selfavatar", path)
    log.close()
    say(msg, "all of it", file="/tmp/traffic.txt")
    os.unlink("/tmp/link"); os.unlink("/tmp/fifo")
`)
	methods, err := json.Marshal(parsed.Methods)
	if err != nil {
		t.Fatal(err)
	}
	bundle["methods.json"] = string(methods)
	address, invite := w.start("curious01", bundle)
	ada := w.person("ada000077")
	ada.say(ada.join(invite), "hello")
	m := ada.hear()
	for m.Text != "all of it" {
		if m.Text == "stolen" || m.Text == "never" {
			t.Errorf("a message came that had to be refused: %+v", m)
		}
		m = ada.hear()
	}
	traffic := bytes.ReplaceAll(readAll(t, ada.whole(m).File), []byte("/account/core/accounts.toml"), nil) // which the bot guessed
	if n := bytes.Count(traffic, []byte("\n")); n < 200 {
		t.Errorf("the bot wrote down %d answers:\n%s", n, traffic)
	}
	store, err := keystore.Open(filepath.Join(w.dir, "state", "keys"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	keys, err := store.Keys(address)
	if err != nil || len(keys) == 0 {
		t.Fatalf("keys: %v, %v", keys, err)
	}
	_, imap, _ := strings.Cut(w.imap, ":")
	_, smtp, _ := strings.Cut(w.smtp, ":")
	for _, secret := range []string{"minirelay takes any", "PRIVATE KEY", base64.StdEncoding.EncodeToString(keys[0][:60]), w.dir, "/account/", "dc.db",
		":" + imap, ":" + smtp, "127.0.0.1", "MAYFLY_", "RUST_LOG"} {
		if at := bytes.Index(traffic, []byte(secret)); at >= 0 {
			t.Errorf("%q is in what the bot saw: …%s…", secret, traffic[max(0, at-200):min(len(traffic), at+100)])
		}
	}
}
