package e2e

import (
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
