// Package relay starts a chatmail relay made of Debian's real Postfix and Dovecot, for tests. It runs on loopback, on ports
// that were free, below one temporary folder, and is configured from scratch as the public chatmail relay is:
//
//   - Accounts are made at their first login: the local part has exactly 9 of [a-z0-9._-], the password at least 9 bytes. A dict
//     server in the test's process decides, as a relay's doveauth does.
//   - A master user logs in to every account that exists, as "address*mayfly", by IMAP and by SMTP.
//   - IMAP with STARTTLS and with TLS; zlib, quota, hibernation, the delimiter "." of Maildir, and stock Dovecot's half second
//     before an IDLE notification.
//   - Submission with STARTTLS and with TLS: logins are checked by Dovecot, MAIL FROM must be the login, and a filter in the test's
//     process takes only what is OpenPGP-encrypted or a handshake, as filtermail does; else "523 Encryption Needed". A sender may
//     send 60 mails a minute and 10 at once; else "450 4.7.1".
//   - Postfix delivers by LMTP, to its own domain only. A mail to an account that does not exist bounces.
//   - contrib/dovecot/mayfly_push.lua is Dovecot's second push-notification driver, after one that stands for the relay's own.
//
// TLS certificates are signed by a CA that Roots and CAFile hold, and name "localhost", 127.0.0.1 and the domain.
//
// It needs root, since Postfix does, and the packages that scripts/setup-relay installs. When the test ends, so do all processes
// and the folder is deleted.
package relay

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
)

const (
	mailUser      = "nobody"
	mailGroup     = "nogroup"
	postfixMaster = "/usr/lib/postfix/sbin/master"
	startTime     = time.Minute
)

// Config changes what a relay is like. The zero value is the usual one.
type Config struct {
	Domain string // default "chat.test"
	NoHook bool   // leave out mayfly_push.lua, and the plugins in protocol imap that it needs
	Quota  string // of an account, as Dovecot writes it; default "500M"

	MailsPerMinute, Burst int // what a sender may submit; default 60 and 10, as filtermail's

	// WantsUnencrypted is how many mails the filter is to refuse with 523: the test fails if it is another number at the end.
	WantsUnencrypted int
}

// Relay is a running relay. Addresses are 127.0.0.1:port.
type Relay struct {
	Domain string

	IMAP    string // STARTTLS; without it too, since loopback counts as safe
	IMAPTLS string // TLS from the first byte

	Submission      string // STARTTLS, required
	SubmissionTLS   string // TLS from the first byte
	SubmissionPlain string // no TLS: not on a real relay, but cores do not know our CA

	LMTP string // Dovecot's, past Postfix and the filter

	Roots  *x509.CertPool // the CA alone
	CAFile string         // the same as PEM

	MasterUser, MasterPassword string

	Hook      string // path of the datagram socket that mayfly_push.lua writes to; nobody listens on it until the test does
	HookGroup int    // gid of the processes that write to it

	dir      string
	t        testing.TB
	wants    int // of Config.WantsUnencrypted
	accounts *accounts
	filter   *filter
	servers  []*server
	guard    *exec.Cmd
	stopped  bool
}

// Start runs a relay as usual until the end of the test.
func Start(t testing.TB) *Relay {
	t.Helper()
	return StartWith(t, Config{})
}

// StartWith runs a relay until the end of the test.
func StartWith(t testing.TB, config Config) *Relay {
	t.Helper()
	requireServers(t)
	// Not below t.TempDir: the path of a unix socket has at most 107 bytes, and the servers' own users must get there.
	dir, err := os.MkdirTemp("", "relay-")
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{t: t, dir: dir, Domain: config.Domain, MasterUser: "mayfly", MasterPassword: rand.Text(), wants: config.WantsUnencrypted}
	t.Cleanup(r.Stop)
	if r.Domain == "" {
		r.Domain = "chat.test"
	}
	if config.MailsPerMinute == 0 {
		config.MailsPerMinute, config.Burst = 60, 10
	}
	if err := r.start(config); err != nil {
		t.Fatalf("relay: %v\n%s", err, r.Logs())
	}
	return r
}

