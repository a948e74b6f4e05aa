package e2e

import (
	"crypto/rand"
	"strings"
	"testing"

	"mayfly/internal/bot"
	"mayfly/internal/core"
)

// mailBot is a bundle of a script that has its own mail client.
func mailBot(name, interpreter, script string) files {
	f := native(name, interpreter, script)
	f["bot.toml"] = strings.Replace(f["bot.toml"], "[limits]", "mode = \"mail\"\n[limits]", 1)
	return f
}

// slow gives a bot the time that a busy machine may need.
func slow(f files) files {
	f["bot.toml"] = strings.Replace(f["bot.toml"], `wall = "5s"`, `wall = "30s"`, 1)
	return f
}

// mailLoop is a mail bot as it is written for any provider, with Python's own library: it looks for mail, answers, and waits in IDLE.
const mailLoop = `
import email, email.policy, imaplib, os, smtplib, sys
from email.message import EmailMessage

user, password = os.environ["MAYFLY_MAIL_USER"], os.environ["MAYFLY_MAIL_PASSWORD"]
imap = imaplib.IMAP4(os.environ["MAYFLY_IMAP_HOST"], int(os.environ["MAYFLY_IMAP_PORT"]))
imap.login(user, password)

def connect():
    smtp = smtplib.SMTP(os.environ["MAYFLY_SMTP_HOST"], int(os.environ["MAYFLY_SMTP_PORT"]))
    smtp.login(user, password)
    return smtp

def answer(mail, text, to=None, attach=None):
    reply = EmailMessage()
    reply["From"], reply["To"] = user, to or mail["Reply-To"] or mail["From"]
    reply["Subject"], reply["In-Reply-To"] = "Re: " + mail["Subject"], mail["Message-ID"]
    reply.set_content(text)
    if attach:
        reply.add_attachment(attach[1], maintype="text", subtype="plain", filename=attach[0])
    with connect() as smtp:
        smtp.send_message(reply)

def new():
    imap.select("INBOX")
    status, found = imap.search(None, "UNSEEN")
    for number in found[0].split():
        status, data = imap.fetch(number, "(RFC822)")
        yield email.message_from_bytes(data[0][1], policy=email.policy.default)
        imap.store(number, "+FLAGS", "\\Seen")

def wait():
    tag = imap._new_tag()
    imap.send(tag + b" IDLE\r\n")
    while not imap.readline().rstrip().endswith(b"EXISTS"):
        pass
    imap.send(b"DONE\r\n")
    while not imap.readline().startswith(tag):
        pass

def serve(handle):
    while True:
        for mail in new():
            handle(mail)
        wait()
`

// TestMailBot runs a bot that has only ever known IMAP and SMTP, for one message after the other.
func TestMailBot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("mailbot01", mailBot("Postman", "python3", mailLoop+`
def handle(mail):
    text = mail.get_body().get_content().strip()
    files = [(p.get_filename(), p.get_content()) for p in mail.iter_attachments()]
    try:
        n = int(open(os.environ["HOME"] + "/count").read()) + 1
    except FileNotFoundError:
        n = 1
    open(os.environ["HOME"] + "/count", "w").write(str(n))
    answer(mail, "%d: %s from %s to %s with %s" % (n, text, mail["From"].addresses[0].addr_spec, mail["To"], files), attach=("note.txt", b"a note"))
    print("handled", mail["Message-ID"])
serve(handle)
`))
	ada := w.person("ada000040")
	chat := ada.join(invite)
	asked := ada.say(chat, "hello ☃")
	m := ada.expect("1: hello ☃ from ada000040@" + domain + " to " + string(address) + " with []")
	if m = ada.whole(m); m.FileName != "note.txt" || string(readAll(t, m.File)) != "a note" {
		t.Errorf("the file came as %+v", m)
	}
	if m.Quote == nil || m.Quote.MessageID != asked {
		t.Errorf("the answer quotes %+v, want the question", m.Quote)
	}
	path := w.write("in.txt", "an attachment\n")
	if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "two", File: path, Filename: "in.txt"}); err != nil {
		t.Fatal(err)
	}
	ada.expect("2: two from ada000040@" + domain + " to " + string(address) + " with [('in.txt', 'an attachment\\n')]")
	r := w.run(address).Record
	if r.Status != bot.RunOK || !strings.Contains(r.Log, "handled <") {
		t.Errorf("the run record: %+v", r)
	}
	t.Logf("the run took %s, %s of CPU", r.Wall, r.CPU)
}

