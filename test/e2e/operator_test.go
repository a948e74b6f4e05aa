package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/admin"
	"mayfly/internal/bot"
)

// said is what a command wrote, and its exit code.
type said struct {
	out, err string
	code     int
}

// mayfly runs a command of the operator's.
func (w *world) mayfly(verb string, args ...string) said {
	w.t.Helper()
	c := w.operator(verb, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		w.t.Fatal(err)
	}
	return said{out.String(), errs.String(), c.ProcessState.ExitCode()}
}

func (w *world) operator(verb string, args ...string) *exec.Cmd {
	return exec.CommandContext(w.ctx, filepath.Join(binaries, "mayfly"), append([]string{verb, "-config", w.config}, args...)...)
}

// done runs a command that has to end well and to say something.
func (w *world) done(want, verb string, args ...string) said {
	w.t.Helper()
	s := w.mayfly(verb, args...)
	if s.code != 0 || !strings.Contains(s.out, want) {
		w.t.Errorf("mayfly %s %q: code %d, want 0 and %q\n%s%s", verb, args, s.code, want, s.out, s.err)
	}
	return s
}

// ask runs a command with --json.
func ask[A any](w *world, verb string, args ...string) (a A) {
	w.t.Helper()
	s := w.done("", verb, append(args, "--json")...)
	if err := json.Unmarshal([]byte(s.out), &a); err != nil {
		w.t.Errorf("mayfly %s --json: %v in %q", verb, err, s.out)
	}
	return a
}

// TestOperatorSees asks a running host everything that its operator can, in both forms.
func TestOperatorSees(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("seen00001", script("Seen", `export default { message(msg) {
		console.log("about to answer", msg.text)
		if (msg.text === "fail") throw new Error("no luck")
		return "you said: " + msg.text
	} }`))
	ada := w.person("ada000201")
	chat := ada.join(invite)
	ada.say(chat, "one")
	ada.expect("you said: one")
	ada.say(chat, "fail")
	ada.hear()
	w.awaitJobs(address, 4)

	w.done(string(address), "bots")
	bots := ask[[]admin.Bot](w, "bots", "Seen")
	if len(bots) != 1 || bots[0].Address != address || bots[0].State != admin.StateOK || bots[0].Runs != 2 || bots[0].Errors != 1 ||
		bots[0].Contact != "mailto:author@example.org" || bots[0].Disk < 100_000 || time.Since(bots[0].LastRun) > time.Minute {
		t.Errorf("bots: %+v", bots)
	}
	w.done(" RE ", "runs", "seen00001", "--failed")
	if runs := ask[admin.Runs](w, "runs"); len(runs.Runs) != 2 || runs.Runs[0].Record.Status != bot.RunError || runs.Runs[1].Record.Status != bot.RunOK {
		t.Errorf("runs: %+v", runs)
	}
	w.done("about to answer fail", "logs", "seen")
	w.done("1 bots", "usage")
	usage := ask[admin.Usage](w, "usage")
	if len(usage.Bots) != 1 || usage.Bots[0].CPUHour <= 0 || usage.Bots[0].CoreDay <= 0 || usage.Bots[0].InDay != 4 || usage.Host.Disk < 100_000 ||
		usage.Host.Free == 0 || usage.Host.Ledger == 0 {
		t.Errorf("usage: %+v", usage)
	}
	w.done("BOT ", "outbox")
	w.done("mails that are tried now: 0", "outbox", "--retry")
	w.done("is sound", "verify")

	for _, wrong := range []struct {
		code       int
		want, verb string
		args       []string
	}{
		{1, `no bot is called "nobody": mayfly bots lists them`, "bots", []string{"nobody"}},
		{1, "no job 99", "runs", []string{"--replay", "99"}},
		{2, "mayfly logs takes BOT", "logs", nil},
		{2, "see mayfly usage -h", "usage", []string{"--colour"}},
		{1, "another mayfly runs on this state folder; stop it first", "restore", []string{w.config}},
	} {
		if s := w.mayfly(wrong.verb, wrong.args...); s.code != wrong.code || !strings.Contains(s.err, wrong.want) {
			t.Errorf("mayfly %s %q: code %d, want %d and %q\n%s", wrong.verb, wrong.args, s.code, wrong.code, wrong.want, s.err)
		}
	}
}

