package minirelay

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mayfly/internal/bot"
)

// Core loses mail when UIDVALIDITY changes, and never fetches a UID below the UIDNEXT that it has seen.
func TestUIDsAreDenseAndUIDValidityIsConstant(t *testing.T) {
	cfg := privateConfig()
	cfg.UIDValidity, cfg.UIDNext = 42, 1001
	p, at := startPrivate(t, cfg)
	c := login(t, at.imap, "anyone")
	lines := c.do("OK", "SELECT INBOX")
	wantLine(t, lines, "* 0 EXISTS")
	wantLine(t, lines, "* OK [UIDVALIDITY 42] UIDs valid")
	wantLine(t, lines, "* OK [UIDNEXT 1001] Predicted next UID")
	for want := uint32(1001); want < 1004; want++ {
		if got := p.Present(mailOf("x@y", "body")); got != want {
			t.Errorf("Present minted %d, want %d", got, want)
		}
	}
	if p.UIDNext() != 1004 {
		t.Errorf("UIDNext is %d, want 1004", p.UIDNext())
	}
	wantLine(t, c.do("OK", "NOOP"), "* 3 EXISTS")
	c.do("OK", "UID STORE 1003 +FLAGS.SILENT (\\Deleted)")
	c.do("OK", "CLOSE")
	lines = c.do("OK", "SELECT INBOX")
	wantLine(t, lines, "* 2 EXISTS")
	wantLine(t, lines, "* OK [UIDVALIDITY 42] UIDs valid")
	wantLine(t, lines, "* OK [UIDNEXT 1004] Predicted next UID")
	wantLine(t, c.do("OK", "STATUS INBOX (UIDNEXT UIDVALIDITY MESSAGES)"), `* STATUS INBOX (MESSAGES 2 UIDNEXT 1004 UIDVALIDITY 42)`)
}

func TestPresentIsAnnouncedToIdleAtOnce(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	c := login(t, at.imap, "anyone")
	c.do("OK", "SELECT INBOX")
	fmt.Fprintf(c, "i IDLE\r\n")
	c.until("+")
	p.Present(mailOf("1@y", "first"))
	c.until("* 1 EXISTS")
	p.Present(mailOf("2@y", "second"))
	c.until("* 2 EXISTS")
	fmt.Fprintf(c, "DONE\r\n")
	c.until("i OK")
}

// What comes between the last command and IDLE must not wait for the next mail.
func TestMailBeforeIdleIsAnnouncedWhenIdleBegins(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	c := login(t, at.imap, "anyone")
	c.do("OK", "SELECT INBOX")
	p.Present(mailOf("1@y", "first"))
	fmt.Fprintf(c, "i IDLE\r\n")
	c.until("* 1 EXISTS")
}

