package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mayfly/internal/bot"
	"mayfly/internal/mailbox"
)

// TestRelayMoods has relays that go away, refuse logins or fall silent. Every mail is answered once and in order, the log says
// why it took so long, and the host does not run in circles. They are set up one after the other and then wait together.
func TestRelayMoods(t *testing.T) {
	t.Run("silent", relayFallsSilent)
	t.Run("away", relayIsAway)
	t.Run("logins", relayRefusesLogins)
}

const interrupted = "mailbox: watching was interrupted"

// relayIsAway is 10 s without IMAP and submission, while two mails wait.
func relayIsAway(t *testing.T) {
	w := newWorld(t)
	inbound, submission := w.behindProxies("")
	address, invite := w.start("away00001", script("Echo", echo))
	ada := w.person("ada000301")
	chat := ada.join(invite)
	ada.say(chat, "before")
	ada.expect("you said: before")
	w.awaitJobs(address, 3)
	t.Parallel()

	after := w.log.offset()
	inbound.away()
	submission.away()
	ada.say(chat, "one")
	ada.say(chat, "two")
	time.Sleep(10 * time.Second)
	w.await(after, interrupted, "idle: the connection has ended", `"again_in"`)
	w.await(after, interrupted, "connection refused", `"again_in"`)
	// Two watchers, each after 0.5 s or more, then doubling: 0, 0.5, 1.5, 3.5, 7.5.
	if n := strings.Count(w.log.String()[after:], "\n"); n > 2*5+4 {
		t.Errorf("%d lines of log in 10 s:\n%s", n, w.log.String()[after:])
	}
	inbound.back()
	submission.back()
	ada.expect("you said: one")
	ada.expect("you said: two")
	ada.say(chat, "after")
	ada.expect("you said: after")
	w.awaitJobs(address, 2+4)
	if n := w.runs(address); n != 4 {
		t.Errorf("%d runs, want one for each mail", n)
	}
}

// relayRefusesLogins lets the relay see a wrong password for 4 s, and ends the connections that were good.
func relayRefusesLogins(t *testing.T) {
	w := newWorld(t)
	inbound, _ := w.behindProxies("")
	address, invite := w.start("logins001", script("Echo", echo))
	ada := w.person("ada000302")
	chat := ada.join(invite)
	t.Parallel()

	master := readAll(t, filepath.Join(w.dir, "master-password"))
	after, dialled := w.log.offset(), inbound.dialled()
	inbound.rewrite(func(b []byte) []byte { return bytes.ReplaceAll(b, master, []byte("wrong")) })
	inbound.cut()
	ada.say(chat, "one")
	time.Sleep(4 * time.Second)
	w.await(after, interrupted, "login refused", "check the address and the password", string(address))
	if n := inbound.dialled() - dialled; n < 2 || n > 2*4 { // after 0.5 s or more, then doubling: 0.5, 1.5, 3.5
		t.Errorf("%d logins in 4 s", n)
	}
	inbound.rewrite(nil)
	ada.expect("you said: one")
	ada.say(chat, "two")
	ada.expect("you said: two")
	w.awaitJobs(address, 2+2)
}

// relayFallsSilent has two moods at once, since both end after half a minute. Submission is away for one reply, which waits in
// the outbox. The connections in IDLE lead nowhere, and nobody is told; mail that comes then is found by the poll. That the
// watchers find it out themselves, at the next renewal of IDLE, package mailbox tests (TestBlackHoleInIdle).
func relayFallsSilent(t *testing.T) {
	w := newWorld(t)
	inbound, submission := w.behindProxies(`poll = "1m"`) // of one account half a minute after the start, and then each minute
	address, invite := w.start("silent001", script("Echo", echo))
	ada := w.person("ada000303")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	after := w.log.offset()
	submission.away()
	ada.say(chat, "one")
	w.await(after, "a mail has to wait", string(address), "connection refused")
	submission.back()
	w.awaitJobs(address, 3)
	if err := w.poll(func() bool { return inbound.idling(false) == 2 }); err != nil {
		t.Fatalf("%d connections in IDLE, want two", inbound.idling(false))
	}
	after = w.log.offset()
	dialled := inbound.dialled()
	if n := inbound.idling(true); n != 2 {
		t.Fatalf("%d connections in IDLE, want two", n)
	}
	ada.say(chat, "two")
	t.Parallel()

	ada.expect("you said: one")
	ada.expect("you said: two")
	w.awaitJobs(address, 2+2)
	if n := inbound.dialled() - dialled; n > 1 { // the bot's own, if it was idle for too long
		t.Errorf("%d new connections", n)
	}
	log := w.log.String()[after:]
	if strings.Contains(log, interrupted) || strings.Contains(log, "a mail has to wait") {
		t.Errorf("IDLE was not silent, or submission not back:\n%s", log)
	}
}

