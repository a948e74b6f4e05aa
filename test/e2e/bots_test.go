//go:build bots

package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
	"mayfly/internal/core/coretest"
	"mayfly/internal/user"
)

// published is a bot of test/bots with the framework that scripts/setup-bots has packed with it.
func published(t *testing.T, name string) files {
	t.Helper()
	data, err := os.ReadFile("../../.tools/bots/" + name + ".zip")
	if err != nil {
		t.Fatalf("%v: run scripts/setup-bots", err)
	}
	b, err := bundle.FromZip(data, bundle.DefaultCeilings())
	if err != nil {
		t.Fatal(err)
	}
	f := files{}
	for _, file := range b.Files {
		f[file.Path] = string(file.Data)
	}
	f["app.xdc"] = clicks(t)
	return f
}

// clicks is a small webxdc app.
func clicks(t *testing.T) string {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, file := range [][2]string{{"manifest.toml", "name = \"Clicks\"\n"}, {"index.html", "<html><body>click</body></html>"}} {
		part, err := w.Create(file[0])
		if err == nil {
			_, err = part.Write([]byte(file[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// turn is one thing that a user does, and what comes of it.
type turn struct {
	say    string
	file   string // the content of in.txt, which goes along
	group  bool   // it is said in a group that the user brought the bot into
	update string // the payload of a status update to the app that came last; nothing is said then
	want   []string
}

// conversations are those that the bots of test/bots have. What a bot says is written as text [file name, and its size], and what it
// sends to an app as its payload.
var conversations = []struct {
	bot, account string
	core         string // the version that the daemon has, as its framework demands; "": the one that the host has
	turns        []turn
}{
	{"deltabot-cli", "clibot001", "2.58.0", []turn{
		{say: "hello", want: []string{"hello"}},
		{say: "/cat", want: []string{`meow [cat.png 371] to "/cat"`}},
		{say: "hello all", group: true, want: []string{"hello all"}},
	}},
	{"deltabot-cli-3", "clibot003", "", []turn{
		{say: "hello", want: []string{"hello"}},
		{say: "and again", want: []string{"and again"}},
	}},
	{"deltachat2", "dc2bot001", "2.58.0", []turn{
		{say: "hello", want: []string{"hello"}},
		{say: "a file", file: "one\ntwo\n", want: []string{"in.txt: 2 lines, the first is 'one'"}},
	}},
	{"deltachat-rpc-client", "rpcbot001", "", []turn{
		{say: "hello", want: []string{"hello"}},
		{say: "/who", group: true, want: []string{"USER asked in friends, which has 2 members"}},
		{say: "a file", file: "an attachment", want: []string{"a file [FILE.txt 13]"}},
	}},
	{"jsonrpc-client", "nodebot01", "", []turn{
		{say: "hello", want: []string{"hello"}},
		{say: "/play", want: []string{"click! [app.xdc 305]"}},
		{update: `{"click":2}`, want: []string{`{"clicks":2}`}},
		{update: `{"click":3}`, want: []string{`{"clicks":5}`}},
	}},
	{"deltabot-cli-go", "gobot0001", "", []turn{
		{say: "the app", want: []string{"here is the app [app.xdc 305]"}},
		{update: `{"id":"1","method":"Divide","params":[12,4]}`, want: []string{`{"error":null,"id":"1","result":3}`}},
		{update: `{"id":"2","method":"Echo","params":["back"]}`, want: []string{`{"error":null,"id":"2","result":"back"}`}},
	}},
	{"rpc-client-go", "gobot0002", "", []turn{
		{say: "hello", want: []string{"hello"}},
		{say: "and again", want: []string{"and again"}},
	}},
	{"shell", "shellbot1", "", []turn{
		{say: "hello", want: []string{"hello"}},
	}},
}

// TestFrameworks has conversations with bots of the usual frameworks, written as their documentation shows: with the host, and with
// the same bot as a daemon on a core of its own. Both say the same.
func TestFrameworks(t *testing.T) {
	for _, c := range conversations {
		t.Run(c.bot, func(t *testing.T) {
			w := newWorld(t)
			bundle := published(t, c.bot)
			address, invite := w.start(c.account, bundle.with("\n[groups]\nprivacy = false\n"))
			w.ledger()
			t.Cleanup(func() { w.printRuns(address) })
			asked := func() {
				if r := w.run(address).Record; r.Status != bot.RunOK {
					t.Errorf("the run ended with %s %q", r.Status, r.Message)
				} else {
					t.Logf("a run of %s, %.0f %% of it waiting for quiet, %s of CPU, %d MB", r.Wall.Round(time.Millisecond), 100*w.quiet(), r.CPU.Round(time.Millisecond), r.Memory>>20)
				}
			}
			hosted := w.converse("ada"+c.account[3:], invite, c.turns, asked)
			daemon := w.converse("bob"+c.account[3:], w.daemon("home"+c.account[4:], bundle, serverOf(t, c.core)), c.turns, func() {})
			for i, turn := range c.turns {
				if said := texts(hosted[i]); !slices.Equal(said, turn.want) {
					t.Errorf("turn %d: the host's bot said %q, want %q", i+1, said, turn.want)
				}
				if !slices.Equal(hosted[i], daemon[i]) {
					t.Errorf("turn %d: the host's bot said %+v, the daemon %+v", i+1, hosted[i], daemon[i])
				}
			}
		})
	}
}

// quiet is the part of the last run that the host waited for its bot to be quiet, as its log says.
func (w *world) quiet() float64 {
	var share float64
	for line := range strings.Lines(w.log.String()) {
		var stages map[string]any
		if json.Unmarshal([]byte(line), &stages) != nil || stages["msg"] != "session stages" {
			continue
		}
		began, _ := stages["handler"].(float64)
		since, quiet := stages["quiet"].(float64)
		ended, _ := stages["handler done"].(float64)
		if quiet && ended > began {
			share = (ended - since) / (ended - began)
		}
	}
	return share
}

// printRuns prints what a bot logged when the test has failed.
func (w *world) printRuns(address bot.Address) {
	if !w.t.Failed() {
		return
	}
	runs, err := w.ledger().Runs(context.Background(), address, 10)
	if err != nil {
		w.t.Error(err)
	}
	for _, r := range runs {
		w.t.Logf("a run of the bot: %s %s\n%s", r.Record.Status, r.Record.Message, r.Record.Log)
	}
}

// converse has a new user join a bot and take the turns. It returns what came of each.
func (w *world) converse(name, invite string, turns []turn, asked func()) [][]heard {
	w.t.Helper()
	p := w.person(name)
	chat := p.join(invite)
	var group core.ChatID
	var app core.MsgID
	var all [][]heard
	for _, t := range turns {
		to := chat
		if t.group && group == 0 {
			group = p.group("friends", chat)
		}
		if t.group {
			to = group
		}
		var list []heard
		if t.update != "" {
			list = p.click(app, t.update, len(t.want))
		} else {
			p.tell(to, t)
			for range t.want {
				m := p.whole(p.hear())
				if strings.HasSuffix(m.FileName, ".xdc") {
					app = m.ID
				}
				list = append(list, p.described(m, name))
			}
		}
		all = append(all, list)
		asked()
	}
	return all
}

func (p *person) tell(chat core.ChatID, t turn) {
	p.w.t.Helper()
	data := core.MessageData{Text: t.say}
	if t.file != "" {
		data.File, data.Filename = p.w.write("in.txt", t.file), "in.txt"
	}
	if _, err := p.SendMsg(p.w.ctx, p.Account, chat, data); err != nil {
		p.w.t.Fatal(err)
	}
}

// heard is what a user sees of a message, without what is different in each run, and the sum of its file.
type heard struct{ text, sum string }

func texts(list []heard) []string {
	var all []string
	for _, h := range list {
		all = append(all, h.text)
	}
	return all
}

func (p *person) described(m core.Message, name string) heard {
	p.w.t.Helper()
	h := heard{text: m.Text}
	if m.File != "" {
		data := readAll(p.w.t, m.File)
		// Core's own names are long and random.
		file := regexp.MustCompile(`^[0-9a-f]{20,}`).ReplaceAllString(m.FileName, "FILE")
		h.text += fmt.Sprintf(" [%s %d]", file, len(data))
		h.sum = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	var raw struct {
		Quote *struct {
			Text string `json:"text"`
		} `json:"quote"`
	}
	if err := p.Call(p.w.ctx, "get_message", &raw, p.Account, m.ID); err != nil {
		p.w.t.Fatal(err)
	}
	if raw.Quote != nil {
		h.text += fmt.Sprintf(" to %q", raw.Quote.Text)
	}
	h.text = strings.ReplaceAll(h.text, name, "USER")
	return h
}

// click sends a status update to an app, and waits for so many of the bot's.
func (p *person) click(app core.MsgID, payload string, n int) []heard {
	p.w.t.Helper()
	before := len(p.updates(app))
	if err := p.Call(p.w.ctx, "send_webxdc_status_update", nil, p.Account, app, `{"payload":`+payload+`}`, ""); err != nil {
		p.w.t.Fatal(err)
	}
	for {
		if list := p.updates(app); len(list) >= before+1+n {
			var answers []heard
			for _, payload := range list[before+1:] {
				answers = append(answers, heard{text: payload})
			}
			return answers
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-p.w.ctx.Done():
			p.w.t.Fatalf("no answer to the update %s\n%s", payload, p.w.log)
		}
	}
}

// updates are the payloads of the updates that an app has seen, with their keys in order.
func (p *person) updates(app core.MsgID) []string {
	p.w.t.Helper()
	var text string
	var list []struct {
		Payload any `json:"payload"`
	}
	err := p.Call(p.w.ctx, "get_webxdc_status_updates", &text, p.Account, app, 0)
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	if err != nil {
		p.w.t.Fatal(err)
	}
	var payloads []string
	for _, u := range list {
		payload, err := json.Marshal(u.Payload)
		if err != nil {
			p.w.t.Fatal(err)
		}
		payloads = append(payloads, string(payload))
	}
	return payloads
}

// serverOf is the core of a version, as pip installs it beside the framework.
func serverOf(t *testing.T, version string) string {
	t.Helper()
	if version == "" {
		return coretest.Binary(t)
	}
	path, err := filepath.Abs("../../.tools/bots/core-" + version + "/deltachat-rpc-server")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// daemon runs a bot as its author does at home: for ever, and with a core of its own, whose account is on the relay.
func (w *world) daemon(account string, f files, server string) (invite string) {
	w.t.Helper()
	host, imapPort := split(w.t, w.imap)
	_, smtpPort := split(w.t, w.smtp)
	self, err := user.Start(w.ctx, server, filepath.Join(w.dir, account), "Daemon", core.Transport{
		Addr: account + "@" + domain, Password: "its own password", IMAPServer: host, IMAPPort: imapPort, SMTPServer: host, SMTPPort: smtpPort,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if err = self.SetConfig(w.ctx, self.Account, "bot", "1"); err == nil {
		invite, err = self.Invite(w.ctx, self.Account)
	}
	if err := errors.Join(err, self.Close()); err != nil {
		w.t.Fatal(err)
	}
	dir := filepath.Join(w.dir, "at-home")
	for name, text := range f {
		path := filepath.Join(dir, name)
		mode := os.FileMode(0o600)
		if strings.HasPrefix(text, "\x7fELF") {
			mode = 0o700
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.runDaemon(dir, account, server)
	return invite
}

func (w *world) runDaemon(dir, account, core string) {
	w.t.Helper()
	b, err := bundle.FromDir(dir, bundle.DefaultCeilings())
	if err != nil {
		w.t.Fatal(err)
	}
	server := filepath.Join(w.dir, "deltachat-rpc-server")
	script := fmt.Sprintf("#!/bin/sh\nDC_ACCOUNTS_PATH=%s exec %s \"$@\"\n", filepath.Join(w.dir, account), core)
	if err := os.WriteFile(server, []byte(script), 0o700); err != nil {
		w.t.Fatal(err)
	}
	command := b.Manifest.Command
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/usr/bin/env", command...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + w.dir + ":/usr/bin:/bin", "HOME=" + w.dir, "PYTHONPATH=" + dir + "/site-packages", "PYTHONUNBUFFERED=1",
		"DELTA_CHAT_RPC_SERVER=" + server, "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	log := &hostLog{news: make(chan struct{}, 1)}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed, as daemons are
		if w.t.Failed() {
			w.t.Logf("the daemon's log:\n%s", log)
		}
	})
}
