package minirelay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

// RelayConfig says what a Relay serves. Zero values are the defaults of a chatmail relay, where a default is named.
type RelayConfig struct {
	Domain string // of all addresses, such as "chat.test" or "[127.0.0.1]"

	// A login as address*MasterUser with MasterPassword acts as the account, as on a Dovecot with
	// auth_master_user_separator=*. It makes no account. Without a MasterPassword there is no master user.
	MasterUser     string // default "mayfly"
	MasterPassword string

	// OnChange is the wake hook: new mail in an INBOX, with its UID; in the folder Bot or below it, a new message with
	// its UID, and with UID 0 a mailbox that was made, removed or renamed. Events are told one at a time, in order, from a
	// goroutine of their own: delivery does not wait. It must not call Close.
	OnChange func(addr bot.Address, mailbox string, uid uint32)

	LocalMin, LocalMax int    // length of local parts; default 9 and 9
	PasswordMin        int    // length of passwords; default 9
	Delimiter          string // between the names of mailboxes, one byte; default "/"
	MaxMail            int64  // bytes of one mail; default 30 MB
	Quota              int64  // bytes of one account, with 1 KB for each message; default 500 MB
	MaxAccounts        int    // default 10000
	RatePerMinute      int    // mails that one sender may submit; 0 means no limit. filtermail has 60
	RateBurst          int    // mails at once, if RatePerMinute is set; default 10
	Log                *slog.Logger
}

const (
	relayConns     = 256
	maxRecipients  = 100
	maxMailboxes   = 100 // of an account
	maxMailboxName = 255 // bytes
	submissionWait = 2 * time.Minute
)

// Stats counts what a Relay has done since its start.
type Stats struct {
	Accounts    int
	Accepted    int64 // mails submitted and delivered
	Refused     int64 // mails and senders refused, for any reason
	Unencrypted int64 // of Refused: neither OpenPGP nor a handshake (523)
	RateLimited int64 // of Refused: over the rate (450)
	Delivered   int64 // copies put into INBOXes, those of Deliver included
}

// Relay is a chatmail relay in memory. Its methods may be called at any time from any goroutine.
type Relay struct {
	cfg   RelayConfig
	log   *slog.Logger
	guard *guard
	hooks *hookQueue

	mu       sync.Mutex
	accounts map[bot.Address]*account

	accepted, refused, unencrypted, rateLimited, delivered atomic.Int64
}

// NewRelay makes a relay without accounts.
func NewRelay(cfg RelayConfig) *Relay {
	cfg.Domain = strings.ToLower(cfg.Domain)
	setDefault(&cfg.MasterUser, "mayfly")
	setDefault(&cfg.LocalMin, 9)
	setDefault(&cfg.LocalMax, max(9, cfg.LocalMin))
	setDefault(&cfg.PasswordMin, 9)
	setDefault(&cfg.Delimiter, "/")
	setDefault(&cfg.MaxMail, 30<<20)
	setDefault(&cfg.Quota, 500<<20)
	setDefault(&cfg.MaxAccounts, 10000)
	setDefault(&cfg.RateBurst, 10)
	return &Relay{
		cfg:      cfg,
		log:      orDiscard(cfg.Log),
		guard:    newGuard(),
		hooks:    newHookQueue(cfg.OnChange),
		accounts: make(map[bot.Address]*account),
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ServeIMAP serves IMAP from l, which it closes, until Close; then it returns nil.
func (r *Relay) ServeIMAP(l net.Listener) error {
	server := imapserver.New(&imapserver.Options{
		NewSession: r.newSession,
		Caps: imap.CapSet{
			imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}, imap.CapMove: {}, imap.CapNamespace: {},
			imap.CapListExtended: {}, imap.CapListStatus: {}, imap.CapStatusSize: {},
		},
		InsecureAuth: true,
		Logger:       debugLog{r.log},
	})
	return r.guard.serve(l, connLimits{conns: relayConns}, server.Serve)
}

// ServeSMTP serves submission from l, which it closes, until Close; then it returns nil.
func (r *Relay) ServeSMTP(l net.Listener) error {
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &submission{relay: r, conn: c}, nil
	}))
	server.Domain = r.cfg.Domain
	server.MaxMessageBytes = r.cfg.MaxMail + 1 // go-smtp refuses a mail of exactly this size
	server.MaxRecipients = maxRecipients
	server.AllowInsecureAuth = true
	server.ReadTimeout = submissionWait
	server.WriteTimeout = submissionWait
	server.ErrorLog = debugLog{r.log}
	return r.guard.serveSMTP(l, connLimits{conns: relayConns}, server, plain)
}

// Close ends listeners and connections, tells OnChange what is still queued, and returns when nothing is left.
func (r *Relay) Close() error {
	err := r.guard.close()
	r.hooks.close()
	return err
}

// Stats returns the counts.
func (r *Relay) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Stats{
		Accounts:    len(r.accounts),
		Accepted:    r.accepted.Load(),
		Refused:     r.refused.Load(),
		Unencrypted: r.unencrypted.Load(),
		RateLimited: r.rateLimited.Load(),
		Delivered:   r.delivered.Load(),
	}
}

// Deliver puts a mail into an account's INBOX as LMTP does with mail from outside: from the null sender, past the
// filter of submission, with the fields that a delivery adds. Lines may end with LF. The account must exist.
func (r *Relay) Deliver(to bot.Address, mail []byte) error {
	a := r.account(to)
	if a == nil {
		return fmt.Errorf("minirelay: deliver to %s: %w", to, errNoAccount)
	}
	if int64(len(mail)) > r.cfg.MaxMail {
		return fmt.Errorf("minirelay: deliver to %s: %w", to, errTooBig)
	}
	if err := r.deliver(a, "", "localhost", toCRLF(mail)); err != nil {
		return fmt.Errorf("minirelay: deliver to %s: %w", to, err)
	}
	return nil
}

func (r *Relay) deliver(a *account, from, client string, mail []byte) error {
	now := time.Now()
	trace := fmt.Sprintf("Return-Path: <%s>\r\nDelivered-To: %s\r\nReceived: from %s by %s (minirelay) for <%s>; %s\r\n",
		from, a.address, client, r.cfg.Domain, a.address, now.Format(time.RFC1123Z))
	data := make([]byte, 0, len(trace)+len(mail))
	data = append(append(data, trace...), mail...)
	b, err := a.store.box(inbox)
	if err != nil {
		return err
	}
	uid, err := a.store.add(b, data, now, 0)
	if err != nil {
		return err
	}
	r.delivered.Add(1)
	r.tell(a, inbox, uid)
	return nil
}

// tell passes a change on to OnChange if it is one that wakes.
func (r *Relay) tell(a *account, mailbox string, uid imap.UID) {
	isBot := mailbox == "Bot" || strings.HasPrefix(mailbox, "Bot"+r.cfg.Delimiter)
	if isBot || mailbox == inbox {
		r.hooks.add(change{a.address, mailbox, uint32(uid)})
	}
}

var errNoAccount = errors.New("no such account")
