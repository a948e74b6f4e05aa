//go:build relay

package relay

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/smtp"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/mailbox"
	"mayfly/internal/outbox"
)

const (
	dice     = bot.Address("dice00001@chat.test")
	ada      = bot.Address("ada000001@chat.test")
	password = `pass"word\ with 'quotes'`
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// login opens a mailbox over verified TLS, and makes the account at the first time.
func login(t testing.TB, r *Relay, address bot.Address) *mailbox.Client {
	t.Helper()
	return dial(t, mailbox.Server{Addr: r.IMAPTLS, TLS: mailbox.TLS, RootCAs: r.Roots}, string(address), password)
}

func dial(t testing.TB, server mailbox.Server, username, password string) *mailbox.Client {
	t.Helper()
	c, err := mailbox.Dial(t.Context(), server, mailbox.Login{Username: username, Password: password})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// deliver hands a mail to Dovecot by LMTP, which is SMTP with another greeting (RFC 2033), and returns how long Dovecot took for it.
func deliver(t testing.TB, r *Relay, to bot.Address, mail string) time.Duration {
	t.Helper()
	start := time.Now()
	must(t, r.Deliver(to, mail))
	return time.Since(start)
}

func text(subject string) string {
	return "From: someone@chat.test\r\nSubject: " + subject + "\r\n\r\n" + subject + "\r\n"
}

func TestAccountsAreMadeAtTheFirstLogin(t *testing.T) {
	r := Start(t)
	login(t, r, dice)
	login(t, r, dice)
	tls := mailbox.Server{Addr: r.IMAPTLS, TLS: mailbox.TLS, RootCAs: r.Roots}
	for name, refused := range map[string]mailbox.Login{
		"another password":     {Username: string(dice), Password: "another password"},
		"a short local part":   {Username: "short@chat.test", Password: password},
		"a strange local part": {Username: "str_nge[1@chat.test", Password: password},
		"another domain":       {Username: "dice00001@other.test", Password: password},
		"a short password":     {Username: string(ada), Password: "12345678"},
		"a false master":       {Username: string(dice) + "*mayfly", Password: password},
	} {
		if c, err := mailbox.Dial(t.Context(), tls, refused); !errors.Is(err, mailbox.ErrLogin) {
			t.Errorf("%s: %v, want a refusal", name, err)
			if c != nil {
				c.Close()
			}
		}
	}
	for name, refused := range map[string]mailbox.Login{
		"the master, for no account": {Username: string(ada) + "*mayfly", Password: r.MasterPassword},
		"another master":             {Username: string(dice) + "*root", Password: r.MasterPassword},
	} {
		if c, err := mailbox.Dial(t.Context(), tls, refused); err == nil {
			t.Errorf("%s: may log in", name)
			c.Close()
		}
	}
	if r.Accounts() != 1 {
		t.Errorf("%d accounts, want 1", r.Accounts())
	}
	dial(t, tls, string(dice)+"*mayfly", r.MasterPassword)
}

func TestTLSIsVerified(t *testing.T) {
	r := Start(t)
	for name, server := range map[string]mailbox.Server{
		"IMAP, TLS":      {Addr: r.IMAPTLS, TLS: mailbox.TLS},
		"IMAP, STARTTLS": {Addr: r.IMAP, TLS: mailbox.StartTLS},
	} {
		server.RootCAs = r.Roots
		dial(t, server, string(dice), password)
		server.ServerName = "localhost"
		dial(t, server, string(dice), password)
		server.ServerName = "other.test"
		requireTLSError(t, name+", another name", func() error { return tryDial(t, server) })
		server.ServerName, server.RootCAs = "", nil
		requireTLSError(t, name+", another CA", func() error { return tryDial(t, server) })
	}
	for mode, address := range map[outbox.TLSMode]string{outbox.TLSImplicit: r.SubmissionTLS, outbox.TLSStart: r.Submission} {
		s := &outbox.SMTP{Addr: address, TLS: mode, Credentials: master(r)}
		requireTLSError(t, "submission, "+string(mode), func() error {
			return s.Submit(t.Context(), dice, []bot.Address{ada}, strings.NewReader(text("x")))
		})
	}
}

func tryDial(t *testing.T, server mailbox.Server) error {
	c, err := mailbox.Dial(t.Context(), server, mailbox.Login{Username: string(dice), Password: password})
	if err == nil {
		c.Close()
	}
	return err
}

func requireTLSError(t *testing.T, name string, try func() error) {
	t.Helper()
	err := try()
	var unknown x509.UnknownAuthorityError
	var wrong x509.HostnameError
	if !errors.As(err, &unknown) && !errors.As(err, &wrong) {
		t.Errorf("%s: %v, want a certificate that is refused", name, err)
	}
}

func TestMailbox(t *testing.T) {
	r := Start(t)
	ctx := t.Context()
	c := login(t, r, dice)
	status, err := c.Select(ctx, "INBOX")
	must(t, err)
	if status.UIDValidity == 0 || status.UIDNext != 1 || status.Messages != 0 {
		t.Errorf("an empty INBOX: %+v", status)
	}
	deliver(t, r, dice, text("one"))
	deliver(t, r, dice, text("two"))
	deliver(t, r, dice, text("three")+strings.Repeat("long\r\n", 20_000))
	_, err = c.Select(ctx, "INBOX") // List says what was there at the last Select or Idle
	must(t, err)
	requireUIDs(t, c, 1, 2, 3)
	mail, err := c.Fetch(ctx, 2, 1<<20)
	must(t, err)
	if !bytes.HasSuffix(mail, []byte(text("two"))) {
		t.Errorf("fetched %q", mail)
	}
	if _, err := c.Fetch(ctx, 3, 1<<16); !errors.Is(err, mailbox.ErrTooLarge) {
		t.Errorf("a long mail: %v", err)
	}
	must(t, c.Delete(ctx, 1, 3))
	requireUIDs(t, c, 2)
	if _, err := c.Fetch(ctx, 1, 1<<20); !errors.Is(err, mailbox.ErrVanished) {
		t.Errorf("a deleted mail: %v", err)
	}
	must(t, c.Delete(ctx, 1))
	if _, err := c.Select(ctx, "Bot"); !errors.Is(err, mailbox.ErrNoFolder) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func requireUIDs(t *testing.T, c *mailbox.Client, want ...uint32) {
	t.Helper()
	list, err := c.List(t.Context(), 0, 100)
	must(t, err)
	var got []uint32
	for _, m := range list {
		got = append(got, m.UID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("UIDs %v, want %v", got, want)
	}
}

// TestFoldersInFolders: on Dovecot with Maildir, the delimiter is a dot.
func TestFoldersInFolders(t *testing.T) {
	r := Start(t)
	ctx := t.Context()
	c := login(t, r, dice)
	must(t, c.Append(ctx, "Bot", []byte(text("a bundle"))))
	must(t, c.Append(ctx, "Bot/Status", []byte(text("installed"))))
	must(t, c.Create(ctx, "Bot/Status"))
	for _, folder := range []string{"Bot", "Bot/Status"} {
		there, err := c.Exists(ctx, folder)
		must(t, err)
		status, err := c.Select(ctx, folder)
		must(t, err)
		if !there || status.Messages != 1 {
			t.Errorf("%s: there: %v, %+v", folder, there, status)
		}
	}
	found, err := os.ReadDir(r.dir + "/mail/" + string(dice))
	must(t, err)
	if !slices.ContainsFunc(found, func(e os.DirEntry) bool { return e.Name() == ".Bot.Status" }) {
		t.Errorf("the Maildir has no folder .Bot.Status: %v", found)
	}
	mails, err := os.ReadDir(r.dir + "/mail/" + string(dice) + "/.Bot/new")
	must(t, err)
	for _, m := range mails {
		stored, err := os.ReadFile(r.dir + "/mail/" + string(dice) + "/.Bot/new/" + m.Name())
		must(t, err)
		if !bytes.HasPrefix(stored, []byte{0x1f, 0x8b}) {
			t.Errorf("a mail is not stored as gzip: %q", stored[:10])
		}
	}
}

func TestQuota(t *testing.T) {
	r := StartWith(t, Config{Quota: "100k"})
	login(t, r, dice)
	noise := make([]byte, 40_000)
	for i := range noise {
		noise[i] = byte('a' + i*i%26)
	}
	large := text("large") + string(noise) + "\r\n"
	var err error
	for n := 0; n < 4 && err == nil; n++ {
		err = r.Deliver(dice, large)
	}
	if err == nil || !strings.Contains(err.Error(), "SMTP error 552") || !strings.Contains(err.Error(), "Quota exceeded") {
		t.Errorf("over the quota: %v, want 552 Quota exceeded", err)
	}
}

func TestIdleWakes(t *testing.T) {
	r := Start(t)
	c := login(t, r, dice)
	_, err := c.Select(t.Context(), "INBOX")
	must(t, err)
	woken := make(chan error, 1)
	for n := range 3 {
		go func() { woken <- c.Idle(t.Context()) }()
		time.Sleep(100 * time.Millisecond) // so that it idles
		start := time.Now()
		deliver(t, r, dice, text("hello"))
		select {
		case err := <-woken:
			must(t, err)
			t.Logf("IDLE %d: %v after the delivery began", n, time.Since(start).Round(time.Millisecond))
		case <-time.After(time.Minute):
			t.Fatal("IDLE did not wake")
		}
	}
}

func TestWatch(t *testing.T) {
	r := Start(t)
	login(t, r, dice)
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 10)
	var done sync.WaitGroup
	done.Go(func() {
		mailbox.Watch(ctx, func(ctx context.Context) (*mailbox.Client, error) {
			return mailbox.Dial(ctx, mailbox.Server{Addr: r.IMAP, TLS: mailbox.StartTLS, RootCAs: r.Roots},
				mailbox.Login{Username: string(dice) + "*" + r.MasterUser, Password: r.MasterPassword})
		}, "INBOX", func() { changed <- struct{}{} }, slog.New(slog.DiscardHandler))
	})
	await := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal(what)
		}
	}
	await("Watch does not tell that it is connected")
	deliver(t, r, dice, text("hello"))
	await("Watch does not tell of new mail")
	cancel()
	done.Wait()
}

func master(r *Relay) func(bot.Address) (string, string, error) {
	return func(a bot.Address) (string, string, error) {
		return string(a) + "*" + r.MasterUser, r.MasterPassword, nil
	}
}

// encrypted is one of the gate's samples: a text that a real core wrote. Nobody here has to read it.
func encrypted(t *testing.T) string {
	t.Helper()
	mail, err := os.ReadFile("../../internal/gate/testdata/eml/5-text.user.eml")
	must(t, err)
	return strings.ReplaceAll(strings.ReplaceAll(string(mail), "\r\n", "\n"), "\n", "\r\n")
}

func TestSubmission(t *testing.T) {
	r := Start(t)
	login(t, r, dice)
	c := login(t, r, ada)
	_, err := c.Select(t.Context(), "INBOX")
	must(t, err)
	for n, s := range []*outbox.SMTP{
		{Addr: r.Submission, TLS: outbox.TLSStart, Roots: r.Roots, Credentials: master(r)},
		{Addr: r.SubmissionTLS, TLS: outbox.TLSImplicit, Roots: r.Roots, Credentials: master(r)},
		{Addr: r.SubmissionPlain, TLS: outbox.TLSPlain, Credentials: master(r)},
	} {
		start := time.Now()
		must(t, s.Submit(t.Context(), dice, []bot.Address{ada}, strings.NewReader(encrypted(t))))
		t.Logf("%s: taken after %v", s.TLS, time.Since(start).Round(time.Millisecond))
		awaitMails(t, c, n+1)
		must(t, s.Close())
	}
}

func awaitMails(t *testing.T, c *mailbox.Client, n int) {
	t.Helper()
	var list []mailbox.Message
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
		var err error
		list, err = c.List(t.Context(), 0, 100)
		must(t, err)
		if len(list) == n {
			return
		}
	}
	t.Fatalf("%d mails in the INBOX, want %d", len(list), n)
}

