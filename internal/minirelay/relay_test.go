package minirelay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

const masterPassword = "the operator's"

func relayConfig() RelayConfig {
	return RelayConfig{Domain: "chat.test", MasterPassword: masterPassword}
}

func startRelay(t testing.TB, cfg RelayConfig) (*Relay, endpoints) {
	t.Helper()
	r := NewRelay(cfg)
	return r, start(t, r)
}

// register makes accounts by their first login.
func register(t testing.TB, at endpoints, users ...bot.Address) {
	t.Helper()
	for _, user := range users {
		login(t, at.imap, string(user)).Close()
	}
}

// encrypted is a mail that core wrote, under another sender.
func encrypted(t testing.TB, from bot.Address) []byte {
	t.Helper()
	mail, err := os.ReadFile(filepath.Join("testdata", "encrypted.eml"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Replace(toCRLF(mail), []byte("user00002@chat.test"), []byte(from), 1)
}

func handshake(from bot.Address) []byte {
	return fmt.Appendf(nil, "From: <%s>\r\nMessage-ID: <hs@x>\r\nSecure-Join: vc-request\r\nContent-Type: text/plain\r\n\r\nSecure-Join: vc-request\r\n", from)
}

// changes collects what OnChange tells.
type changes struct {
	mu   sync.Mutex
	list []change
	more chan struct{}
}

func newChanges() *changes { return &changes{more: make(chan struct{}, 1000)} }

func (c *changes) hook(addr bot.Address, mailbox string, uid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, change{addr, mailbox, uid})
	c.more <- struct{}{}
}

func (c *changes) all() []change {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

func TestAccountsAreMadeAtFirstLogin(t *testing.T) {
	r, at := startRelay(t, relayConfig())
	for _, step := range []struct {
		what, user, pass string
		ok               bool
		accounts         int
	}{
		{"short password", string(userAddress), "12345678", false, 0},
		{"short name", "shortone@chat.test", password, false, 0},
		{"long name", "longlonglo@chat.test", password, false, 0},
		{"other characters", "some+user@chat.test", password, false, 0},
		{"foreign domain", "someuser1@else.test", password, false, 0},
		{"master of no account", string(userAddress) + "*mayfly", masterPassword, false, 0},
		{"first login", string(userAddress), password, true, 1},
		{"the same in upper case", "SomeUser1@Chat.Test", password, true, 1},
		{"wrong password", string(userAddress), password + "x", false, 1},
		{"master", string(userAddress) + "*mayfly", masterPassword, true, 1},
		{"master with the user's password", string(userAddress) + "*mayfly", password, false, 1},
		{"other master", string(userAddress) + "*root", masterPassword, false, 1},
	} {
		c := dialRaw(t, at.imap)
		c.until("* OK")
		want := map[bool]string{true: "OK", false: "NO [AUTHENTICATIONFAILED]"}[step.ok]
		t.Log(step.what)
		c.do(want, "LOGIN %q %q", step.user, step.pass)
		mail := handshake(userAddress)
		err := submit(at.smtp, step.user, step.pass, string(userAddress), []string{string(userAddress)}, mail)
		if (err == nil) != step.ok {
			t.Errorf("SMTP, %s: %v", step.what, err)
		}
		if n := r.Stats().Accounts; n != step.accounts {
			t.Errorf("%s: %d accounts, want %d", step.what, n, step.accounts)
		}
	}
}

func TestNoMasterWithoutMasterPassword(t *testing.T) {
	_, at := startRelay(t, RelayConfig{Domain: "chat.test"})
	register(t, at, userAddress)
	c := dialRaw(t, at.imap)
	c.until("* OK")
	c.do("NO [AUTHENTICATIONFAILED]", `LOGIN "%s*mayfly" ""`, userAddress)
}

func TestSubmissionTakesWhatAChatmailRelayTakes(t *testing.T) {
	r, at := startRelay(t, relayConfig())
	register(t, at, botAddress, userAddress)
	user, to := string(userAddress), []string{string(botAddress)}
	const unencrypted = "523 Encryption Needed: Invalid Unencrypted Mail"
	for _, step := range []struct {
		what string
		from string
		to   []string
		mail []byte
		want string
	}{
		{"encrypted", user, to, encrypted(t, userAddress), ""},
		{"handshake", user, to, handshake(userAddress), ""},
		{"to two, one twice", user, append(to, user, user), encrypted(t, userAddress), ""},
		{"cleartext", user, to, []byte("From: <" + user + ">\r\nSubject: hi\r\n\r\nhello\r\n"), unencrypted},
		{"a handshake that says more", user, to, append(handshake(userAddress), "buy!\r\n"...), unencrypted},
		{"foreign MAIL FROM", string(botAddress), to, encrypted(t, userAddress), "553"},
		{"foreign From field", user, to, encrypted(t, botAddress), "554"},
		{"no From field", user, to, []byte("Subject: x\r\n\r\n"), "554"},
		{"two From fields", user, to, append([]byte("From: <"+user+">\r\n"), encrypted(t, userAddress)...), "554"},
		{"unknown recipient", user, []string{"nobody001@chat.test"}, encrypted(t, userAddress), "550"},
		{"foreign recipient", user, []string{"someuser1@else.test"}, encrypted(t, userAddress), "550"},
	} {
		before := r.Stats()
		err := submit(at.smtp, user, password, step.from, step.to, step.mail)
		after := r.Stats()
		if step.want == "" {
			if err != nil || after.Accepted != before.Accepted+1 {
				t.Errorf("%s: %v", step.what, err)
			}
			continue
		}
		var smtpErr *smtp.SMTPError
		if !errors.As(err, &smtpErr) || !strings.HasPrefix(fmt.Sprint(smtpErr.Code, " ", smtpErr.Message), step.want) {
			t.Errorf("%s: %v, want %s", step.what, err, step.want)
		}
		if after.Refused != before.Refused+1 || after.Delivered != before.Delivered {
			t.Errorf("%s: counted %+v after %+v", step.what, after, before)
		}
	}
	if s := r.Stats(); s.Accepted != 3 || s.Delivered != 4 || s.Unencrypted != 2 {
		t.Errorf("stats are %+v", s)
	}
}

func TestSubmissionNeedsAuthentication(t *testing.T) {
	_, at := startRelay(t, relayConfig())
	register(t, at, userAddress)
	c := dialRaw(t, at.smtp)
	c.until("220")
	c.say("250", "EHLO me")
	c.say("530", "MAIL FROM:<%s>", userAddress)
	c.say("502", "DATA")
}

func TestRateLimit(t *testing.T) {
	cfg := relayConfig()
	cfg.RatePerMinute, cfg.RateBurst = 60, 3
	r, at := startRelay(t, cfg)
	register(t, at, userAddress)
	user := string(userAddress)
	var err error
	for range 5 {
		if err = submit(at.smtp, user, password, user, []string{user}, handshake(userAddress)); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "Too much mail") || r.Stats().RateLimited != 1 || r.Stats().Accepted != 3 {
		t.Errorf("%v, %+v", err, r.Stats())
	}
	var b bucket
	now := time.Now()
	b.tokens = 1
	for i, want := range []bool{true, false, false, true} { // a token comes back after a second
		if got := b.take(now.Add(time.Duration(i)*400*time.Millisecond), 60, 10); got != want {
			t.Errorf("take %d is %t", i, got)
		}
	}
}

func TestDeliverIsLMTPFromOutside(t *testing.T) {
	seen := newChanges()
	cfg := relayConfig()
	cfg.OnChange = seen.hook
	r, at := startRelay(t, cfg)
	register(t, at, botAddress)
	if err := r.Deliver("nobody001@chat.test", []byte("x")); !errors.Is(err, errNoAccount) {
		t.Errorf("delivered to nobody: %v", err)
	}
	if err := r.Deliver(botAddress, []byte("From: mailer-daemon@else.test\nSubject: bounce\n\nbody\n")); err != nil {
		t.Fatal(err)
	}
	<-seen.more
	if want := []change{{botAddress, "INBOX", 1}}; !slices.Equal(seen.all(), want) {
		t.Errorf("told %v, want %v", seen.all(), want)
	}
	c := imapClient(t, at.imap, string(botAddress)+"*mayfly", masterPassword, nil)
	if _, err := c.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	got, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{}, BodySection: []*imap.FetchItemBodySection{whole}}).Collect()
	if err != nil || len(got) != 1 || got[0].Envelope.Subject != "bounce" || got[0].BodyStructure.MediaType() != "text/plain" {
		t.Fatalf("got %v, %v", got, err)
	}
	mail := string(got[0].FindBodySection(whole))
	for _, part := range []string{"Return-Path: <>\r\n", "Delivered-To: " + string(botAddress) + "\r\n", "\r\nReceived: from localhost by chat.test ", "\r\n\r\nbody\r\n"} {
		if !strings.Contains(mail, part) {
			t.Errorf("no %q in %q", part, mail)
		}
	}
}