// TestMailBotByTLS: a bot may insist on TLS and verify the certificate, as Python, node and openssl do it by default.
func TestMailBotByTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := mailBot("Secure", "python3", mailLoop+`
import ssl, subprocess
trust = ssl.create_default_context()
secure = imaplib.IMAP4_SSL("localhost", int(os.environ["MAYFLY_IMAPS_PORT"]), ssl_context=trust)
secure.login(user, password)
upgraded = imaplib.IMAP4("127.0.0.1", 143)
upgraded.starttls(trust)
upgraded.login(user, password)

def connect():
    smtp = smtplib.SMTP("localhost", 587)
    smtp.starttls(context=trust)
    smtp.login(user, password)
    return smtp

def handle(mail):
    assert secure.select() == upgraded.select() == ("OK", [b"1"])
    with smtplib.SMTP_SSL("localhost", int(os.environ["MAYFLY_SMTPS_PORT"]), context=trust) as smtp:
        smtp.login(user, password)
    with smtplib.SMTP("localhost") as smtp:
        smtp.sendmail(user, mail["From"].addresses[0].addr_spec, "Subject: from a script\n\n")
    node = subprocess.run(["node", "-e", """
        const s = require('tls').connect(993, 'localhost', () => { console.log(s.authorized); s.end() })"""], capture_output=True, text=True)
    answer(mail, "secure " + node.stdout.strip() + node.stderr)
serve(handle)
`)
	_, invite := w.start("mailbot02", f)
	ada := w.person("ada000041")
	ada.say(ada.join(invite), "hello")
	ada.expect("from a script")
	ada.expect("secure true")
}

// TestMailBotOfTheGuide runs what docs/AUTHORS.md shows.
func TestMailBotOfTheGuide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, section, found := strings.Cut(string(readAll(t, "../../docs/AUTHORS.md")), "## A bot with its own mail client")
	f := files{"bot.toml": fenced(section, "toml"), "bot.py": fenced(section, "python")}
	if !found || f["bot.toml"] == "" || f["bot.py"] == "" {
		t.Fatal("the guide has no such section")
	}
	_, invite := w.start("mailbot03", f)
	ada := w.person("ada000042")
	ada.say(ada.join(invite), "hello")
	ada.expect("HELLO")
}

// fenced is the first block of that language in a text.
func fenced(text, language string) string {
	_, text, _ = strings.Cut(text, "```"+language+"\n")
	text, _, _ = strings.Cut(text, "```")
	return text
}

// TestMailBotInAGroup: Reply-To is the group; From is who wrote, in private, if they have written to the bot before.
func TestMailBotInAGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, invite := w.start("mailbot04", mailBot("Groupie", "python3", mailLoop+`
def handle(mail):
    group, person = mail["Reply-To"], mail["From"]
    answer(mail, "%s in %s" % (mail["Chat-Group-Name"], group and group.addresses[0].display_name), to=group)
    answer(mail, "to you alone", to=person)
    try:
        answer(mail, "to another group", to="chat-9999@mayfly.invalid")
    except smtplib.SMTPRecipientsRefused as e:
        answer(mail, str(e.recipients.popitem()[1][0]))
serve(handle)
`).with("\n[groups]\nprivacy = false\n"))
	ada := w.person("ada000043")
	chat := ada.join(invite)
	ada.say(chat, "hello")
	for _, want := range []string{"None in None", "to you alone", "550"} {
		if m := ada.expect(want); m.ChatID != chat {
			t.Errorf("%q came in chat %d, want %d", want, m.ChatID, chat)
		}
	}
	group := ada.group("friends", chat)
	ada.say(group, "hello all")
	heard := map[string]core.ChatID{}
	for range 3 {
		m := ada.hear()
		heard[m.Text] = m.ChatID
	}
	for want, where := range map[string]core.ChatID{"friends in friends": group, "to you alone": chat, "550": group} {
		if heard[want] != where {
			t.Errorf("%q came in chat %d, want %d, of %v", want, heard[want], where, heard)
		}
	}
}