func TestSubmissionRefuses(t *testing.T) {
	r := StartWith(t, Config{WantsUnencrypted: 2})
	login(t, r, dice)
	login(t, r, ada)
	s := &outbox.SMTP{Addr: r.SubmissionTLS, TLS: outbox.TLSImplicit, Roots: r.Roots, Credentials: master(r)}
	defer s.Close()
	requireRefusal(t, s.Submit(t.Context(), dice, []bot.Address{ada}, strings.NewReader(text("readable"))), 523, "Encryption Needed")
	requireRefusal(t, s.Submit(t.Context(), dice, []bot.Address{"x@elsewhere.example"}, strings.NewReader(text("readable"))), 523, "Encryption Needed")
	forged := &outbox.SMTP{Addr: r.SubmissionTLS, TLS: outbox.TLSImplicit, Roots: r.Roots,
		Credentials: func(bot.Address) (string, string, error) { return string(ada), password, nil }}
	defer forged.Close()
	requireRefusal(t, forged.Submit(t.Context(), dice, []bot.Address{ada}, strings.NewReader(encrypted(t))), 553, "not owned by user ada000001@chat.test")
	stranger := &outbox.SMTP{Addr: r.SubmissionTLS, TLS: outbox.TLSImplicit, Roots: r.Roots,
		Credentials: func(bot.Address) (string, string, error) { return string(dice), "a false password", nil }}
	err := stranger.Submit(t.Context(), dice, []bot.Address{ada}, strings.NewReader(encrypted(t)))
	var refused *outbox.SubmitError
	if !errors.As(err, &refused) || !refused.Temporary || !strings.Contains(err.Error(), "535") {
		t.Errorf("a false password: %v, want 535, and to be tried again", err)
	}
}

