package e2e

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mayfly/internal/bot"
	"mayfly/internal/core"
)

const echo = `export default { message(msg) { return "you said: " + msg.text } }`

func TestTwoBotsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dice, diceClient := w.newAccount("dice00001")
	w.append(diceClient, dice, example(t, "dice"))
	echoBot, echoClient := w.newAccount("echo00001")
	w.append(echoClient, echoBot, script("Echo", echo))
	w.serve()
	ada := w.person("ada000001")
	chats := []core.ChatID{ada.join(w.installed(diceClient)), ada.join(w.installed(echoClient))}
	ada.say(chats[0], "2d6")
	ada.say(chats[1], "hello")
	heard := map[core.ChatID]string{}
	for range 2 {
		m := ada.hear()
		heard[m.ChatID] = m.Text
	}
	if !regexp.MustCompile(`[1-6].*[1-6].*=.*\d+`).MatchString(heard[chats[0]]) {
		t.Errorf("dice said %q", heard[chats[0]])
	}
	if heard[chats[1]] != "you said: hello" {
		t.Errorf("echo said %q", heard[chats[1]])
	}
	run := w.run(dice)
	if r := run.Record; r.Status != bot.RunOK || r.CPU <= 0 || r.Memory <= 0 || r.CoreCPU <= 0 || r.CoreMemory <= 0 {
		t.Errorf("the run record lacks something: %+v", r)
	}
}

// example is the bundle of that name in examples/.
func example(t *testing.T, name string) files {
	t.Helper()
	f := files{}
	root := "../../examples/" + name
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		f[filepath.ToSlash(name)] = string(readAll(t, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, invite := w.start("group0001", script("Group", `export default { async message(msg) {
		const names = (await msg.chat.members()).map(c => c.name).filter(n => n != "Me").sort()
		return msg.chat.name + ": " + msg.contact.name + " said " + msg.text + " to " + names.join(", ")
	} }`).with("[groups]\nprivacy = false\n"))
	ada, bob := w.person("ada000002"), w.person("bob000002")
	group := ada.group("Friends", ada.join(invite), ada.meet(bob))
	ada.say(group, "hi all")
	bob.expect("hi all")
	want := regexp.MustCompile(`^Friends: ada000002 said hi all to .*ada000002.*`)
	if m := ada.hear(); !want.MatchString(m.Text) || m.ChatID != group {
		t.Errorf("ada heard %q in chat %d, want %s in the group %d", m.Text, m.ChatID, want, group)
	}
	if m := bob.hear(); !want.MatchString(m.Text) {
		t.Errorf("bob heard %q: the bot's reply reaches every member", m.Text)
	}
}

// TestGroupPrivacy shows what wakes a bot in a group unless its manifest says otherwise: its commands, mentions of it and
// answers to it.
func TestGroupPrivacy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("private01", script("Hal", echo).with("[[commands]]\nname = \"open\"\ndescription = \"Opens the doors\"\n"))
	ada := w.person("ada000009")
	group := ada.group("Crew", ada.join(invite))
	for _, text := range []string{"hello everybody", "/close the doors", "hal, are you there?", "/OPEN the doors"} {
		ada.say(group, text)
	}
	ada.expect("you said: /OPEN the doors")
	if n := w.runs(address); n != 1 {
		t.Fatalf("%d runs, want none for what was not meant for the bot, and one", n)
	}
	ada.say(group, "are you sure, @hal?")
	m := ada.expect("you said: are you sure, @hal?")
	_, err := ada.SendMsg(w.ctx, ada.Account, group, core.MessageData{Text: "I am", QuotedMessageID: m.ID})
	if err != nil {
		t.Fatal(err)
	}
	ada.expect("you said: I am")
}

// TestWebxdc sends an app from the bot and an update back to it.
func TestWebxdc(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, invite := w.start("webxdc001", script("App", `export default {
		async message(msg) {
			if (!msg.file) return "send me an app"
			await msg.reply({ file: { name: "poll.xdc", data: await msg.file.bytes() } })
		},
		async webxdc(update) { return "vote for " + update.payload.vote },
	}`))
	ada := w.person("ada000010")
	chat := ada.join(invite)
	_, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{File: w.write("app.zip", app(t)), Filename: "app.bin"})
	if err != nil {
		t.Fatal(err)
	}
	m := ada.whole(ada.hear())
	if m.ViewType != "Webxdc" {
		t.Fatalf("the bot sent %+v, want a webxdc app", m)
	}
	if err := ada.Call(w.ctx, "send_webxdc_status_update", nil, ada.Account, m.ID, `{"payload":{"vote":"blue"}}`, nil); err != nil {
		t.Fatal(err)
	}
	ada.expect("vote for blue")
}