// An author's tool installs a bot by IMAP: every step must reach the host.
func TestBotFolderWakes(t *testing.T) {
	for _, delimiter := range []string{"/", "."} {
		seen := newChanges()
		cfg := relayConfig()
		cfg.OnChange, cfg.Delimiter = seen.hook, delimiter
		_, at := startRelay(t, cfg)
		c := imapClient(t, at.imap, string(botAddress), password, nil)
		status := "Bot" + delimiter + "Status"
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(c.Create("Bot", nil).Wait())
		must(c.Create(status, nil).Wait())
		must(c.Create("Botany", nil).Wait())
		for _, mailbox := range []string{"Botany", "INBOX", "Bot"} {
			a := c.Append(mailbox, 5, &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}})
			a.Write([]byte("hello"))
			must(a.Close())
			data, err := a.Wait()
			must(err)
			if data.UID != 1 {
				t.Errorf("appended to %s with UID %d", mailbox, data.UID)
			}
		}
		_, err := c.Select("Bot", nil).Wait()
		must(err)
		_, err = c.Copy(imap.UIDSetNum(1), status).Wait()
		must(err)
		_, err = c.Move(imap.UIDSetNum(1), status).Wait()
		must(err)
		must(c.Rename("Bot", "Old", nil).Wait())
		must(c.Rename("Old", "Bot", nil).Wait())
		must(c.Delete(status).Wait())
		want := []change{
			{botAddress, "Bot", 0}, {botAddress, status, 0}, {botAddress, "INBOX", 1}, {botAddress, "Bot", 1},
			{botAddress, status, 1}, {botAddress, status, 2}, {botAddress, "Bot", 0}, {botAddress, "Bot", 0}, {botAddress, status, 0},
		}
		for range want {
			<-seen.more
		}
		if !slices.Equal(seen.all(), want) {
			t.Errorf("told\n%v, want\n%v", seen.all(), want)
		}
	}
}