// TestMailVanishesBetweenLookAndFetch deletes a mail, as another client of the account could, when the host is about to fetch it.
func TestMailVanishesBetweenLookAndFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inbound, _ := w.behindProxies("")
	address, invite := w.start("vanish001", script("Echo", echo))
	ada := w.person("ada000304")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	looked, gone := make(chan bool), make(chan bool)
	var first sync.Once
	goOn := sync.OnceFunc(func() { close(gone) })
	defer goOn()
	inbound.rewrite(func(b []byte) []byte {
		if bytes.Contains(b, []byte("BODY.PEEK[]")) {
			first.Do(func() { close(looked); <-gone })
		}
		return b
	})
	after := w.log.offset()
	ada.say(chat, "one")
	select {
	case <-looked:
	case <-w.ctx.Done():
		t.Fatalf("the host fetches nothing\n%s", w.log)
	}
	w.emptyInbox(address)
	goOn()
	ada.say(chat, "two")
	ada.expect("you said: two")
	w.awaitJobs(address, 3)
	if n, refused := w.runs(address), w.refusals(address); n != 1 || len(refused) != 0 {
		t.Errorf("%d runs and refusals %v, want one run", n, refused)
	}
	w.await(after, "mail vanished before it was fetched")
	if log := w.log.String()[after:]; strings.Contains(log, "will try again") {
		t.Errorf("a mail that is gone was tried again:\n%s", log)
	}
}

func (w *world) emptyInbox(address bot.Address) {
	w.t.Helper()
	w.asOwner(address, func(c *imapclient.Client) error {
		data, err := c.Select("INBOX", nil).Wait()
		if err == nil && data.NumMessages != 1 {
			err = fmt.Errorf("%d mails in the INBOX, want one", data.NumMessages)
		}
		if err != nil {
			return err
		}
		deleted := &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}
		if err := c.Store(imap.SeqSetNum(1), deleted, nil).Close(); err != nil {
			return err
		}
		return c.Expunge().Close()
	})
}

// requireMemory bounds the most resident memory, in MB, that the daemon has had since it was started. The broker, core and bots
// are processes of their own and not in it.
func (w *world) requireMemory(bound int, what string) {
	w.t.Helper()
	status := string(readAll(w.t, fmt.Sprintf("/proc/%d/status", w.command.Process.Pid)))
	_, rest, found := strings.Cut(status, "VmHWM:")
	kB, err := strconv.Atoi(strings.Fields(rest + " none")[0])
	if !found || err != nil {
		w.t.Fatalf("no VmHWM in:\n%s", status)
	}
	w.t.Logf("the daemon took %d MB for %s", kB>>10, what)
	if kB>>10 > bound {
		w.t.Errorf("that is more than %d MB", bound)
	}
}

// junk is a mail of somebody who is not encrypting, with n bytes of text.
func junk(from string, n int) []byte {
	line := strings.Repeat("j", 76) + "\r\n"
	return []byte("From: <" + from + "@elsewhere.test>\r\nSubject: buy\r\nContent-Type: text/plain\r\n\r\n" + strings.Repeat(line, n/len(line)))
}

func (w *world) deliver(address bot.Address, mail []byte) {
	w.t.Helper()
	if err := w.relay.Deliver(address, mail); err != nil {
		w.t.Fatal(err)
	}
}