// TestMailBotWalls: what a bot tries that it may not ends with a refusal, and its next message is answered.
func TestMailBotWalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("mailbot05", slow(mailBot("Hostile", "python3", mailLoop+`
import socket, time

def talk(port, data):
    with socket.create_connection(("localhost", port)) as s:
        s.settimeout(1)
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except OSError:
            pass

def refused(do):
    try:
        do()
    except smtplib.SMTPRecipientsRefused as e:
        return e.recipients.popitem()[1]
    except smtplib.SMTPResponseException as e:
        return e.smtp_code, e.smtp_error

def stranger(mail):
    return refused(lambda: answer(mail, "buy this", to="victim001@chat.test"))

def oneself(mail):
    return refused(lambda: answer(mail, "to me", to=user))

def stream(mail, megabytes):
    with connect() as smtp:
        smtp.mail(user)
        smtp.rcpt(mail["From"].addresses[0].addr_spec)
        smtp.docmd("DATA")
        smtp.send(b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n")
        for _ in range(megabytes * 1000):
            smtp.send(b"A" * 998 + b"\r\n")
        return smtp.docmd(".")

def announced(mail):
    with connect() as smtp:
        return smtp.mail(user, ["SIZE=40000000"])

def huge(mail):
    return stream(mail, 34)

def large(mail):
    return stream(mail, 29)

def long(mail):
    return refused(lambda: answer(mail, "x\n" * 60_000))

def many(mail):
    with connect() as smtp:
        smtp.mail(user)
        codes = [smtp.rcpt(mail["From"].addresses[0].addr_spec)[0] for _ in range(10_000)]
    return codes.count(250), codes.count(550)

def strangers(mail):
    codes = set()
    with connect() as smtp:
        for i in range(600):
            if i % 20 == 0:
                smtp.rset()
                smtp.mail(user)
            codes.add(smtp.rcpt("victim%03d@chat.test" % i)[0])
    return codes

def loris(mail):
    global held
    held = [socket.create_connection(("localhost", port)) for port in (143, 587, 993, 465) for _ in range(7)]
    for s in held:
        s.send(b"E")
    return len(held)

def login(mail):
    with smtplib.SMTP("localhost", 587) as smtp:
        code = refused(lambda: smtp.login(user, "wrong"))
    try:
        imaplib.IMAP4("localhost").login(user, "wrong")
    except imaplib.IMAP4.error as e:
        return code, str(e)

def garbage(mail):
    for port in (143, 587, 993, 465):
        for data in (os.urandom(100_000), b"\r\n" * 1000, b"A " * 100_000 + b"\r\n", b"EHLO x\r\nMAIL FROM:<>\r\nDATA\r\n" * 1000, b"a NOOP\r\n" * 1000):
            talk(port, data)
    return "sent"

def deep(mail):
    data = b"Subject: x\r\n"
    for i in range(100):
        data += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i)
    with connect() as smtp:
        return refused(lambda: smtp.sendmail(user, mail["From"].addresses[0].addr_spec, data + b"\r\nhi\r\n"))

def answers(port):
    with socket.socket() as s: # which may connect to itself
        return s.connect_ex(("127.0.0.1", port)) == 0 and s.getsockname() != s.getpeername()

def around(mail):
    ports = [p for p in range(1, 65536) if answers(p)]
    others = [a for a in ("127.0.0.2", "10.0.0.1", "192.0.2.1", "169.254.169.254") if not socket.socket().connect_ex((a, 143))]
    _, folders = imap.list()
    imap.select("INBOX")
    _, found = imap.search(None, "ALL")
    return ports, others, folders, len(found[0].split()), imap.select("Sent")[1], os.environ.get("HOME")

def late(mail):
    if os.fork() == 0:
        os.setsid()
        for _ in range(100):
            time.sleep(0.05)
            answer(mail, "late")
        os._exit(0)
    answer(mail, "early")
    os._exit(0)

def lost(mail):
    answer(mail, "lost")
    os._exit(65)

def handle(mail):
    text = mail.get_body().get_content().strip()
    answer(mail, "%s %s" % (text, globals().get(text, lambda _: "well")(mail)))
serve(handle)
`)))
	ada := w.person("ada000044")
	chat := ada.join(invite)
	for _, attempt := range []struct {
		what string
		want []string // parts of the answer
	}{
		{"stranger", []string{"550", "victim001@chat.test has not written to the bot"}},
		{"oneself", []string{"550"}},
		{"announced", []string{"552"}},
		{"huge", []string{"552"}},
		{"large", []string{"552", "larger than 20000000 bytes"}},
		{"long", []string{"552", "longer than 100000 bytes"}},
		{"many", []string{"(20, 9980)"}},
		{"strangers", []string{"{550}"}},
		{"loris", []string{"28"}},
		{"login", []string{"535", "AUTHENTICATIONFAILED"}},
		{"garbage", []string{"sent"}},
		{"deep", []string{"552", "nested deeper than 8"}},
		{"around", []string{"([25, 143, 465, 587, 993], [], [b'() \"/\" INBOX'], 1, [b'0'], '/storage')"}},
	} {
		ada.say(chat, attempt.what)
		m := ada.hear()
		for _, want := range attempt.want {
			if !strings.HasPrefix(m.Text, attempt.what) || !strings.Contains(m.Text, want) {
				t.Errorf("%s: got %q, want %q", attempt.what, m.Text, want)
			}
		}
		t.Logf("%.200s", m.Text)
		ada.say(chat, "how are you")
		ada.expect("how are you well")
	}
	ada.say(chat, "late")
	ada.expect("early")
	ada.say(chat, "lost")
	ada.sorry()
	if r := w.run(address).Record; r.Status != bot.RunError || !strings.Contains(r.Message, "exit code 65 (bad data)") {
		t.Errorf("the run record: %s %q", r.Status, r.Message)
	}
	ada.say(chat, "still there")
	ada.expect("still there well")
}

