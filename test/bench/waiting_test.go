//go:build bench

package bench

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
	"mayfly/internal/core"
)

// measureWaiting has many mails wait for a bot, and measures what each of them takes from when the bot is resumed to the last answer in the
// user's core: for a bot that has a session for each mail, since it replies at once, and for one whose sessions take several; by turns.
func measureWaiting(t *testing.T, ctx context.Context, rounds, mails int) []Row {
	w := startWakes(t, ctx, 1)
	u := startUser(t, ctx, ada, w.imap, w.smtp)
	kinds := []*waiting{
		{name: "waiting mails, a session each", address: "echo.each@chat.test", manifest: "replies = \"at once\"\n"},
		{name: "waiting mails, several in a session", address: "echo.many@chat.test"},
	}
	for _, k := range kinds {
		w.makeAccount(ctx, k.address)
		w.changed(k.address, "INBOX", 1) // so that the host watches it
		author := w.login(ctx, k.address)
		invite := installBundle(t, ctx, author, k.address, echoWith(t, k.manifest))
		must(t, author.Close())
		var err error
		k.chat, err = u.Join(ctx, invite)
		must(t, err)
		w.once(ctx, u, k.chat)
	}
	for range rounds {
		for _, k := range kinds {
			lines, before := len(w.host.lines("session committed")), w.host.cpu()
			w.operate("pause", k.address)
			for range mails {
				_, err := u.Say(ctx, k.chat, "hello")
				must(t, err)
				_, err = u.Await(ctx, func(e core.Event) bool { return e.Kind == "SmtpMessageSent" })
				must(t, err)
			}
			start := time.Now()
			w.operate("resume", k.address)
			for range mails {
				_, err := u.Next(ctx)
				must(t, err)
			}
			k.took = append(k.took, time.Since(start)/time.Duration(mails))
			time.Sleep(200 * time.Millisecond) // the last are deleted
			k.cpu += w.host.cpu() - before
			for _, line := range w.host.lines("session committed")[lines:] {
				k.cpu += time.Duration(line["core_cpu"].(float64) + line["cpu"].(float64))
			}
		}
	}
	var rows []Row
	for _, k := range kinds {
		rows = append(rows, Row{Name: k.name, Times: k.took, Base: kinds[0].took, CPU: k.cpu / time.Duration(rounds*mails)})
	}
	return rows
}

// waiting is a bot for which mails wait, and what they took.
type waiting struct {
	name     string
	address  bot.Address
	manifest string // lines that it has besides
	chat     core.ChatID
	took     []time.Duration // a mail, of each round
	cpu      time.Duration
}

// echoWith is examples/echo with more lines in its manifest.
func echoWith(t *testing.T, lines string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.FromDir("../../examples/echo", bundle.DefaultCeilings())
	must(t, err)
	for i, f := range b.Files {
		if f.Path == bundle.ManifestName {
			b.Files[i].Data = append([]byte(lines), f.Data...)
		}
	}
	return b
}

// operate is an operator's command.
func (w *wakes) operate(verb string, address bot.Address) {
	w.t.Helper()
	bin, err := filepath.Abs("../../bin/mayfly")
	must(w.t, err)
	if out, err := exec.Command(bin, verb, "-config", filepath.Join(w.host.dir, "mayfly.toml"), string(address)).CombinedOutput(); err != nil {
		w.t.Fatalf("mayfly %s: %v\n%s", verb, err, out)
	}
}