// TestTenThousandMailsWait is 10,000 mails of junk in one INBOX at the start of the host, 100 MB of it, and one mail behind them.
func TestTenThousandMailsWait(t *testing.T) {
	const junkMails, size = 10_000, 10_000
	w := newWorld(t)
	address, client := w.newAccount("junk00000")
	w.append(client, address, script("Echo", echo))
	w.serve()
	ada := w.person("ada000305")
	chat := ada.join(w.installed(client))
	w.awaitJobs(address, 2)
	w.stop()
	before := w.relay.Stats().Delivered
	for i := range junkMails {
		w.deliver(address, junk(fmt.Sprintf("sender%d", i%20), size))
	}
	ada.say(chat, "behind it")
	w.serve()
	start := time.Now()
	for w.refusals(address)["cleartext"] < junkMails { // slower than a person waits for, where the machine is busy
		if w.ctx.Err() != nil {
			t.Fatalf("counted %v", w.refusals(address))
		}
		time.Sleep(100 * time.Millisecond)
	}
	ada.expect("you said: behind it")
	t.Logf("the mail behind the junk was answered after %v", time.Since(start).Round(time.Millisecond))
	w.requireEmpty(client, address)
	if refused := w.refusals(address); refused["cleartext"] != junkMails || len(refused) != 1 {
		t.Errorf("counted %v, want %d of cleartext", refused, junkMails)
	}
	if n := strings.Count(w.log.String(), `"msg":"mail refused"`); n != junkMails {
		t.Errorf("%d lines for %d refused mails", n, junkMails)
	}
	if n := w.relay.Stats().Delivered - before; n != junkMails+2 {
		t.Errorf("the relay delivered %d mails, want the junk, one of a person and its answer: junk is not answered", n)
	}
	w.requireMemory(48, "10,000 mails of 10 kB")
}

// requireEmpty waits until the INBOX holds nothing.
func (w *world) requireEmpty(client *mailbox.Client, address bot.Address) {
	w.t.Helper()
	var left mailbox.Status
	err := w.poll(func() bool {
		var err error
		if left, err = client.Select(w.ctx, "INBOX"); err != nil {
			w.t.Fatal(err)
		}
		return left.Messages == 0
	})
	if err != nil {
		w.t.Errorf("%s: %d mails are left in the INBOX", address, left.Messages)
	}
}

// TestLargeMail delivers mails at the limit of 30 MiB: junk, one a little above it, and one that is encrypted and worked.
func TestLargeMail(t *testing.T) {
	t.Parallel()
	const large = 29_000_000
	const size = large / 4 * 3 / 41 * 40 // of the file: base64 and the armor's lines make it larger, compression smaller
	w := newWorld(t)
	address, client := w.newAccount("bot000002")
	w.putKey(address, "bot2-secret.asc")
	w.append(client, address, script("Size", fmt.Sprintf(`export default { async message(msg) {
		const n = (await msg.file.bytes()).length
		if (n != %d) throw new Error("the file has " + n + " bytes")
	} }`, size)))
	w.serve()
	w.installed(client)

	w.deliver(address, junk("large", large))
	w.awaitVerdict(address, 0, map[string]int64{}, "cleartext", "junk of 29 MB")
	over := append(junk("larger", 30<<20-1000), bytes.Repeat([]byte("j"), 2000)...)
	w.deliver(address, over[:30<<20]) // the fields that the relay adds make it larger than is taken
	w.awaitVerdict(address, 0, map[string]int64{"cleartext": 1}, "too-large", "one above 30 MiB")
	w.await(0, `"mail refused"`, `"too-large"`, "at most 31457280 are taken")
	w.requireMemory(80, "two large mails that it refused")

	data := make([]byte, size)
	rand.Read(data)
	mail := encrypted(t, "Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=large.bin\r\n"+
		"Content-Transfer-Encoding: base64\r\n\r\n"+inLines(base64.StdEncoding.EncodeToString(data)))
	if len(mail) < large || len(mail) > 30<<20-1000 {
		t.Fatalf("the mail has %d bytes", len(mail))
	}
	w.deliver(address, mail)
	w.awaitVerdict(address, 1, map[string]int64{"cleartext": 1, "too-large": 1}, "", "an encrypted file")
	if r := w.run(address).Record; r.Status != bot.RunOK {
		t.Errorf("%s %q, want OK", r.Status, r.Message)
	}
	w.requireEmpty(client, address)
	w.requireMemory(160, "a large mail that it worked: the mail, what the gate decrypts of it, and what core is shown")
}

func inLines(s string) string {
	var b strings.Builder
	for line := range slices.Chunk([]byte(s), 76) {
		b.Write(line)
		b.WriteString("\r\n")
	}
	return b.String()
}

