package minirelay

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

const stranger = bot.Address("stranger1@chat.test")

// clerk is a Submission that knows no strangers and takes no mail with "nonsense" in it.
type clerk struct {
	mu    sync.Mutex
	mails []Outgoing
}

func (c *clerk) Recipient(to bot.Address) error {
	if to == stranger {
		return &Refusal{Code: 550, Enhanced: [3]int{5, 7, 1}, Reason: "has not\r\nwritten to the böt"}
	}
	return nil
}

func (c *clerk) Submit(mail Outgoing) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes.Contains(mail.Data, []byte("nonsense")) {
		return errors.New("no sense in it")
	}
	c.mails = append(c.mails, mail)
	return nil
}

// botConfig is that of a bot's provider, and the authority that its certificate is signed by.
func botConfig(t testing.TB) (PrivateConfig, *clerk, *tls.Config) {
	t.Helper()
	certificate, authority, err := NewCertificate()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		t.Fatalf("no certificate in %s", authority)
	}
	cfg, c := privateConfig(), new(clerk)
	cfg.Bot = &BotClient{Password: password, Certificate: certificate, Submission: c}
	return cfg, c, &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// ours is a mail as the host makes it, with an attachment that looks like mail.
const ours = "From: <someuser1@chat.test>\r\nTo: <dicebot01@chat.test>\r\nSubject: hello\r\nMessage-Id: <1@x>\r\n" +
	"Content-Type: multipart/mixed;\r\n boundary=b1\r\nMime-Version: 1.0\r\n\r\n" +
	"--b1\r\nContent-Disposition: inline\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ntwo\r\nlines\r\n" +
	"--b1\r\nContent-Disposition: attachment; filename=a.eml\r\nContent-Transfer-Encoding: base64\r\nContent-Type: application/octet-stream\r\n\r\naGVsbG8=\r\n" +
	"--b1--\r\n"