func TestFetchGivesTheMailByteForByte(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	mail := append(mailOf("1@y", "first"), bytes.Repeat([]byte("0123456789\r\n"), 50_000)...)
	uid := p.Present(mail)
	c := imapClient(t, at.imap, string(botAddress), password, nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	part := &imap.FetchItemBodySection{Peek: true, Partial: &imap.SectionPartial{Offset: 3, Size: 11}}
	id := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Message-ID"}}
	got, err := c.Fetch(imap.UIDSetNum(imap.UID(uid)), &imap.FetchOptions{
		UID: true, Flags: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{whole, part, id},
	}).Collect()
	if err != nil || len(got) != 1 {
		t.Fatalf("got %d messages, %v", len(got), err)
	}
	m := got[0]
	if !bytes.Equal(m.FindBodySection(whole), mail) || m.RFC822Size != int64(len(mail)) || m.UID != imap.UID(uid) {
		t.Errorf("the mail was changed: %d of %d bytes", len(m.FindBodySection(whole)), len(mail))
	}
	if want := mail[3:14]; !bytes.Equal(m.FindBodySection(part), want) {
		t.Errorf("part is %q, want %q", m.FindBodySection(part), want)
	}
	if want := "Message-Id: <1@y>\r\n\r\n"; !strings.EqualFold(string(m.FindBodySection(id)), want) {
		t.Errorf("header fields are %q, want %q", m.FindBodySection(id), want)
	}
	if len(m.Flags) != 0 {
		t.Errorf("PEEK has set %v", m.Flags)
	}
}

func TestExpungeAnnouncesSequenceNumbersOfThisClientsView(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	for i := range 4 {
		p.Present(mailOf(fmt.Sprint(i, "@y"), "body"))
	}
	a, b := login(t, at.imap, "anyone"), login(t, at.imap, "anyone")
	a.do("OK", "SELECT INBOX")
	b.do("OK", "SELECT INBOX")
	a.do("OK", `UID STORE 2,4 +FLAGS (\Deleted)`)
	wantLine(t, a.do("OK", "UID EXPUNGE 1:2"), "* 2 EXPUNGE")
	// Until it is told, b's third message is still the third (RFC 3501, section 7.4.1), and FETCH may not tell it.
	lines := b.do("OK", "FETCH 1:3 (UID)")
	noLine(t, lines, "EXPUNGE")
	wantLine(t, lines, "* 3 FETCH (UID 3)")
	noLine(t, lines, "* 2 FETCH")
	wantLine(t, b.do("OK", "NOOP"), "* 2 EXPUNGE")
	wantLine(t, b.do("OK", "FETCH * (UID)"), "* 3 FETCH (UID 4)")
	wantLine(t, a.do("OK", "UID FETCH 500:* (UID)"), "* 3 FETCH (UID 4)")
	wantLine(t, a.do("OK", "EXPUNGE"), "* 3 EXPUNGE")
}

func TestOtherFoldersAreEmptyAndSwallow(t *testing.T) {
	_, at := startPrivate(t, privateConfig())
	c := login(t, at.imap, "anyone")
	c.do("OK", `CREATE "DeltaChat"`)
	c.do("OK", `SUBSCRIBE "DeltaChat"`)
	c.do("OK", "APPEND Sent {5+}\r\nhello")
	wantLine(t, c.do("OK", `SELECT "Sent"`), "* 0 EXISTS")
	wantLine(t, c.do("OK", `STATUS "DeltaChat" (MESSAGES)`), `* STATUS "DeltaChat" (MESSAGES 0)`)
	lines := c.do("OK", `LIST "" "*"`)
	wantLine(t, lines, `* LIST () "/" INBOX`)
	if len(lines) != 2 {
		t.Errorf("LIST has more than INBOX: %q", lines)
	}
	c.do("NO [CANNOT]", "APPEND INBOX {5+}\r\nhello")
	wantLine(t, c.do("OK", "SELECT inbox"), "* 0 EXISTS")
}

func TestSearchBySetsFlagsAndFields(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	for i := range 3 {
		p.Present(mailOf(fmt.Sprint(i, "@y"), "body"))
	}
	c := login(t, at.imap, "anyone")
	c.do("OK", "SELECT INBOX")
	c.do("OK", `UID STORE 2 +FLAGS.SILENT (\Seen)`)
	wantLine(t, c.do("OK", "UID SEARCH UNSEEN"), "* SEARCH 1 3")
	wantLine(t, c.do("OK", "SEARCH NOT UNSEEN"), "* SEARCH 2")
	wantLine(t, c.do("OK", `UID SEARCH OR UID 1 HEADER Message-ID "2@"`), "* SEARCH 1 3")
	c.do("NO [CANNOT]", "SEARCH BODY anything")
}

func TestSettledOnlyAfterEverythingIsFetchedAndSMTPIsQuiet(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	settled := func(want bool, when string) {
		t.Helper()
		if !want && p.Settled() {
			t.Fatalf("settled %s", when)
		}
		if want {
			eventually(t, "settled "+when, p.Changed(), p.Settled)
		}
	}
	p.Present(mailOf("1@y", "body"))
	settled(false, "before core has come")
	c := login(t, at.imap, "anyone")
	idle := func() {
		fmt.Fprintf(c, "i IDLE\r\n")
		c.until("+")
	}
	done := func() {
		fmt.Fprintf(c, "DONE\r\n")
		c.until("i OK")
	}
	c.do("OK", "SELECT INBOX")
	idle()
	settled(false, "in IDLE, but with a mail that nobody has looked at")
	done()
	c.do("OK", "UID FETCH 1 (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
	settled(false, "with the header fetched")
	c.do("OK", "UID FETCH 1 (BODY.PEEK[])")
	settled(false, "with the mail fetched, before IDLE")
	idle()
	settled(true, "in IDLE with everything fetched")

	s := dialRaw(t, at.smtp)
	s.until("220")
	s.say("250", "EHLO core")
	s.say("250", "MAIL FROM:<%s>", botAddress)
	settled(false, "in a transaction")
	s.say("250", "RCPT TO:<%s>", userAddress)
	s.say("354", "DATA")
	settled(false, "while data come")
	s.say("250", "Message-ID: <a@b>\r\n\r\nbody\r\n.")
	settled(true, "after the mail was taken")

	p.Present(mailOf("2@y", "unwanted"))
	settled(false, "with a second mail")
	done()
	c.do("OK", "UID FETCH 2 (BODY.PEEK[HEADER])")
	idle()
	settled(true, "when core has looked at the header and gone to IDLE")

	s.say("250", "MAIL FROM:<%s>", botAddress)
	settled(false, "in a second transaction")
	s.Close()
	settled(true, "when the connection broke")
	c.Close()
	eventually(t, "not settled when core has gone", p.Changed(), func() bool { return !p.Settled() })
}

// While one connection idles, another one may still be at work.
func TestSettledCountsAllConnections(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	a, b := login(t, at.imap, "anyone"), login(t, at.imap, "anyone")
	b.do("OK", "SELECT INBOX")
	fmt.Fprintf(b, "i IDLE\r\n")
	b.until("+")
	eventually(t, "settled without mail", p.Changed(), p.Settled)
	p.Present(mailOf("1@y", "body"))
	p.Present(mailOf("2@y", "body"))
	a.do("OK", "SELECT INBOX")
	a.do("OK", "UID FETCH 1:2 (UID RFC822.SIZE BODY.PEEK[HEADER])")
	a.do("OK", "UID FETCH 1 BODY.PEEK[]")
	if p.Settled() {
		t.Error("settled with a mail of which only the header was fetched")
	}
	a.do("OK", `UID STORE 2 +FLAGS (\Deleted)`)
	a.do("OK", "EXPUNGE")
	eventually(t, "settled with one mail fetched, one deleted", p.Changed(), p.Settled)
}

func TestOutgoingIsWhatWasSubmittedInOrder(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	var mu sync.Mutex
	var stages []string
	p.Stages(func(stage string) {
		mu.Lock()
		defer mu.Unlock()
		stages = append(stages, stage)
	})
	first, second := mailOf("1@x", "one\r\n..dots"), mailOf("2@x", "two")
	for _, mail := range [][]byte{first, second} {
		to := []string{"Someuser1@Chat.Test", "odd'name@chat.test", string(userAddress), "other@elsewhere.test"}
		if err := submit(at.smtp, "any", "any", strings.ToUpper(string(botAddress)), to, mail); err != nil {
			t.Fatal(err)
		}
	}
	out := p.Outgoing()
	if len(out) != 2 || out[0].MessageID != "1@x" || out[1].MessageID != "2@x" {
		t.Fatalf("outgoing is %+v", out)
	}
	if !bytes.Equal(out[0].Data, first) || out[0].From != botAddress {
		t.Errorf("mail was changed: %q from %s", out[0].Data, out[0].From)
	}
	if want := []bot.Address{userAddress, "other@elsewhere.test"}; !slices.Equal(out[0].To, want) {
		t.Errorf("recipients are %v, want %v", out[0].To, want)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(stages, []string{"submitted", "submitted"}) {
		t.Errorf("stages are %v", stages)
	}
}

// TestTake: what is taken is not kept, and behind what was not taken all is kept, in order. Taken or not, it counts.
func TestTake(t *testing.T) {
	cfg := privateConfig()
	cfg.MaxTotal = 500
	p, at := startPrivate(t, cfg)
	send := func(id string) error {
		return submit(at.smtp, "any", "any", string(botAddress), []string{string(userAddress)}, mailOf(id, strings.Repeat("x", 30)))
	}
	var offered []string
	take := func(o Outgoing) bool {
		offered = append(offered, o.MessageID)
		return o.MessageID != "3@x"
	}
	for i, id := range []string{"1@x", "2@x", "3@x", "4@x"} {
		if i == 1 {
			p.Take(take)
		}
		if err := send(id); err != nil {
			t.Fatal(err)
		}
	}
	var kept []string
	for _, o := range p.Outgoing() {
		kept = append(kept, o.MessageID)
	}
	if !slices.Equal(offered, []string{"2@x", "3@x"}) || !slices.Equal(kept, []string{"1@x", "3@x", "4@x"}) || p.Taken() != 1 {
		t.Errorf("offered %v, kept %v, taken %d", offered, kept, p.Taken())
	}
	p.Take(func(Outgoing) bool { return true })
	for i := 0; ; i++ {
		if err := send("more@x"); err != nil {
			if !strings.Contains(err.Error(), "552") {
				t.Error(err)
			}
			break
		}
		if i > 10 {
			t.Fatal("what is taken is without bound")
		}
	}
}

func TestSubmissionIsBounded(t *testing.T) {
	cfg := privateConfig()
	cfg.MaxMail, cfg.MaxTotal, cfg.MaxRecipients = 1000, 2500, 2
	p, at := startPrivate(t, cfg)
	exactly := func(n int) []byte { return append(bytes.Repeat([]byte("x"), n-2), "\r\n"...) }
	send := func(from, to string, mail []byte) error {
		return submit(at.smtp, "any", "any", from, strings.Fields(to), mail)
	}
	me, user := string(botAddress), string(userAddress)
	for _, step := range []struct {
		what string
		err  error
		want string
	}{
		{"foreign sender", send(user, user, exactly(10)), "553"},
		{"null sender", send("", user, exactly(10)), "553"},
		{"too many recipients", send(me, "a@b c@d e@f", exactly(10)), "550"},
		{"too many recipients that are no addresses", send(me, "a@b o'b@d o'b@f", exactly(10)), "550"},
		{"no usable recipient", send(me, "o'brien@b", exactly(10)), "553"},
		{"one byte over a mail", send(me, user, exactly(1001)), "552"},
		{"largest mail", send(me, user, exactly(1000)), ""},
		{"largest mail again", send(me, user, exactly(1000)), ""},
		{"over the total", send(me, user, exactly(501)), "552"},
		{"exactly the total", send(me, user, exactly(500)), ""},
		{"nothing more", send(me, user, exactly(3)), "552"},
	} {
		if step.want == "" && step.err != nil || step.want != "" && (step.err == nil || !strings.Contains(step.err.Error(), step.want)) {
			t.Errorf("%s: %v, want %q", step.what, step.err, step.want)
		}
	}
	if n := len(p.Outgoing()); n != 3 {
		t.Errorf("%d mails were taken, want 3", n)
	}
}

func TestAuthLoginAndBDAT(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	c := dialRaw(t, at.smtp)
	c.until("220")
	c.say("250", "EHLO core")
	c.say("334", "AUTH LOGIN")
	c.say("334", "dXNlcg==")
	c.say("235", "cGFzcw==")
	c.say("250", "MAIL FROM:<%s>", botAddress)
	c.say("250", "RCPT TO:<%s>", userAddress)
	io.WriteString(c, "BDAT 3\r\nab\nBDAT 1 LAST\r\nc")
	c.until("250 2.0.0 Continue")
	c.until("250 2.0.0 OK")
	if out := p.Outgoing(); len(out) != 1 || string(out[0].Data) != "ab\nc" {
		t.Errorf("outgoing is %v", out)
	}
}

// Close must leave nothing behind: the session's cgroup and directories go next.
func TestCloseWaitsForConnections(t *testing.T) {
	p := NewPrivate(privateConfig())
	l, sl := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	served := make(chan error, 2)
	go func() { served <- p.ServeIMAP(l) }()
	go func() { served <- p.ServeSMTP(sl) }()
	s := dialRaw(t, sl.Addr().String())
	s.until("220")
	s.say("250", "EHLO core")
	s.say("250", "MAIL FROM:<%s>", botAddress)
	s.say("250", "RCPT TO:<%s>", userAddress)
	s.say("354", "DATA")
	c := login(t, l.Addr().String(), "anyone")
	c.do("OK", "SELECT INBOX")
	fmt.Fprintf(c, "i IDLE\r\n")
	c.until("+")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	eventually(t, "no goroutine of the servers is left", tick(t), func() bool { // the last one may be on its way out
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return !slices.ContainsFunc([]string{"imapserver.(*Conn)", "go-smtp.(*Server)", "minirelay.(*privateSession)"},
			func(server string) bool { return bytes.Contains(stacks, []byte(server)) })
	})
	if _, err := io.ReadAll(c.r); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection was not closed: %v", err)
	}
	if p.Settled() {
		t.Error("settled after Close")
	}
	if err := p.ServeIMAP(listen(t, "127.0.0.1:0")); err == nil {
		t.Error("ServeIMAP served after Close")
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// The client that Mayfly itself uses hears of new mail, too.
func TestImapclientIdles(t *testing.T) {
	p, at := startPrivate(t, privateConfig())
	exists := make(chan uint32, 10)
	c := imapClient(t, at.imap, "any", "any", &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				exists <- *data.NumMessages
			}
		},
	}})
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	idle, err := c.Idle()
	if err != nil {
		t.Fatal(err)
	}
	p.Present(mailOf("1@y", "body"))
	select {
	case n := <-exists:
		if n != 1 {
			t.Errorf("%d messages, want 1", n)
		}
	case <-time.After(deadline):
		t.Fatal("no EXISTS")
	}
	if err := idle.Close(); err != nil {
		t.Error(err)
	}
}
