//go:build bots

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
)

// published is a bot of test/bots with the framework that scripts/setup-bots has fetched for it, as its author would upload them.
func published(t *testing.T, name string) files {
	t.Helper()
	f := files{}
	for _, dir := range []string{"../bots/" + name, "../../.tools/bots/" + name} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			inside, err := filepath.Rel(dir, path)
			if err != nil || slices.ContainsFunc(strings.Split(inside, "/"), func(s string) bool { return strings.HasPrefix(s, ".") }) {
				return err
			}
			data, err := os.ReadFile(path)
			f[inside] = string(data)
			return err
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return f
}

// TestFrameworks runs the echo bots of the frameworks' own documentation, unmodified.
func TestFrameworks(t *testing.T) {
	for _, test := range []struct {
		name, account string
		files         bool // it echoes files, too
	}{
		{"deltabot-cli", "clibot001", false},
		{"deltachat2", "dc2bot001", false},
		{"deltachat-rpc-client", "rpcbot001", true},
		{"jsonrpc-client", "nodebot01", false},
		{"shell", "shellbot1", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			address, invite := w.start(test.account, published(t, test.name))
			ada := w.person("ada" + test.account[:6])
			chat := ada.join(invite)
			for _, text := range []string{"hello", "and again"} {
				said := time.Now()
				ada.say(chat, text)
				ada.expect(text)
				answered := time.Since(said)
				r := w.run(address).Record
				if r.Status != bot.RunOK {
					t.Errorf("the run ended with %s %q\n%s", r.Status, r.Message, r.Log)
				}
				t.Logf("answered in %s; the run took %s, %s of CPU, %d MB", answered.Round(time.Millisecond), r.Wall.Round(time.Millisecond), r.CPU.Round(time.Millisecond), r.Memory>>20)
			}
			if test.files {
				path := w.write("in.txt", "an attachment")
				if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "a file", File: path, Filename: "in.txt"}); err != nil {
					t.Fatal(err)
				}
				if m := ada.whole(ada.expect("a file")); m.FileName != "in.txt" || string(readAll(t, m.File)) != "an attachment" {
					t.Errorf("the file came back as %+v", m)
				}
			}
		})
	}
}