func requireRefusal(t *testing.T, err error, code int, says string) {
	t.Helper()
	var refused *outbox.SubmitError
	if !errors.As(err, &refused) || refused.Code != code || refused.Temporary || !strings.Contains(err.Error(), says) {
		t.Errorf("refused with %v, want %d %q, for good", err, code, says)
	}
}

// TestBounce: Postfix takes mail for an account that is not there, and tells the sender.
func TestBounce(t *testing.T) {
	r := Start(t)
	c := login(t, r, dice)
	_, err := c.Select(t.Context(), "INBOX")
	must(t, err)
	s := &outbox.SMTP{Addr: r.SubmissionTLS, TLS: outbox.TLSImplicit, Roots: r.Roots, Credentials: master(r)}
	defer s.Close()
	must(t, s.Submit(t.Context(), dice, []bot.Address{"nobody001@chat.test"}, strings.NewReader(encrypted(t))))
	awaitMails(t, c, 1)
	mail, err := c.Fetch(t.Context(), 1, 1<<20)
	must(t, err)
	if !bytes.Contains(mail, []byte("multipart/report; report-type=delivery-status")) || !bytes.Contains(mail, []byte("5.1.1")) {
		t.Errorf("not a delivery report:\n%s", mail)
	}
}

func TestNothingIsLeft(t *testing.T) {
	r := Start(t)
	login(t, r, dice)
	if len(processesIn(r.dir)) < 5 {
		t.Errorf("only %v run: nothing is known of the rest", processesIn(r.dir))
	}
	r.Stop()
	if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
	if left := processesIn(r.dir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
	if _, err := smtp.Dial(r.Submission); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the submission port: %v", err)
	}
}