// TestMailBotAtOnce: what it has sent is said, though it fails then.
func TestMailBotAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := slow(mailBot("Hasty", "python3", mailLoop+"import time\nfor mail in new():\n    answer(mail, 'at once')\n    time.sleep(1)\n    sys.exit(1)\n"))
	f["bot.toml"] = "replies = \"at once\"\n" + f["bot.toml"]
	_, invite := w.start("mailbot06", f.with("[resident]\ngrace = \"5s\"\n"))
	ada := w.person("ada000045")
	ada.say(ada.join(invite), "hello")
	ada.expect("at once")
	ada.sorry()
}

// TestLargeFilesOfMailBots go both ways, and what they cost the daemon is bounded, also where parts are fetched over and over again.
func TestLargeFilesOfMailBots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address, invite := w.start("mailbot07", slow(mailBot("Courier", "python3", mailLoop+`
def handle(mail):
    for _ in range(20):
        _, data = imap.fetch("1", "(BODY.PEEK[2]<10.20> BODYSTRUCTURE)")
        assert len(data[0][1]) == 20, data
    with connect() as smtp:
        smtp.mail(user)
        smtp.rcpt(mail["From"].addresses[0].addr_spec)
        smtp.docmd("DATA")
        smtp.send(b"Content-Type: application/zip; name=back.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n")
        for _ in range(19_000):
            smtp.send(b"A" * 1000 + b"\r\n")
        assert smtp.docmd(".")[0] == 250
imap.select()
status, data = imap.fetch("1", "(RFC822.HEADER)")
handle(email.message_from_bytes(data[0][1], policy=email.policy.default))
`)))
	ada := w.person("ada000046")
	chat := ada.join(invite)
	data := make([]byte, 14<<20)
	rand.Read(data) // what can be compressed is refused for its size unpacked
	path := w.write("large.bin", string(data))
	if _, err := ada.SendMsg(w.ctx, ada.Account, chat, core.MessageData{Text: "keep this", File: path, Filename: "large.bin"}); err != nil {
		t.Fatal(err)
	}
	if m := ada.whole(ada.hear()); m.FileName != "back.zip" || m.FileBytes != 14_250_000 {
		t.Errorf("the file came as %+v", m)
	}
	w.awaitJobs(address, 4)
	w.requireMemory(300, "14 MB each way")
}

// TestEndsOfMailBots: how else a run ends.
func TestEndsOfMailBots(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, account, script string
		status                bot.RunStatus
		message, want         string // what the record and the user read; want is empty for an apology
	}{
		{"exits when it is done", "mailend01", "for mail in new():\n    answer(mail, 'once')\nimap.logout()", bot.RunOK, "", "once"},
		{"sleeps between looks", "mailend02", "import time\nwhile True:\n    for mail in new():\n        answer(mail, 'polled')\n    time.sleep(60)", bot.RunOK, "", "polled"},
		{"watches only", "mailend03", "imap.select()\nwait()\nfor mail in new():\n    answer(mail, 'watched')\nwait()", bot.RunOK, "", "watched"},
		{"ignores SIGTERM", "mailend04", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nserve(lambda mail: answer(mail, 'deaf'))", bot.RunOK, "", "deaf"},
		{"never looks", "mailend05", "import time\ntime.sleep(60)", bot.RunTimeout, "did not look at its message", ""},
		{"ends without a look", "mailend06", "pass", bot.RunError, "ended before it looked at its message", ""},
		{"throws", "mailend07", "for mail in new():\n    answer(mail, 'lost')\n    raise Exception('no reason')", bot.RunError, "exit code 1\nException: no reason", ""},
		{"does not end its mail", "mailend08", "for mail in new():\n    s = connect()\n    s.mail(user)\n    wait()", bot.RunTimeout, "longer than [limits] wall", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			address, invite := w.start(test.account, mailBot("Ends", "python3", mailLoop+test.script+"\n"))
			ada := w.person("ada" + test.account[4:] + "0")
			ada.say(ada.join(invite), "hello")
			if test.want != "" {
				ada.expect(test.want)
			} else {
				ada.sorry()
			}
			w.awaitJobs(address, 3)
			if r := w.run(address).Record; r.Status != test.status || !strings.Contains(r.Message, test.message) {
				t.Errorf("record %s %q, want %s with %q; log:\n%s", r.Status, r.Message, test.status, test.message, r.Log)
			}
		})
	}
}