func TestFolders(t *testing.T) {
	_, at := startRelay(t, relayConfig())
	c := login(t, at.imap, string(userAddress))
	c.do("OK", `CREATE A`)
	c.do("OK", `CREATE A/B/`)
	c.do("OK", `SUBSCRIBE A/B`)
	c.do("NO [ALREADYEXISTS]", `CREATE A`)
	c.do("NO", `CREATE A//B`)
	c.do("NO", `CREATE "%s"`, strings.Repeat("x", 256))
	c.do("NO [TRYCREATE]", "APPEND Nowhere {1+}\r\nx")
	c.do("NO [NONEXISTENT]", `SELECT Nowhere`)
	c.do("NO", "DELETE INBOX")
	c.do("NO", "RENAME INBOX X")
	c.do("NO", "RENAME A A/B/C")
	lines := c.do("OK", `LIST "" %%`)
	wantLine(t, lines, `* LIST () "/" "A"`)
	noLine(t, lines, "A/B")
	wantLine(t, c.do("OK", `LSUB "" *`), `* LSUB (\Subscribed) "/" "A/B"`)
	wantLine(t, c.do("OK", `LIST "" "*" RETURN (STATUS (MESSAGES))`), `* STATUS "A/B" (MESSAGES 0)`)
	c.do("OK", "RENAME A C")
	wantLine(t, c.do("OK", `LIST "" "*"`), `* LIST (\Subscribed) "/" "C/B"`)
	c.do("OK", "DELETE C/B")
	noLine(t, c.do("OK", `LIST "" "*"`), "C/B")
	wantLine(t, c.do("OK", "NAMESPACE"), `* NAMESPACE (("" "/")) NIL NIL`)
	wantLine(t, c.do("OK", `LIST "" ""`), `* LIST (\Noselect) "/" ""`)
}

func TestAccountsAndMailboxesAreBounded(t *testing.T) {
	cfg := relayConfig()
	cfg.MaxAccounts = 1
	_, at := startRelay(t, cfg)
	c := login(t, at.imap, string(userAddress))
	for i := 1; i < maxMailboxes; i++ {
		c.do("OK", "CREATE M%d", i)
	}
	c.do("NO [OVERQUOTA]", "CREATE M%d", maxMailboxes)
	second := dialRaw(t, at.imap)
	second.until("* OK")
	second.do("NO [AUTHENTICATIONFAILED]", "LOGIN %s %q", botAddress, password)
}