// TestOperatorFollows reads a bot's log while it works.
func TestOperatorFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, invite := w.start("follow001", script("Follow", `export default { message(msg) { console.log("heard " + msg.text); return "you said: " + msg.text } }`))
	ada := w.person("ada000202")
	chat := ada.join(invite)
	ada.say(chat, "before")
	ada.expect("you said: before")
	c := w.operator("logs", "follow001", "-f")
	log := &hostLog{news: make(chan struct{}, 1)}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"before", "one", "two"} {
		if text != "before" {
			ada.say(chat, text)
			ada.expect("you said: " + text)
		}
		if err := log.await(w.ctx, time.Minute, 0, []string{"heard " + text}); err != nil {
			t.Errorf("%q is not in the log: %v\n%s", text, err, log)
		}
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("following ended with %v\n%s", err, log)
	}
	if n := strings.Count(log.String(), "heard "); n != 3 {
		t.Errorf("%d runs, want 3, each once\n%s", n, log)
	}
}

// TestOperatorPauses lets mails wait, over a restart of the host too, and then answers each once.
func TestOperatorPauses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("paused001", script("Paused", echo))
	ada := w.person("ada000203")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	w.done("paused "+string(address)+": its mail waits", "pause", "paused001", "--why", "asks for passwords")
	before := w.relay.Stats().Delivered
	for i := range 3 {
		ada.say(chat, fmt.Sprint(i))
	}
	w.awaitDelivered(before + 3)
	w.await(0, "mail waits: the operator has paused the bot", "asks for passwords")
	if bots := ask[[]admin.Bot](w, "bots"); len(bots) != 1 || bots[0].State != admin.StatePaused || !strings.HasSuffix(bots[0].Why, ": asks for passwords") {
		t.Errorf("bots: %+v", bots)
	}
	w.stop()
	w.serve()
	w.await(0, "mail waits: the operator has paused the bot")
	if n := w.runs(address); n != 0 {
		t.Errorf("%d runs of a paused bot", n)
	}
	w.done("resumed "+string(address), "resume", "Paused")
	for i := range 3 {
		ada.expect(fmt.Sprint("you said: ", i))
	}
	w.awaitJobs(address, 5)
	if n := w.runs(address); n != 3 {
		t.Errorf("%d runs, want 3", n)
	}
}

