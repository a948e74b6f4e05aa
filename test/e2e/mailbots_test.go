//go:build bots

package e2e

import (
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
)

// TestMailClients has conversations with bots on the usual libraries for IMAP and SMTP, and with a published bot that is not changed.
func TestMailClients(t *testing.T) {
	for _, c := range []struct {
		bot, account string
		file         bool
		want         []string // parts of what it says to "good morning"
		fileName     string   // of the file that comes back
	}{
		{"email-autoreply-bot", "oofbot001", false, []string{"Hello ada", "I am out of the office until Friday, January 02, 2099", "You wrote: good morning..."}, ""},
		{"mail-listener5", "listenbot", true, []string{"good morning"}, "IN.TXT"},
		{"imapflow", "flowbot01", true, []string{"good morning (text/plain,text/plain)"}, ""},
		{"imap-tools", "toolsbot1", true, []string{"good morning, 1 files"}, ""},
	} {
		t.Run(c.bot+map[bool]string{true: " with a file"}[c.file], func(t *testing.T) {
			w := newWorld(t)
			address, invite := w.start(c.account, published(t, c.bot))
			w.ledger()
			ada := w.person("ada" + c.account[3:])
			chat := ada.join(invite)
			data := core.MessageData{Text: "good morning"}
			if c.file {
				data.File, data.Filename = w.write("in.txt", "an attachment"), "in.txt"
			}
			if _, err := ada.SendMsg(w.ctx, ada.Account, chat, data); err != nil {
				t.Fatal(err)
			}
			m := ada.hear()
			for _, want := range c.want {
				if !strings.Contains(m.Text, want) {
					t.Errorf("heard %q, want %q", m.Text, want)
				}
			}
			if c.fileName != "" {
				if m = ada.whole(m); m.FileName != c.fileName || string(readAll(t, m.File)) != "an attachment" {
					t.Errorf("the file came as %+v", m)
				}
			}
			r := w.run(address).Record
			if r.Status != bot.RunOK {
				t.Errorf("the run ended with %s %q", r.Status, r.Message)
			}
			t.Logf("said %q in a run of %s, %.0f %% of it waiting for quiet, %s of CPU, %d MB", m.Text, r.Wall.Round(time.Millisecond), 100*w.quiet(),
				r.CPU.Round(time.Millisecond), r.Memory>>20)
		})
	}
}