// app is the smallest webxdc.
func app(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range map[string]string{"index.html": "<html></html>", "manifest.toml": `name = "Poll"`} {
		f, err := z.Create(name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFileBothWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("files0001", script("Files", `export default { async message(msg) {
		if (!msg.file) return "no file"
		const data = await msg.file.bytes()
		data.reverse()
		await msg.reply({ text: msg.text + " reversed", file: { name: "reversed.bin", data } })
	} }`))
	ada := w.person("ada000003")
	chat := ada.join(invite)
	data := make([]byte, 1<<20)
	rand.Read(data)
	_, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "a file", File: w.write("big.bin", string(data))})
	if err != nil {
		t.Fatal(err)
	}
	m := ada.whole(ada.hear())
	if m.Text != "a file reversed" {
		t.Errorf("heard %q with the file", m.Text)
	}
	back := readAll(t, m.File)
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	if !bytes.Equal(back, data) || m.FileName != "reversed.bin" {
		t.Errorf("got %s of %d bytes back, not the %d bytes reversed", m.FileName, len(back), len(data))
	}
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 1 {
		t.Errorf("a file of two mails made %d runs, %v; want 1", len(runs), err)
	}
}

// TestFileComesBeforeItsText has the relay deliver the two mails of a large message in the wrong order. The second one waits for
// the first, and the bot gets both.
func TestFileComesBeforeItsText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("files0002", script("Files", `export default { message(msg) {
		return `+"`${msg.text} with ${msg.file?.size} bytes`"+`
	} }`))
	ada := w.person("ada000310")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	w.stop()
	data := make([]byte, 1<<20)
	rand.Read(data)
	before := w.relay.Stats().Delivered
	_, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "a file", File: w.write("big.bin", string(data))})
	if err != nil {
		t.Fatal(err)
	}
	w.awaitDelivered(before + 2)
	w.asOwner(address, moveFirstToTheEnd)
	w.serve()
	ada.expect("a file with 1048576 bytes")
	w.awaitJobs(address, 4)
	if n := w.runs(address); n != 1 {
		t.Errorf("%d runs, want one", n)
	}
	w.await(0, "mail waits", `"first part"`)
}

// moveFirstToTheEnd gives the first mail of the INBOX a new UID.
func moveFirstToTheEnd(c *imapclient.Client) error {
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		return err
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	mails, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{whole}}).Collect()
	if err != nil || len(mails) != 1 {
		return fmt.Errorf("%d mails: %w", len(mails), err)
	}
	mail := mails[0].FindBodySection(whole)
	appending := c.Append("INBOX", int64(len(mail)), nil)
	if _, err := appending.Write(mail); err != nil {
		return err
	}
	if err := appending.Close(); err != nil {
		return err
	}
	if _, err := appending.Wait(); err != nil {
		return err
	}
	deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}
	if err := c.Store(imap.SeqSetNum(1), deleted, nil).Close(); err != nil {
		return err
	}
	return c.Expunge().Close()
}

func TestReaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("react0001", script("React", `export default { async message(msg) { await msg.react("👍"); return "seen" } }`))
	ada := w.person("ada000004")
	chat := ada.join(invite)
	sent := ada.say(chat, "look")
	e, err := ada.Await(w.ctx, func(e core.Event) bool { return e.Kind == core.IncomingReaction })
	if err != nil || e.MsgID != sent || e.Reaction != "👍" {
		t.Fatalf("reaction %+v, %v, want 👍 on message %d", e, err, sent)
	}
	reply := ada.expect("seen")
	if _, err := ada.SendReaction(w.ctx, ada.Account, reply.ID, "❤️"); err != nil {
		t.Fatal(err)
	}
	w.awaitJobs(address, 4) // two of the handshake, the message, the reaction
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 1 {
		t.Errorf("%d runs, %v: a reaction of the user's is no message", len(runs), err)
	}
	ada.say(chat, "again")
	ada.expect("seen")
}

func TestEdit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("edits0001", script("Edits", `export default { async message(msg) {
		const sent = await msg.reply("thinking about " + msg.text)
		await sent.edit("done with " + msg.text)
	} }`))
	ada := w.person("ada000005")
	chat := ada.join(invite)
	sent := ada.say(chat, "one")
	first := ada.hear()
	for edited := first; edited.Text != "done with one"; {
		_, err := ada.Await(w.ctx, func(e core.Event) bool { return e.Kind == core.MsgsChanged && e.MsgID == first.ID })
		if err != nil {
			t.Fatalf("the bot's edit did not come: %v", err)
		}
		if edited, err = ada.GetMessage(w.ctx, ada.Account, first.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := ada.SendEdit(w.ctx, ada.Account, sent, "one and a half"); err != nil {
		t.Fatal(err)
	}
	w.awaitJobs(address, 4) // two of the handshake, the message, the edit
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 1 {
		t.Errorf("%d runs, %v: an edit of the user's is no message", len(runs), err)
	}
}

// TestFailingBots shows that a bot's failure is its author's matter: it is recorded with its reason, the mail is over, and the
// bot answers the next one.
func TestFailingBots(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, account, source string
		status                bot.RunStatus
		message               string
	}{
		{"throws", "throws001", "export default {\n  async message(msg) {\n    await msg.reply('lost')\n    throw new Error('no ' + msg.text)\n  } }", bot.RunError, "main.js:4:"},
		{"loops", "loops0001", "export default { message() {\n  for (;;) {}\n} }", bot.RunTimeout, "main.js:1:19: the time limit of 5s passed"},
		{"never resolves", "never0001", "export default { message() { return new Promise(() => {}) } }", bot.RunError, "never resolves"},
		{"eats memory", "memory001", "export default { message() {\n  const a = []\n  for (;;) a.push(new Uint8Array(1e6).fill(1))\n} }", bot.RunError, "memory"},
		{"cannot be interrupted", "native001", "export default { message() { return Array(1e9).join('x').length } }", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			address, invite := w.start(test.account, script("Failing", failUnlessFine(test.source)))
			ada := w.person("ada" + test.account[:6])
			chat := ada.join(invite)
			ada.say(chat, "luck")
			w.awaitJobs(address, 3)
			run := w.run(address)
			if run.Record.Status == bot.RunOK || test.status != "" && run.Record.Status != test.status || !strings.Contains(run.Record.Message, test.message) {
				t.Errorf("record %s %q, want %s with %q", run.Record.Status, run.Record.Message, test.status, test.message)
			}
			ada.sorry()
			ada.say(chat, "fine")
			ada.expect("fine") // and nothing of the failed run
		})
	}
}

// failUnlessFine makes the script answer "fine" to "fine" and fail otherwise, without moving the lines of its source.
func failUnlessFine(source string) string {
	return strings.Replace(source, "export default {", "const failing = {", 1) +
		"\nexport default { message(msg, env, ctx) { return msg.text == 'fine' ? 'fine' : failing.message(msg, env, ctx) } }\n"
}

func TestSyntaxErrorIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("syntax001")
	w.append(client, address, script("Syntax", "export default {\n  message(msg) { return msg.text +* 2 }\n}"))
	w.serve()
	mail := w.status(client, 1)
	if !strings.Contains(mail, "Mayfly-State: refused") || !strings.Contains(mail, "main.js:2:") {
		t.Errorf("want a refusal that names main.js:2, got\n%s", mail)
	}
	w.append(client, address, script("Syntax", echo))
	if mail := w.status(client, 2); !strings.Contains(mail, "Mayfly-State: installed") {
		t.Errorf("the mended bundle is not installed:\n%s", mail)
	}
}

func TestUpdateAndUninstall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("update001")
	counter := `export default { async message(msg, env) {
		const n = Number(await env.storage.get("n") ?? 0) + 1
		await env.storage.put("n", String(n))
		return "VERSION " + n
	} }`
	w.append(client, address, script("Counter", strings.Replace(counter, "VERSION", "old", 1)))
	w.serve()
	ada := w.person("ada000006")
	chat := ada.join(w.installed(client))
	ada.say(chat, "a")
	ada.expect("old 1")
	w.append(client, address, script("Counter", strings.Replace(counter, "VERSION", "new", 1)))
	if mail := w.status(client, 2); !strings.Contains(mail, "Mayfly-State: updated") {
		t.Fatalf("not updated:\n%s", mail)
	}
	ada.say(chat, "b")
	ada.expect("new 2")
	uninstall := "From: <" + string(address) + ">\r\nTo: <" + string(address) + ">\r\nSubject: uninstall\r\nMessage-ID: <u@x>\r\n\r\n"
	if err := client.Append(w.ctx, "Bot", []byte(uninstall)); err != nil {
		t.Fatal(err)
	}
	if mail := w.status(client, 3); !strings.Contains(mail, "Mayfly-State: uninstalled") {
		t.Fatalf("not uninstalled:\n%s", mail)
	}
	if bots, err := w.ledger().Bots(w.ctx); err != nil || len(bots) != 0 {
		t.Errorf("after uninstall the ledger holds %v, %v", bots, err)
	}
	for _, dir := range []string{"bots", "keys"} {
		if left, _ := filepath.Glob(filepath.Join(w.dir, "state", dir, string(address), "*")); len(left) > 0 {
			t.Errorf("after uninstall %s holds %v", dir, left)
		}
	}
}

func TestRestartWithMailWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, invite := w.start("restart01", script("Echo", echo))
	ada := w.person("ada000007")
	chat := ada.join(invite)
	ada.say(chat, "one")
	ada.expect("you said: one")
	w.stop()
	before := w.relay.Stats().Delivered
	for i := range 3 {
		ada.say(chat, fmt.Sprintf("waiting %d", i))
	}
	w.awaitDelivered(before + 3)
	w.serve()
	for i := range 3 {
		ada.expect(fmt.Sprintf("you said: waiting %d", i))
	}
}

// TestKillBetweenSendAndCommit kills the host with SIGKILL when core has handed the bot's reply over and the session is not
// committed: the mail is answered by another session, and the user hears one reply.
func TestKillBetweenSendAndCommit(t *testing.T) {
	w := newWorld(t)
	address, invite := w.start("killed001", script("Slow", `export default { async message(msg) {
		await msg.reply("reply to " + msg.text)
		await new Promise(r => setTimeout(r, 2000))
	} }`))
	ada := w.person("ada000008")
	chat := ada.join(invite)
	after := w.log.offset()
	ada.say(chat, "one")
	w.await(after, "minirelay", "submitted")
	users, _ := family()
	w.kill()
	if runs, err := w.ledger().Runs(w.ctx, address, 10); err != nil || len(runs) != 0 {
		t.Fatalf("the kill came after the commit: %v, %v", runs, err)
	}
	err := w.poll(func() bool { now, _ := family(); return len(now) == 1 }) // ada's core
	if now, _ := family(); err != nil {
		t.Errorf("a killed host left processes: %q of %q", now, users)
	}
	w.serve()
	ada.expect("reply to one")
	ada.say(chat, "two")
	ada.expect("reply to two") // and not a second reply to one
}