// TestBrokenMIME delivers what no mail program writes, to the INBOX and to the folder Bot. Each mail in the INBOX is refused and
// deleted; the message in the folder is answered; a person behind it all is answered by the bot that was there before.
func TestBrokenMIME(t *testing.T) {
	t.Parallel()
	broken := brokenMails()
	w := newWorld(t)
	address, invite := w.start("mime00001", script("Echo", echo))
	ada := w.person("ada000306")
	chat := ada.join(invite)
	w.awaitJobs(address, 2)
	after := w.log.offset()
	for _, mail := range broken {
		w.deliver(address, []byte(mail))
	}
	want := map[string]int64{"cleartext": 7, "malformed": 8, "not-openpgp": 6, "too-large": 2}
	if err := w.poll(func() bool { return maps.Equal(w.refusals(address), want) }); err != nil {
		t.Errorf("counted %v, want %v\n%s", w.refusals(address), want, w.log.String()[after:])
	}
	ada.say(chat, "behind them")
	ada.expect("you said: behind them")
	if n := strings.Count(w.log.String()[after:], `"msg":"mail refused"`); n != len(broken) {
		t.Errorf("%d lines for %d refused mails", n, len(broken))
	}
	if strings.Contains(w.log.String()[after:], "will try again") {
		t.Errorf("a broken mail held the others up:\n%s", w.log.String()[after:])
	}
}

func brokenMails() []string {
	const head = "From: <mallory@elsewhere.test>\r\nMessage-ID: <broken@elsewhere.test>\r\n"
	const pgp = `Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b` + "\r\n\r\n"
	const marker = "--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
	const octets = "--b\r\nContent-Type: application/octet-stream\r\n\r\n"
	armored := func(text string) string {
		return head + pgp + marker + octets + "-----BEGIN PGP MESSAGE-----\r\n\r\n" + text + "\r\n-----END PGP MESSAGE-----\r\n--b--\r\n"
	}
	return []string{
		"",
		"\r\n",
		"no header at all",
		"\x00\xff\x00\r\n\r\n\x00",
		head,
		head + "a line without a colon\r\n\r\ntext\r\n",
		head + "Content-Type: multipart/mixed\r\n\r\nno boundary\r\n",
		head + "Content-Type: multipart/mixed; boundary=b\r\n\r\n--c\r\n\r\nanother\r\n",
		head + "Content-Type: multipart/mixed; boundary=\"b\r\n\r\nan open quote\r\n",
		head + "Content-Type: ; ;=;\r\nContent-Transfer-Encoding: rot13\r\n\r\ntext\r\n",
		head + pgp,
		head + pgp + marker,
		head + pgp + marker + octets,
		head + pgp + octets + marker + "--b--\r\n",
		head + pgp + marker + octets + "not armored\r\n--b--\r\n",
		armored(""),
		armored("====!!!!"),
		armored("wcBMA0000"),
		armored(strings.Repeat("/////w==\r\n", 1000)),
		head + nested(500),
		head + "Subject: " + strings.Repeat("=?utf-8?B?", 10_000) + "\r\n\r\ntext\r\n",
		head + strings.Repeat("X: y\r\n", 20_000) + "\r\ntext\r\n",
		head + "\rX: bare CR\n\nY: bare LF\r\n\r\n\r\r\n\n",
	}
}

// nested is a multipart in a multipart, n times.
func nested(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	return b.String()
}

// TestBrokenMIMEInTheFolder has the same in the folder Bot. Each message is answered, and the bot stays.
func TestBrokenMIMEInTheFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, client := w.newAccount("mime00002")
	w.append(client, address, script("Echo", echo))
	w.serve()
	ada := w.person("ada000307")
	chat := ada.join(w.installed(client))
	const mixed = "Subject: my bot\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
	const toml = "--b\r\nContent-Disposition: attachment; filename=bot.toml\r\n"
	for i, broken := range []struct{ mail, problem string }{
		{"Subject: my bot\r\nContent-Type: multipart/mixed\r\n\r\nno boundary\r\n", "a multipart without a boundary"},
		{mixed + toml + "Content-Transfer-Encoding: base64\r\n\r\n!!!!\r\n--b--\r\n", "cannot be decoded"},
		{mixed + toml + "Content-Transfer-Encoding: rot13\r\n\r\nanzr\r\n--b--\r\n", "unknown transfer encoding"},
		{mixed + "--c\r\n", "the parts cannot be read"},
		{"Subject: my bot\r\n" + nested(500), "parts inside each other"},
		{"no header at all\r\n", "the header cannot be read"},
	} {
		if err := client.Append(w.ctx, "Bot", []byte(broken.mail)); err != nil {
			t.Fatal(err)
		}
		answer := strings.ReplaceAll(w.status(client, 2+i), "=\r\n", "") // quoted-printable
		if !strings.Contains(answer, "Mayfly-State: refused") || !strings.Contains(answer, broken.problem) {
			t.Fatalf("the answer does not say %q:\n%s", broken.problem, answer)
		}
	}
	ada.say(chat, "still there?")
	ada.expect("you said: still there?")
}