// A mailbox that is made again must not look like the old one (RFC 3501, section 2.3.1.1).
func TestUIDValidityChangesWhenAMailboxIsMadeAgain(t *testing.T) {
	_, at := startRelay(t, relayConfig())
	c := imapClient(t, at.imap, string(userAddress), password, nil)
	validity := func() uint32 {
		t.Helper()
		if err := c.Create("Bot", nil).Wait(); err != nil {
			t.Fatal(err)
		}
		data, err := c.Status("Bot", &imap.StatusOptions{UIDValidity: true}).Wait()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Delete("Bot").Wait(); err != nil {
			t.Fatal(err)
		}
		return data.UIDValidity
	}
	if a, b := validity(), validity(); a == b {
		t.Errorf("UIDVALIDITY %d twice", a)
	}
}

func TestQuotaHoldsForAllWaysIn(t *testing.T) {
	cfg := relayConfig()
	cfg.Quota = 8 << 10
	r, at := startRelay(t, cfg)
	user := string(userAddress)
	c := login(t, at.imap, user)
	c.do("NO [OVERQUOTA]", "APPEND INBOX {%d}\r\n%s", 8<<10, strings.Repeat("x", 8<<10))
	big := []byte(strings.Repeat("x", 3<<10))
	for range 1 {
		if err := r.Deliver(userAddress, big); err != nil {
			t.Fatal(err)
		}
	}
	c.do("OK", "SELECT INBOX")
	c.do("OK", "CREATE Other")
	if err := r.Deliver(userAddress, []byte(strings.Repeat("x", 2<<10))); err != nil {
		t.Fatal(err)
	}
	if err := r.Deliver(userAddress, big); !errors.Is(err, errQuota) {
		t.Errorf("delivered over quota: %v", err)
	}
	c.do("NO [OVERQUOTA]", "COPY 1 Other")
	if err := submit(at.smtp, user, password, user, []string{user}, handshake(userAddress)); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("submitted over quota: %v", err)
	}
	c.do("OK", `STORE 1:* +FLAGS.SILENT (\Deleted)`)
	c.do("OK", "EXPUNGE")
	if err := r.Deliver(userAddress, big); err != nil {
		t.Errorf("expunged, but: %v", err)
	}
}

// Delivery must not wait for a host that is slow, or for a client that does not read.
func TestHookAndClientsDoNotBlockDelivery(t *testing.T) {
	cfg := relayConfig()
	blocked := make(chan struct{})
	cfg.OnChange = func(bot.Address, string, uint32) { <-blocked }
	r := NewRelay(cfg)
	at := start(t, r)
	defer close(blocked)
	register(t, at, userAddress)
	for range 10 {
		if err := r.Deliver(userAddress, bytes.Repeat([]byte("x"), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	c := login(t, at.imap, string(userAddress))
	c.do("OK", "SELECT INBOX")
	fmt.Fprintf(c, "f FETCH 1:* BODY.PEEK[]\r\n") // 10 MB, of which nothing is read
	time.Sleep(20 * time.Millisecond)
	done := make(chan error, 1)
	go func() { done <- r.Deliver(userAddress, []byte("x")) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Error("delivery waits")
	}
}

func TestIdleHearsOfOtherConnections(t *testing.T) {
	r, at := startRelay(t, relayConfig())
	a, b := login(t, at.imap, string(userAddress)), login(t, at.imap, string(userAddress))
	a.do("OK", "SELECT INBOX")
	b.do("OK", "SELECT INBOX")
	fmt.Fprintf(a, "i IDLE\r\n")
	a.until("+")
	for n := 1; n <= 3; n++ {
		if err := r.Deliver(userAddress, []byte("x")); err != nil {
			t.Fatal(err)
		}
		a.until(fmt.Sprintf("* %d EXISTS", n))
	}
	b.do("OK", "NOOP")
	b.do("OK", `STORE 2 +FLAGS.SILENT (\Deleted)`)
	b.do("OK", "EXPUNGE")
	a.until("* 2 EXPUNGE")
}

// The host's mailbox client is imapclient; it must understand all that we announce.
func TestCapabilities(t *testing.T) {
	_, at := startRelay(t, relayConfig())
	c := imapClient(t, at.imap, string(userAddress), password, &imapclient.Options{})
	for _, want := range []imap.Cap{imap.CapIMAP4rev1, imap.CapIdle, imap.CapUIDPlus, imap.CapMove, imap.CapListStatus} {
		if !c.Caps().Has(want) {
			t.Errorf("no %s in %v", want, c.Caps())
		}
	}
}