// TestBotsProviderByTLS: a bot may insist on TLS, at once or by STARTTLS, and verify whom it speaks to.
func TestBotsProviderByTLS(t *testing.T) {
	cfg, _, trust := botConfig(t)
	p := NewPrivate(cfg)
	at := start(t, p)
	imaps, smtps := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	go p.ServeIMAPS(imaps)
	go p.ServeSMTPS(smtps)
	p.Present([]byte(ours))
	clients := map[string]func() (*imapclient.Client, error){
		"IMAPS": func() (*imapclient.Client, error) {
			return imapclient.DialTLS(imaps.Addr().String(), &imapclient.Options{TLSConfig: trust})
		},
		"STARTTLS": func() (*imapclient.Client, error) {
			return imapclient.DialStartTLS(at.imap, &imapclient.Options{TLSConfig: trust})
		},
	}
	for name, dial := range clients {
		c, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer c.Close()
		if err := c.Login(string(botAddress), password).Wait(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if data, err := c.Select("INBOX", nil).Wait(); err != nil || data.NumMessages != 1 {
			t.Errorf("%s: %+v, %v", name, data, err)
		}
		if idle, err := c.Idle(); err != nil {
			t.Errorf("%s: IDLE: %v", name, err)
		} else if err := errors.Join(idle.Close(), idle.Wait()); err != nil {
			t.Errorf("%s: IDLE: %v", name, err)
		}
	}
	for name, dial := range map[string]func() (*smtp.Client, error){
		"SMTPS":    func() (*smtp.Client, error) { return smtp.DialTLS(smtps.Addr().String(), trust) },
		"STARTTLS": func() (*smtp.Client, error) { return smtp.DialStartTLS(at.smtp, trust) },
	} {
		c, err := dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer c.Close()
		if err := c.Auth(sasl.NewLoginClient(string(botAddress), password)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBotsProviderChecksThePassword, on both sides. Who submits need not have one.
func TestBotsProviderChecksThePassword(t *testing.T) {
	cfg, _, _ := botConfig(t)
	_, at := startPrivate(t, cfg)
	c := dialRaw(t, at.imap)
	c.until("* OK")
	c.do("NO", "LOGIN %q %q", botAddress, "wrong")
	c.do("NO", "LOGIN %q %q", stranger, password)
	c.do("BAD", "SELECT INBOX")
	c.do("OK", "LOGIN %q %q", botAddress, password)
	s := dialRaw(t, at.smtp)
	s.until("220")
	s.say("250", "EHLO bot")
	s.say("535", "AUTH PLAIN AGRpY2Vib3QwMUBjaGF0LnRlc3QAd3Jvbmc=")
	s.say("250", "MAIL FROM:<%s>", botAddress)
	for _, mechanism := range []sasl.Client{sasl.NewPlainClient("", string(botAddress), "wrong"), sasl.NewLoginClient(string(botAddress), "wrong")} {
		client, err := smtp.Dial(at.smtp)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		var refused *smtp.SMTPError
		if err := client.Auth(mechanism); !errors.As(err, &refused) || refused.Code != 535 {
			t.Errorf("a wrong password was answered with %v", err)
		}
	}
}

// TestBotsProviderShowsParts: what go-imap's parser says of the mail, without its parser.
func TestBotsProviderShowsParts(t *testing.T) {
	cfg, _, _ := botConfig(t)
	p, at := startPrivate(t, cfg)
	p.Present([]byte(ours))
	p.Present(mailOf("2@y", "one part"))
	c := imapClient(t, at.imap, string(botAddress), password, nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	for seq, mail := range map[uint32][]byte{1: []byte(ours), 2: mailOf("2@y", "one part")} {
		o := &imap.FetchOptions{Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true}}
		for _, part := range [][]int{{1}, {2}, {3}, {1, 1}, {2, 1}} {
			o.BodySection = append(o.BodySection, &imap.FetchItemBodySection{Part: part, Peek: true},
				&imap.FetchItemBodySection{Part: part, Peek: true, Specifier: imap.PartSpecifierMIME})
		}
		o.BodySection = append(o.BodySection, &imap.FetchItemBodySection{Specifier: imap.PartSpecifierText, Peek: true},
			&imap.FetchItemBodySection{Part: []int{1}, Peek: true, Partial: &imap.SectionPartial{Offset: 1, Size: 3}})
		got, err := c.Fetch(imap.SeqSetNum(seq), o).Collect()
		if err != nil || len(got) != 1 {
			t.Fatalf("got %d messages, %v", len(got), err)
		}
		want := describe(imapserver.ExtractBodyStructure(bytes.NewReader(mail)))
		if have := describe(got[0].BodyStructure); !slices.Equal(have, want) || got[0].Envelope.MessageID == "" {
			t.Errorf("mail %d: structure %q, want %q, and the envelope is %+v", seq, have, want, got[0].Envelope)
		}
		for _, section := range o.BodySection {
			want := imapserver.ExtractBodySection(bytes.NewReader(mail), section)
			if len(section.Part) == 2 || seq == 2 && (len(section.Part) > 0 && section.Part[0] > 1 || section.Specifier == imap.PartSpecifierMIME) {
				continue // there is no such part
			}
			have := got[0].FindBodySection(section)
			if section.Specifier == imap.PartSpecifierMIME { // the order of fields is not theirs
				have, want = sorted(have), sorted(want)
			}
			if !bytes.Equal(have, want) {
				t.Errorf("mail %d, %+v: got %q, want %q", seq, section, have, want)
			}
		}
	}
}

func describe(b imap.BodyStructure) (list []string) {
	b.Walk(func(path []int, part imap.BodyStructure) bool {
		list = append(list, fmt.Sprint(path, part.MediaType()))
		if single, ok := part.(*imap.BodyStructureSinglePart); ok {
			list = append(list, fmt.Sprint(single.Size, cmp.Or(single.Encoding, "7bit"), single.Params, single.Filename()))
			if single.Text != nil {
				list = append(list, fmt.Sprint(single.Text.NumLines))
			}
		}
		return true
	})
	return list
}

func sorted(header []byte) []byte {
	lines := strings.Split(strings.ToLower(string(header)), "\r\n")
	slices.Sort(lines)
	return []byte(strings.Join(lines, "\r\n"))
}

// TestLooked: what counts as a look at the mail, and what does not.
func TestLooked(t *testing.T) {
	for command, want := range map[string]bool{
		"NOOP":                              false,
		"SEARCH UNSEEN":                     false, // it found the mail, and may want it
		"FETCH 1 (FLAGS UID RFC822.SIZE)":   false,
		"STORE 1 +FLAGS (\\Flagged)":        false,
		"STORE 1 -FLAGS (\\Seen)":           false,
		"STATUS INBOX (UNSEEN)":             false,
		"FETCH 1 ENVELOPE":                  true,
		"FETCH 1 BODY.PEEK[HEADER]":         true,
		"FETCH 1 BODY[1]":                   true,
		"FETCH 1 RFC822":                    true,
		"STORE 1 +FLAGS (\\Seen)":           true,
		"UID STORE 1 +FLAGS (\\Deleted)":    true,
		`SEARCH FROM "the boss"`:            true, // it did not, and does not
		`UID SEARCH NOT HEADER Subject "h"`: true,
	} {
		cfg, _, _ := botConfig(t)
		p, at := startPrivate(t, cfg)
		p.Present([]byte(ours))
		c := login(t, at.imap, string(botAddress))
		c.do("OK", "SELECT INBOX")
		if p.Looked() {
			t.Fatal("SELECT counts as a look")
		}
		c.do("OK", "%s", command)
		if p.Looked() != want {
			t.Errorf("%s: Looked is %v", command, p.Looked())
		}
		if p.Settled() {
			t.Errorf("%s: settled without IDLE", command)
		}
		fmt.Fprintf(c, "i IDLE\r\n")
		c.until("+")
		if want {
			eventually(t, command+", and IDLE: settled", tick(t), p.Settled)
		} else if p.Settled() {
			t.Errorf("%s, and IDLE: settled", command)
		}
	}
}

// TestRenew: a client in IDLE hears of a mail that it passed over.
func TestRenew(t *testing.T) {
	cfg, _, _ := botConfig(t)
	p, at := startPrivate(t, cfg)
	uid := p.Present([]byte(ours))
	if p.Renew(uid) {
		t.Error("renewed before anybody has opened the INBOX")
	}
	c := login(t, at.imap, string(botAddress))
	c.do("OK", "SELECT INBOX")
	fmt.Fprintf(c, "i IDLE\r\n")
	c.until("+")
	if !p.Renew(uid) {
		t.Error("not renewed")
	}
	c.until("* 1 EXPUNGE")
	c.until("* 1 EXISTS")
	fmt.Fprintf(c, "DONE\r\n")
	c.until("i OK")
	wantLine(t, c.do("OK", "UID SEARCH UNSEEN"), "* SEARCH 2")
	if p.Looked() {
		t.Error("looked at")
	}
	if lines := strings.Join(c.do("OK", "UID FETCH 2 BODY[2]"), "\n"); !strings.Contains(lines, "aGVsbG8=") {
		t.Errorf("got %s", lines)
	}
	if !p.Looked() || p.Renew(uid) {
		t.Error("not looked at, or renewed under its old UID")
	}
}

// TestBotSubmits: recipients are refused at once, with the reason, and mails when they are there.
func TestBotSubmits(t *testing.T) {
	cfg, clerk, _ := botConfig(t)
	p, at := startPrivate(t, cfg)
	c := dialRaw(t, at.smtp)
	c.until("220")
	c.say("250", "EHLO bot")
	c.say("235", "AUTH PLAIN AGRpY2Vib3QwMUBjaGF0LnRlc3QAbG9uZyBlbm91Z2g=")
	c.say("553", "MAIL FROM:<%s>", userAddress)
	c.say("250", "MAIL FROM:<%s>", botAddress)
	if !p.Submitting() {
		t.Error("not submitting")
	}
	c.say("550 5.7.1 has not??written to the b?t", "RCPT TO:<%s>", stranger)
	c.say("553", "RCPT TO:<\"odd name\"@x>")
	c.say("250", "RCPT TO:<%s>", userAddress)
	c.say("354", "DATA")
	c.say("554 5.0.0 no sense in it", "\r\nnonsense\r\n.")
	c.say("250", "MAIL FROM:<>")
	c.say("250", "RCPT TO:<%s>", userAddress)
	c.say("354", "DATA")
	c.say("250", "Subject: x\r\n\r\n..sense\r\n.")
	for start := time.Now(); p.Submitting(); time.Sleep(time.Millisecond) { // its end comes after the 250
		if time.Since(start) > deadline {
			t.Fatal("still submitting")
		}
	}
	c.say("250", "MAIL FROM:<%s>", botAddress)
	for range cfg.MaxRecipients {
		c.say("250", "RCPT TO:<%s>", userAddress)
	}
	c.say("550 5.5.3", "RCPT TO:<%s>", userAddress)
	clerk.mu.Lock()
	defer clerk.mu.Unlock()
	if len(clerk.mails) != 1 || string(clerk.mails[0].Data) != "Subject: x\r\n\r\n.sense\r\n" || !slices.Equal(clerk.mails[0].To, []bot.Address{userAddress}) {
		t.Errorf("submitted: %+v", clerk.mails)
	}
	if len(p.Outgoing()) > 0 {
		t.Error("kept as if it were core's")
	}
}

// TestBotsConnectionsAreCounted: behind the last there is nobody, which costs nothing.
func TestBotsConnectionsAreCounted(t *testing.T) {
	cfg, _, _ := botConfig(t)
	_, at := startPrivate(t, cfg)
	for i := range botConns {
		c, err := net.Dial("tcp", at.smtp)
		if err != nil {
			t.Fatal(i, err)
		}
		c.SetDeadline(time.Now().Add(deadline))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(i, err)
		}
		fmt.Fprintf(c, "QUIT\r\n")
		for err == nil { // its place is free when the other side has hung up
			_, err = c.Read(make([]byte, 100))
		}
		c.Close()
	}
	c, err := net.Dial("tcp", at.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("connection %d was served", botConns+1)
	}
}

func fuzzBot(t *testing.T) (*Private, *clerk) {
	cfg, c := privateConfig(), new(clerk)
	cfg.Bot = &BotClient{Password: password, Submission: c} // nobody shakes hands here
	cfg.MaxMail, cfg.MaxTotal, cfg.MaxRecipients = 200, 300, 3
	cfg.Log = slog.New(panics{t})
	p := NewPrivate(cfg)
	p.Present([]byte(ours))
	return p, c
}

func FuzzBotIMAP(f *testing.F) {
	const hello = "a LOGIN " + string(botAddress) + " \"" + password + "\"\r\nb SELECT INBOX\r\n"
	for _, seed := range []string{
		hello + "c SEARCH UNSEEN\r\nd FETCH 1 (RFC822)\r\ne STORE 1 +FLAGS \\Seen\r\nf IDLE\r\nDONE\r\ng LOGOUT\r\n",
		hello + "c UID FETCH 1:* (UID ENVELOPE BODYSTRUCTURE BODY.PEEK[1] BODY[2.MIME] BODY[TEXT]<1.2> RFC822.TEXT BODY BODY[3] BODY[1.1] BODY[0])\r\n",
		hello + "c FETCH 1 (BINARY[1] BINARY.SIZE[2] BODY[2.HEADER] BODY[2.TEXT] BODY[2147483647])\r\nd FETCH 1 FULL\r\n",
		hello + "c SEARCH CHARSET UTF-8 FROM x\r\nd UID SEARCH RETURN (COUNT) NOT SEEN\r\ne STORE 1 FLAGS (\\Deleted $x)\r\nf CLOSE\r\n",
		hello + "c SELECT other\r\nd SEARCH ALL\r\ne STORE 1:* +FLAGS \\Seen\r\nf FETCH 1:* ALL\r\n",
		"a LOGIN x y\r\nb SELECT INBOX\r\nc STARTTLS\r\n",
		"a AUTHENTICATE PLAIN AGRpY2Vib3QwMUBjaGF0LnRlc3QAbG9uZyBlbm91Z2g=\r\nb SEARCH ALL\r\nc STORE 1 +FLAGS \\Seen\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p, _ := fuzzBot(t)
		play(t, input, p.ServeIMAP, p.Close)
		if p.UIDNext() != 2 || p.Settled() || p.Submitting() {
			t.Errorf("UIDNEXT %d, settled %v, submitting %v", p.UIDNext(), p.Settled(), p.Submitting())
		}
		if p.Looked() && !bytes.Contains(input, []byte(password)) && !bytes.Contains(input, []byte("AGRpY2Vib3QwMUBjaGF0LnRlc3QAbG9uZyBlbm91Z2g")) {
			t.Error("somebody has looked at the mail without the password")
		}
	})
}

func FuzzBotSMTP(f *testing.F) {
	const hello = "EHLO bot\r\nAUTH PLAIN AGRpY2Vib3QwMUBjaGF0LnRlc3QAbG9uZyBlbm91Z2g=\r\nMAIL FROM:<" + string(botAddress) + ">\r\n"
	for _, seed := range []string{
		hello + "RCPT TO:<" + string(userAddress) + ">\r\nDATA\r\nSubject: x\r\n\r\n..hi\r\n.\r\nQUIT\r\n",
		hello + "RCPT TO:<" + string(stranger) + ">\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n",
		hello + "RCPT TO:<a@b>\r\nDATA\r\nnonsense\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 100\r\nabc",
		"EHLO x\r\nMAIL FROM:<>\r\nAUTH LOGIN\r\nZGljZWJvdDAxQGNoYXQudGVzdA==\r\nbG9uZyBlbm91Z2g=\r\nMAIL FROM:<>\r\nRCPT TO:<" + strings.Repeat("a@b,", 300) + ">\r\n",
		"EHLO x\r\nAUTH PLAIN AHUAcA==\r\nAUTH LOGIN dQ==\r\n*\r\nSTARTTLS\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		p, c := fuzzBot(t)
		play(t, input, p.ServeSMTP, p.Close)
		total := 0
		for _, o := range c.mails {
			total += len(o.Data)
			if len(o.To) == 0 || len(o.To) > 3 || slices.Contains(o.To, stranger) {
				t.Errorf("took %+v", o)
			}
		}
		if total > 300 || p.Submitting() {
			t.Errorf("%d bytes taken, still submitting: %v", total, p.Submitting())
		}
	})
}