func requireServers(t testing.TB) {
	t.Helper()
	const hint = "run scripts/setup-relay"
	if os.Getuid() != 0 {
		t.Fatal("relay: Postfix starts as root only: run these tests as root")
	}
	version, err := exec.Command("dovecot", "--version").Output()
	if err != nil {
		t.Fatalf("relay: dovecot: %v: %s", err, hint)
	}
	if !strings.HasPrefix(string(version), "2.3.") {
		t.Fatalf("relay: its configuration is for Dovecot 2.3, as in Debian 12 and on chatmail relays; here is %s", version)
	}
	for _, pattern := range []string{
		postfixMaster,
		"/usr/lib/dovecot/imap", "/usr/lib/dovecot/lmtp",
		"/usr/lib/dovecot/modules/*push_notification_lua_plugin.so", "/usr/lib/*/lua/5.*/socket/unix.so",
	} {
		if found, _ := filepath.Glob(pattern); len(found) == 0 {
			t.Fatalf("relay: there is no %s: %s", pattern, hint)
		}
	}
}

func (r *Relay) start(config Config) error {
	if err := r.layOut(); err != nil {
		return err
	}
	if err := r.certify(); err != nil {
		return err
	}
	v, err := r.values(config)
	if err != nil {
		return err
	}
	if r.accounts, err = serveAccounts(filepath.Join(r.dir, "doveauth"), r.Domain, filepath.Join(r.dir, "mail")); err != nil {
		return err
	}
	if r.filter, err = serveFilter(v.filterListener, v.Reinject, config); err != nil {
		return err
	}
	if err := r.configure(v); err != nil {
		return err
	}
	if err := r.run("Dovecot", "dovecot", "-F", "-c", filepath.Join(r.dir, "dovecot.conf")); err != nil {
		return err
	}
	if err := r.run("Postfix", postfixMaster, "-c", filepath.Join(r.dir, "postfix", "etc"), "-d"); err != nil {
		return err
	}
	if r.guard, err = startGuard(r.dir, r.servers); err != nil {
		return err
	}
	return r.await(r.IMAP, r.IMAPTLS, r.LMTP, r.Submission, r.SubmissionTLS, r.SubmissionPlain, v.Reinject)
}

func (r *Relay) run(name string, command ...string) error {
	s, err := startServer(r.dir, name, command...)
	if err == nil {
		r.servers = append(r.servers, s)
	}
	return err
}

// await waits until all the addresses take connections.
func (r *Relay) await(addresses ...string) error {
	deadline := time.Now().Add(startTime)
	for _, address := range addresses {
		for {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
				break
			}
			for _, s := range r.servers {
				if s.hasEnded() {
					return fmt.Errorf("%s has ended: %s", s.name, s.said())
				}
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("not up after %v: %w", startTime, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// Stop ends the relay, and fails the test if a process is left. It is called at the end of the test.
func (r *Relay) Stop() {
	r.t.Helper()
	if r.stopped {
		return
	}
	r.stopped = true
	if r.t.Failed() {
		r.t.Logf("the relay's logs:\n%s", r.Logs())
	}
	var errs []error
	if r.guard != nil {
		errs = append(errs, r.guard.Process.Kill())
		_ = r.guard.Wait() // killed, as it says
	}
	for _, s := range r.servers {
		errs = append(errs, s.stop())
	}
	if r.filter != nil {
		errs = append(errs, r.filter.close())
		if n := r.Filter().Unencrypted; n != r.wants {
			errs = append(errs, fmt.Errorf("the filter refused %d mails as unencrypted, want %d", n, r.wants))
		}
	}
	if r.accounts != nil {
		errs = append(errs, r.accounts.close())
	}
	errs = append(errs, awaitNobody(r.dir), os.RemoveAll(r.dir))
	if err := errors.Join(errs...); err != nil {
		r.t.Errorf("relay: stop: %v", err)
	}
}

// Accounts says how many accounts were made.
func (r *Relay) Accounts() int { return r.accounts.count() }

// Block makes the filter refuse all mail of a sender for good, as an operator may, or take it again.
func (r *Relay) Block(sender bot.Address, blocked bool) {
	r.filter.mu.Lock()
	defer r.filter.mu.Unlock()
	r.filter.blocked[string(sender)] = blocked
}

// Filter says what the filter has answered.
func (r *Relay) Filter() FilterStats {
	r.filter.mu.Lock()
	defer r.filter.mu.Unlock()
	return r.filter.stats
}

// Passed lists the Message-IDs of a sender's mails that the filter let pass, in order.
func (r *Relay) Passed(sender bot.Address) []string {
	r.filter.mu.Lock()
	defer r.filter.mu.Unlock()
	return slices.Clone(r.filter.passed[string(sender)])
}

// Logs returns what Dovecot and Postfix have logged.
func (r *Relay) Logs() string {
	var all strings.Builder
	for _, name := range []string{"dovecot.log", "postfix.log"} {
		text, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&all, "%s:\n%s\n", name, text)
	}
	return all.String()
}
