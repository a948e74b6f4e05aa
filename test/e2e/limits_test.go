package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mayfly/internal/admin"
	"mayfly/internal/bot"
)

// A contact over its limit is told once, and its mail is worked off later: here when the author grants more, and the host, which
// remembers how long mail waits, has started again.
func TestAContactOverItsLimit(t *testing.T) {
	t.Parallel()
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

// burner uses all CPU time that it may, however busy the machine is.
func burner() files {
	f := script("Burner", "export default { message() { for (;;) {} } }").with("[limits.per_user]\nmails_per_hour = 50\n")
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "30s"`, 1)
	return f
}

// A bot that burns CPU time is ended when its budget is used up. Then its mail waits, and its author is told.
func TestABotThatBurnsItsBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.settings = strings.NewReplacer("[log]", "[limits]\ncpu_per_hour = \"2s\"\n[log]")
	address, client := w.newAccount("burner001")
	w.append(client, address, burner())
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
	bots := ask[[]admin.Bot](w, "bots")
	if len(bots) != 1 || bots[0].State != admin.StateOver || !strings.HasSuffix(bots[0].Why, " UTC: 2s of CPU time an hour") {
		t.Errorf("bots: %+v", bots)
	}
}

// All bots together have a limit of their own: the mail of each waits, nothing new is installed, and the operator sees it.
func TestBotsThatBurnTheHostsBudget(t *testing.T) {
	w := newWorld(t)
	w.settings = strings.NewReplacer("[log]", "[limits]\nhost_cpu_per_hour = \"4s\"\ncpu_per_hour = \"4s\"\ncores = 1.5\n[log]")
	address, client := w.newAccount("hostcpu01")
	w.append(client, address, burner())
	quiet, quietClient := w.newAccount("hostcpu02")
	w.append(quietClient, quiet, script("Quiet", echo))
	w.serve()
	held := false
	for _, dir := range cgroups() {
		for _, file := range []string{"cpu.max", "cpu.cfs_quota_us"} {
			text, err := os.ReadFile(filepath.Join(dir, file))
			held = held || filepath.Base(dir) == "runs" && err == nil && strings.HasPrefix(string(text), "150000")
		}
	}
	if !held {
		t.Error("no cgroup holds all sandboxes to 1.5 cores")
	}
	ada := w.person("ada000003")
	chat, other := ada.join(w.installed(client)), ada.join(w.installed(quietClient))
	ada.say(chat, "burn")
	w.awaitJobs(address, 3)
	after := w.log.offset()
	ada.say(other, "hello")
	w.await(after, "mail waits: over a budget", string(quiet), "the host: 4s of CPU time an hour")
	w.await(0, "all bots wait: together they have used up what they may")
	if n := w.runs(quiet); n != 0 {
		t.Errorf("%d runs of the quiet bot", n)
	}
	bots := ask[[]admin.Bot](w, "bots", "Quiet")
	if len(bots) != 1 || bots[0].State != admin.StateOver || !strings.HasSuffix(bots[0].Why, " UTC: the host: 4s of CPU time an hour") {
		t.Errorf("bots: %+v", bots)
	}
	w.done("all bots wait until ", "usage")
	after = w.log.offset()
	w.append(client, address, script("Newer", echo))
	w.await(after, "will try again", "over the budget: the host: 4s")
	w.stop()
	w.serve() // which forgets nothing
	w.await(0, "mail waits: over a budget", "the host: 4s of CPU time an hour")
}

// The operator lowers what a run may take; it holds for bots that were installed before.
func TestTheOperatorLowersTheWall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := script("Slow", `export default { async message(msg) { await new Promise(r => setTimeout(r, 4000)); return "slept" } }`)
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "30s"`, 1)
	address, client := w.newAccount("lowered01")
	w.append(client, address, f)
	w.serve()
	ada := w.person("ada000004")
	chat := ada.join(w.installed(client))
	ada.say(chat, "sleep")
	ada.expect("slept")
	w.stop()
	w.settings = strings.NewReplacer("[log]", "[bots]\nwall = \"2s\"\n[log]")
	w.serve()
	ada.say(chat, "sleep")
	if m := ada.hear(); !strings.HasPrefix(m.Text, "Sorry, this bot needed more time") {
		t.Errorf("heard %q", m.Text)
	}
	if run := w.run(address); run.Record.Status != bot.RunTimeout || !strings.Contains(run.Record.Message, "2s") {
		t.Errorf("record %s %q", run.Record.Status, run.Record.Message)
	}
}