// TestOperatorRemoves removes a bot whose run is under way and would go on for long.
func TestOperatorRemoves(t *testing.T) {
	w := newWorld(t)
	f := script("Stuck", `export default { async message(msg) { await msg.reply("begun"); await new Promise(r => setTimeout(r, 25000)) } }`)
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "30s"`, 1)
	address, client := w.newAccount("removed01")
	w.append(client, address, f)
	w.serve()
	ada := w.person("ada000204")
	chat := ada.join(w.installed(client))
	before := snapshot()
	after := w.log.offset()
	ada.say(chat, "go")
	w.await(after, "minirelay", "submitted") // the bot has said "begun"
	start := time.Now()
	s := w.done("removed "+string(address)+", with all that it stored: ", "remove", "Stuck", "--why", "never ends")
	if took := time.Since(start); took > 15*time.Second || !strings.Contains(s.out, "the session that was under way was ended") {
		t.Errorf("removed after %v: %s%s", took, s.out, s.err)
	}
	if w.hasFiles(address) {
		t.Error("files or the key of the bot are left")
	}
	if left := leftovers(before); strings.Contains(left, "process") || strings.Contains(left, "cgroup") {
		t.Errorf("left of the session:\n%s", left)
	}
	w.told(client, 2, "Mayfly-State: removed", "The reason: never ends")
	if bots := ask[[]admin.Bot](w, "bots"); len(bots) != 0 {
		t.Errorf("bots: %+v", bots)
	}
	if s := w.mayfly("remove", "Stuck"); s.code != 1 || !strings.Contains(s.err, "no bot is called") {
		t.Errorf("removed twice: %+v", s)
	}
	w.done("is sound", "verify")
	w.append(client, address, script("Back", echo)) // the account is still its author's
	w.told(client, 3, "Mayfly-State: installed")
}

// TestOperatorMoves makes a backup while mails are worked off, stops the host soon after, and goes on from the backup in another place:
// every mail has one reply.
func TestOperatorMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("moved0001", script("Moved", echo))
	ada := w.person("ada000205")
	chat := ada.join(invite)
	const mails = 8
	want := []string{}
	for i := range mails {
		ada.say(chat, fmt.Sprint("mail ", i))
		want = append(want, fmt.Sprint("you said: mail ", i))
	}
	heard := []string{ada.hear().Text}
	file := filepath.Join(w.dir, "backup.tar.gz")
	w.done("wrote "+file, "backup", file)
	w.stop()
	w.done("is sound", "verify", file)
	if s := w.done("is sound", "verify"); !strings.Contains(s.err, "no mayfly runs on") {
		t.Errorf("verify without a daemon says %q", s.err)
	}
	other := filepath.Join(w.dir, "other")
	w.settings = strings.NewReplacer(filepath.Join(w.dir, "state"), other)
	w.config = w.write("mayfly.toml", strings.ReplaceAll(string(readAll(t, w.config)), filepath.Join(w.dir, "state"), other))
	w.done("restored into "+other, "restore", file)
	if err := os.Rename(filepath.Join(w.dir, "state"), filepath.Join(w.dir, "was")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, filepath.Join(w.dir, "state")); err != nil { // where the tests look
		t.Fatal(err)
	}
	w.serve()
	ada.say(chat, "last")
	for text := ""; text != "you said: last"; heard = append(heard, text) {
		text = ada.hear().Text
	}
	want = append(want, "you said: last")
	slices.Sort(want)
	slices.Sort(heard)
	if !slices.Equal(heard, want) {
		t.Errorf("ada heard %q, want %q", heard, want)
	}
	bots := ask[[]admin.Bot](w, "bots")
	if len(bots) != 1 || bots[0].Address != address {
		t.Errorf("bots: %+v", bots)
	}
	w.done("is sound", "verify")
}

// TestOperatorWithoutDaemon has each command say that no daemon runs, and how to start it.
func TestOperatorWithoutDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, _ := w.start("asleep001", script("Asleep", echo))
	w.stop()
	for _, line := range [][]string{
		{"bots"}, {"runs"}, {"usage"}, {"logs", "asleep"}, {"pause", "asleep"}, {"resume", "asleep"}, {"outbox"}, {"outbox", "--retry"},
		{"backup", filepath.Join(w.dir, "b.tar.gz")}, {"verify"}, {"remove", "asleep"},
	} {
		s := w.done("", line[0], line[1:]...)
		if want := "mayfly: no mayfly runs on " + filepath.Join(w.dir, "state") + ", so this is what its files say: mayfly serve -config " + w.config + " starts it\n"; !strings.Contains(s.err, want) {
			t.Errorf("mayfly %q says %q, want %q", line, s.err, want)
		}
	}
	if w.hasFiles(address) {
		t.Error("removed, and files or the key are left")
	}
}

// A daemon that starts while a command has the lock waits for it, and a command that comes while the daemon starts waits for the answer.
func TestOperatorBesideAStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.newAccount("early0001")
	w.serve()
	w.stop()
	stop := make(chan struct{})
	ended := make(chan []said)
	go func() {
		var all []said
		defer func() { ended <- all }()
		for {
			select {
			case <-stop:
				return
			default:
				all = append(all, w.mayfly("usage"))
			}
		}
	}()
	for range 3 {
		w.serve()
		w.stop()
	}
	close(stop)
	for _, s := range <-ended {
		if s.code != 0 {
			t.Errorf("mayfly usage: %+v", s)
		}
	}
}
