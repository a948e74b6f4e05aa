package e2e

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
)

//go:embed testdata/villain.py
var villain string

const secretCard = "BEGIN:VCARD\nVERSION:4.0\nEMAIL:canary@example.org\nFN:CANARY\nEND:VCARD\n"

const plenty = `
mails_per_hour = 100000
mails_per_day = 100000
seconds_per_hour = 3600
bytes_per_hour = "10GB"
`

const sendPlenty = `
[limits.sending]
mails_per_hour = 100000
bytes_per_hour = "10GB"
mails_per_hour_and_contact = 100000
bytes_per_hour_and_contact = "10GB"
`

// TestMaliciousBot has a resident bot attack the gateway in every way that testdata/villain.py knows, a message each. Each ends as it must;
// nothing but its own bytes leaves the host, and only to whom it may write; the next honest message is answered; and the daemon's memory
// stays bounded.
func TestMaliciousBot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	w.ctx = ctx
	w.settings = strings.NewReplacer("[log]\n", "[limits]\ncpu_per_hour = \"0s\"\ncpu_per_day = \"0s\"\n[limits.per_user]\n"+plenty+sendPlenty+"[log]\n")
	f := resident("Villain", "python3", villain)
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "12s"`, 1)
	f["methods.json"], f["secret.vcf"], f["d/f.vcf"] = coreMethods(t), secretCard, secretCard
	address, invite := w.start("villain01", f)
	bob := w.person("bob000140") // who never writes: nobody may write to him
	bobs := bob.join(invite)
	w.awaitJobs(address, 2)
	ada := w.person("ada000140")
	chat := ada.join(invite)
	before := vmHWM(t, w.command.Process.Pid)
	outer := t
	attack := func(name string, file string, want bot.RunStatus, text string) {
		t.Run(strings.ReplaceAll(name, " ", ""), func(t *testing.T) {
			w.t = t
			defer func() { w.t = outer }()
			runs := w.runs(address)
			if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: name, File: file}); err != nil {
				t.Fatal(err)
			}
			heard := ada.hearUntil(chat, "honest after "+name)
			records, err := w.ledger().Runs(w.ctx, address, w.runs(address)-runs)
			if err != nil || len(records) != 2 {
				t.Fatalf("%d runs, want two: %v", len(records), err)
			}
			r := records[1].Record
			if r.Status != want || !strings.Contains(r.Message, text) || r.Wall > 14*time.Second {
				t.Errorf("%s %q after %s, want %s with %q\n%s", r.Status, r.Message, r.Wall, want, text, r.Log)
			}
			ok := strings.Fields(name)[0] + ": ok"
			if said := slices.ContainsFunc(heard, func(m core.Message) bool { return strings.HasPrefix(m.Text, ok) }); said != (want == bot.RunOK) {
				t.Errorf("heard %+q, want %q: %v\n%s", heardTexts(heard), ok, want == bot.RunOK, r.Log)
			}
			for _, m := range heard {
				if name != "sealed" {
					ownBytesOnly(t, m)
				}
			}
			t.Logf("the run took %s, %s of CPU, core %s of CPU and %d MB; the daemon's memory was %d MB at most", r.Wall, r.CPU, r.CoreCPU, r.CoreMemory>>20,
				vmHWM(t, w.command.Process.Pid)>>20)
		})
	}
	attack("sealed", w.write("in.txt", "an attachment"), bot.RunOK, "")
	attack("garbage", "", bot.RunError, "broke the JSON Lines protocol")
	attack("huge", "", bot.RunError, "a line is longer than")
	attack("deep", "", bot.RunError, "nested deeper than")
	attack("flood", "", bot.RunOK, "")
	attack("slow", "", bot.RunTimeout, "ran longer than")
	attack("connections", "", bot.RunOK, "")
	attack("ids", "", bot.RunOK, "")
	attack("answers", "", bot.RunOK, "")
	attack("qr", "", bot.RunOK, "")
	attack("paths", "", bot.RunOK, "")
	for i := range 3 {
		attack(fmt.Sprint("race ", i), "", bot.RunOK, "")
	}
	for i := range 2 {
		attack(fmt.Sprint("fuzz ", i), "", bot.RunOK, "")
	}
	attack("after", "", bot.RunOK, "")
	attack("term", "", bot.RunOK, "")
	after := vmHWM(t, w.command.Process.Pid)
	t.Logf("the daemon's memory: %d MB at most before, %d MB after", before>>20, after>>20)
	if after > 256<<20 {
		t.Errorf("the daemon had %d MB", after>>20)
	}
	endsAmidCalls(w, ada, chat)
	w.noneSetAside(address)
	if log := w.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "DATA RACE") {
		t.Errorf("the host's log:\n%s", log)
	}
	ids, err := bob.ChatMessages(w.ctx, bob.Account, bobs)
	for _, id := range ids {
		if m, err := bob.GetMessage(w.ctx, bob.Account, id); err != nil || !m.IsInfo && m.FromID > 9 {
			t.Errorf("bob, who never wrote, heard %+v, %v", m, err)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// endsAmidCalls stops the host, as an operator does, while the bot floods it with calls. What it had said counts for nothing, and comes once
// when the host runs again.
func endsAmidCalls(w *world, ada *person, chat core.ChatID) {
	w.t.Helper()
	after := w.log.offset()
	ada.say(chat, "flood at the end")
	w.await(after, "minirelay", "fetched")
	time.Sleep(time.Second)
	w.stop()
	w.serve()
	heard := heardTexts(ada.hearUntil(chat, "honest at the end"))
	if len(heard) != 1 || !strings.HasPrefix(heard[0], "flood: ok") {
		w.t.Errorf("heard %+q after the host was stopped and started, want one answer", heard)
	}
}

// hearUntil says a text and returns what is heard until it is echoed.
func (p *person) hearUntil(chat core.ChatID, text string) []core.Message {
	p.w.t.Helper()
	p.say(chat, text)
	var heard []core.Message
	for {
		m := p.hear()
		if m.Text == "you said: "+text {
			return heard
		}
		heard = append(heard, m)
	}
}

func heardTexts(heard []core.Message) []string {
	var list []string
	for _, m := range heard {
		list = append(list, m.Text+" "+m.FileName)
	}
	return list
}

// ownBytesOnly requires that a message has nothing but what the villain owns.
func ownBytesOnly(t *testing.T, m core.Message) {
	t.Helper()
	if strings.Contains(m.Text, "CANARY") {
		t.Errorf("a message came that had to be refused: %+v", m)
	}
	if m.File == "" || strings.HasSuffix(m.FileName, ".xdc") {
		return
	}
	content := readAll(t, m.File)
	own := bytes.Trim(content, "O\x00")
	if len(own) > 0 && !bytes.Contains(own, []byte("FN:own")) && len(content) != 10 || bytes.Contains(content, []byte("CANARY")) {
		t.Errorf("%s came with %.200q", m.FileName, content)
	}
}

// coreMethods is core's own list of them.
func coreMethods(t *testing.T) string {
	t.Helper()
	spec, err := exec.Command(coretest.Binary(t), "--openrpc").Output()
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct{ Methods json.RawMessage }
	if err := json.Unmarshal(spec, &parsed); err != nil {
		t.Fatal(err)
	}
	return string(parsed.Methods)
}

// vmHWM is the most memory that a process has had, in bytes.
func vmHWM(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// TestMaliciousScript has a script call the gateway as its worker lets it: thousands of calls at once, what is not its own, and nesting
// without end.
func TestMaliciousScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("villain02", script("Villain", `export default { async message(msg, env) {
		const refused = async (...call) => {
			try { await env.rpc(...call) } catch (e) { return }
			throw new Error("passed: " + JSON.stringify(call))
		}
		if (msg.text === "deep") {
			let nested = []
			for (let i = 0; i < 300; i++) nested = [nested]
			return env.rpc("get_messages", 1, nested)
		}
		if (msg.text === "ids") {
			for (const n of [0, -1, 1, 9, 2 ** 53, 1.5, "1", null, [], {}, msg.chat.id + 1])
				for (const call of [["send_msg", 1, n, { text: "CANARY" }], ["misc_send_draft", 1, n], ["set_chat_name", 1, n, "CANARY"]])
					await refused(...call)
			for (const file of ["/etc/passwd", "/proc/self/environ", "/proc/self/fd/0", "/account/core/accounts.toml", "..", "/", "/tmp", "/bundle/../etc/passwd"])
				for (const call of [["send_msg", 1, msg.chat.id, { text: "CANARY", file }], ["parse_vcard", file], ["set_config", 1, "selfavatar", file]])
					await refused(...call)
			return "ids: ok"
		}
		if (msg.text === "flood") {
			const all = await Promise.allSettled(Array.from({ length: 5000 }, (_, i) => env.rpc("get_contact", 1, i)))
			const over = all.filter((r) => String(r.reason).includes("more than 1000 calls")).length
			await refused("get_chat_contacts", 1, msg.chat.id)
			console.log(over)
			return
		}
		return "you said: " + msg.text
	} }`))
	ada := w.person("ada000141")
	chat := ada.join(invite)
	for _, attack := range []struct {
		name, heard, message string
		status               bot.RunStatus
	}{{"ids", "ids: ok", "", bot.RunOK}, {"flood", "", "", bot.RunOK}, {"deep", "Sorry, ", "nested deeper than", bot.RunError}} {
		ada.say(chat, attack.name)
		heard := ada.hearUntil(chat, "honest after "+attack.name)
		runs, err := w.ledger().Runs(w.ctx, address, 2)
		if err != nil || len(runs) != 2 {
			t.Fatalf("runs %+v, %v", runs, err)
		}
		if r := runs[1].Record; r.Status != attack.status || !strings.Contains(r.Message, attack.message) || attack.name == "flood" && !strings.Contains(r.Log, "4000") {
			t.Errorf("%s: %s %q, want %s with %q\n%s", attack.name, r.Status, r.Message, attack.status, attack.message, r.Log)
		}
		if all := strings.Join(heardTexts(heard), "\n"); !strings.HasPrefix(all, attack.heard) || strings.Contains(all, "CANARY") {
			t.Errorf("%s: heard %+q, want %q", attack.name, heardTexts(heard), attack.heard)
		}
	}
	if m := vmHWM(t, w.command.Process.Pid); m > 256<<20 {
		t.Errorf("the daemon had %d MB", m>>20)
	}
	w.noneSetAside(address)
}

// TestMaliciousProgram leaves a grandchild behind that holds the output open and goes on to print; and prints without an end.
func TestMaliciousProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("villain03", native("Villain", "python3", `
import os, sys, time
text = sys.stdin.read()
if "ghost" in text:
    print("ghost: ok", flush=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                try: print("CANARY", flush=True)
                except OSError: pass
                time.sleep(0.5)
        os._exit(0)
    os._exit(0)
if "sealed" in text:
    for attempt in [lambda: open(os.environ["MAYFLY_ATTACHMENT"], "a"), lambda: os.unlink(os.environ["MAYFLY_ATTACHMENT"]), lambda: open("/attachments/x", "w")]:
        try:
            attempt()
            print("an attempt succeeded")
        except OSError:
            pass
if "endless" in text:
    while True: sys.stdout.write("x" * 65536)
print("honest: ok")
`))
	ada := w.person("ada000142")
	chat := ada.join(invite)
	ada.say(chat, "ghost")
	if m := ada.hear(); !strings.HasPrefix(m.Text, "ghost: ok") || strings.Count(m.Text, "CANARY") > 1 {
		t.Errorf("heard %q", m.Text)
	}
	if r := w.run(address).Record; r.Wall > 4*time.Second {
		t.Errorf("the run took %s: it waited for what its program left", r.Wall)
	}
	if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "sealed", File: w.write("in.txt", "an attachment")}); err != nil {
		t.Fatal(err)
	}
	ada.expect("honest: ok")
	ada.say(chat, "endless")
	if m := ada.hear(); !strings.HasPrefix(m.Text, "Sorry, ") {
		t.Errorf("heard %q", m.Text)
	}
	ada.say(chat, "well")
	ada.expect("honest: ok")
	w.noneSetAside(address)
}
