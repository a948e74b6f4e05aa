package e2e

import (
	"net"
	"os/exec"
	"regexp"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mayfly/internal/bot"
	"mayfly/internal/install"
	"mayfly/internal/mailbox"
)

// TestInstallByPython installs an example with a script of Python's standard library, before the host knows of the folder Bot.
func TestInstallByPython(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const address, password = bot.Address("python001@" + domain), "correct horse"
	host, port, err := net.SplitHostPort(w.imap)
	if err != nil {
		t.Fatal(err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("install python3: %v", err)
	}
	command := exec.CommandContext(w.ctx, python, "testdata/install.py", host, port, string(address), password, "../../examples/dice")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("install.py: %v\n%s", err, out)
	}
	w.accounts = append(w.accounts, address)
	w.serve()
	ada := w.person("ada000201")
	client, err := mailbox.Dial(w.ctx, mailbox.Server{Addr: w.imap, TLS: "plain"}, mailbox.Login{Username: string(address), Password: password})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ada.say(ada.join(w.installed(client)), "2d6")
	if m := ada.hear(); !regexp.MustCompile(`[1-6].*[1-6].*=.*\d+`).MatchString(m.Text) {
		t.Errorf("dice said %q", m.Text)
	}
}

// TestInstallByDraft saves a draft with single attachments into the folder Bot, with the bytes and the flags of Thunderbird.
func TestInstallByDraft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("drafted01")
	w.serve()
	draft := readAll(t, "testdata/draft.eml")
	if err := w.poll(func() bool { there, err := client.Exists(w.ctx, install.Folder); return err == nil && there }); err != nil {
		t.Fatal("the host made no folder Bot")
	}
	w.asOwner(address, func(c *imapclient.Client) error {
		flags := []imap.Flag{imap.FlagDraft, imap.FlagSeen}
		command := c.Append(install.Folder, int64(len(draft)), &imap.AppendOptions{Flags: flags})
		if _, err := command.Write(draft); err != nil {
			return err
		}
		if err := command.Close(); err != nil {
			return err
		}
		_, err := command.Wait()
		return err
	})
	invite := w.installed(client)
	w.told(client, 1, "Subject: installed: Drafted 1.0.0")
	ada := w.person("ada000202")
	ada.say(ada.join(invite), "hallo")
	ada.expect("Grüße aus dem Entwurf: hallo")
	if _, err := client.Select(w.ctx, install.Folder); err != nil {
		t.Fatal(err)
	}
	if left, err := client.List(w.ctx, 0, 10); err != nil || len(left) != 1 {
		t.Errorf("%d messages in the folder, %v; want the author's draft left alone", len(left), err)
	}
}
