package minirelay

import (
	"crypto/tls"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

// PrivateConfig says whose provider a Private is, and its bounds.
type PrivateConfig struct {
	Address       bot.Address  // the only sender
	UIDValidity   uint32       // of the INBOX; constant for a bot, at least 1
	UIDNext       uint32       // the first UID that Present will mint, at least 1
	MaxMail       int64        // bytes of one outgoing mail; above it 552
	MaxTotal      int64        // bytes of all outgoing mails of the session; above it 552
	MaxRecipients int          // of one mail; above it 550 5.5.3
	Log           *slog.Logger // nil discards

	Bot *BotClient // nil: the client is core
}

// BotClient says how a bot that brings its own mail client is served.
type BotClient struct {
	Password    string          // of PrivateConfig.Address
	Certificate tls.Certificate // for STARTTLS, ServeIMAPS and ServeSMTPS
	Submission  Submission
}

// Submission takes what a bot sends. An error is told to the bot in the answer of SMTP, with its code if it is a *Refusal.
type Submission interface {
	// Recipient says whether the bot may write to an address.
	Recipient(to bot.Address) error
	// Submit takes a mail all of whose recipients were accepted. It is not called twice at once.
	Submit(mail Outgoing) error
}

// Refusal is an answer of SMTP.
type Refusal struct {
	Code     int
	Enhanced [3]int // RFC 3463
	Reason   string
}

func (r *Refusal) Error() string { return r.Reason }

// Bounds of what core may do to a Private. Core itself uses one or two connections, and few bytes.
const (
	privateConns     = 8
	privateIMAPBytes = 1 << 20 // of commands on one connection: core sends a few kilobytes, and appends nothing
	privateAppend    = 256 << 10
	privateSilence   = 2 * time.Minute
	privateAddresses = 128 << 10 // bytes of an envelope and of commands, beside the mails
	botConns         = 200       // in all, on each port: a bot that polls makes one each time
)

// Outgoing is a mail that core has submitted.
type Outgoing struct {
	From      bot.Address
	To        []bot.Address // without duplicates, in the order of RCPT TO
	Data      []byte        // as received, lines ended by CRLF, dot-stuffing undone
	MessageID string        // of the outer header, without angle brackets; empty if there is none
}

// Private is the provider of one core for one session. Its methods may be called at any time from any goroutine.
type Private struct {
	cfg     PrivateConfig
	log     *slog.Logger
	guard   *guard
	store   *store
	inbox   *box
	changed chan struct{}
	taking  chan struct{} // holds a token while a mail is being received: one at a time bounds the memory
	done    chan struct{}
	closing sync.Once

	mu           sync.Mutex
	stage        func(string)
	mails        map[imap.UID]*progress
	idling       map[*privateSession]struct{} // in IDLE, with the INBOX selected
	opened       bool                         // the INBOX was selected
	transactions int                          // SMTP: between MAIL FROM and its end
	outgoing     []Outgoing
	total        int64
	take         func(Outgoing) (taken bool)
	taken        int
}

// progress is how far core has come with a mail.
type progress struct {
	looked bool // its header was fetched
	done   bool // fetched whole, deleted, or left alone: looked at before core went idle
}

// NewPrivate makes a provider whose INBOX is empty.
func NewPrivate(cfg PrivateConfig) *Private {
	s := newStore(max(cfg.UIDValidity, 1), 0)
	b, _ := s.create(inbox, imap.UID(max(cfg.UIDNext, 1)))
	return &Private{
		cfg:     cfg,
		log:     orDiscard(cfg.Log),
		guard:   newGuard(),
		store:   s,
		inbox:   b,
		changed: make(chan struct{}, 1),
		taking:  make(chan struct{}, 1),
		done:    make(chan struct{}),
		stage:   func(string) {},
		mails:   make(map[imap.UID]*progress),
		idling:  make(map[*privateSession]struct{}),
	}
}

// ServeIMAP serves IMAP connections from l, which it closes, until Close; then it returns nil.
func (p *Private) ServeIMAP(l net.Listener) error { return p.serveIMAP(l, plain) }

// ServeIMAPS is ServeIMAP for connections that begin with TLS.
func (p *Private) ServeIMAPS(l net.Listener) error { return p.serveIMAP(l, p.implicitTLS) }

// ServeSMTP serves submissions from l, which it closes, until Close; then it returns nil.
func (p *Private) ServeSMTP(l net.Listener) error { return p.serveSMTP(l, plain) }

// ServeSMTPS is ServeSMTP for connections that begin with TLS.
func (p *Private) ServeSMTPS(l net.Listener) error { return p.serveSMTP(l, p.implicitTLS) }

func plain(l net.Listener) net.Listener { return l }

func (p *Private) implicitTLS(l net.Listener) net.Listener { return tls.NewListener(l, p.tls()) }

// tls is nil for core.
func (p *Private) tls() *tls.Config {
	if p.cfg.Bot == nil {
		return nil
	}
	return &tls.Config{Certificates: []tls.Certificate{p.cfg.Bot.Certificate}}
}

// limits are those of one port, on a connection of which so many bytes are read.
func (p *Private) limits(bytes int64) connLimits {
	limits := connLimits{conns: privateConns, bytes: bytes, silence: privateSilence}
	if p.cfg.Bot != nil {
		limits.total = botConns
	}
	return limits
}

func (p *Private) serveIMAP(l net.Listener, wrap func(net.Listener) net.Listener) error {
	server := imapserver.New(&imapserver.Options{
		NewSession:   p.newSession,
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapUIDPlus: {}},
		InsecureAuth: true,
		TLSConfig:    p.tls(),
		Logger:       debugLog{p.log},
	})
	return p.guard.serve(l, p.limits(privateIMAPBytes), func(l net.Listener) error { return server.Serve(wrap(l)) })
}

func (p *Private) serveSMTP(l net.Listener, wrap func(net.Listener) net.Listener) error {
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &privateSubmission{private: p}, nil
	}))
	server.Domain = "localhost"
	server.MaxMessageBytes = p.cfg.MaxMail + 1 // go-smtp refuses a mail of exactly this size
	server.AllowInsecureAuth = true
	server.ReadTimeout = privateSilence
	server.WriteTimeout = privateSilence
	server.TLSConfig = p.tls()
	server.ErrorLog = debugLog{p.log}
	limits := p.limits(p.cfg.MaxTotal + p.cfg.MaxMail + privateAddresses)
	return p.guard.serveSMTP(l, limits, server, wrap)
}

// Present puts a mail into the INBOX, which owns it from now on, and returns its UID. If core is in IDLE it is told at once.
func (p *Private) Present(mail []byte) uint32 {
	p.mu.Lock()
	defer p.mu.Unlock() // so that nothing fetches the mail before its progress is there
	uid, _ := p.store.add(p.inbox, mail, time.Now(), 0)
	p.mails[uid] = new(progress)
	if p.cfg.Bot != nil {
		p.store.setStructure(p.inbox, uid)
	}
	p.signal()
	return uint32(uid)
}

// Renew gives a mail that was presented a new UID, as if it had come now: for clients that look at nothing that was there before them.
// It says false, and does nothing, while no client has opened the INBOX, and when the mail is gone.
func (p *Private) Renew(uid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.opened {
		return false
	}
	fresh, ok := p.store.renew(p.inbox, imap.UID(uid), time.Now())
	if ok {
		p.mails[fresh] = p.mails[imap.UID(uid)]
		delete(p.mails, imap.UID(uid))
	}
	return ok
}

func (p *Private) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened = true
}

// UIDNext is the UID that the next Present will mint.
func (p *Private) UIDNext() uint32 { return uint32(p.store.status(p.inbox).UIDNext) }

// Settled says that core has nothing more to do here: it is in IDLE on the INBOX, it has fetched every presented mail
// whole (or deleted it, or gone to IDLE after a look at its header, as it does with mail it does not want), and it has no SMTP
// transaction open. What core still has in its queues, only its database knows.
func (p *Private) Settled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idling) == 0 || p.transactions > 0 {
		return false
	}
	for _, m := range p.mails {
		if !m.done {
			return false
		}
	}
	return true
}

// Looked says that every mail was looked at: something of it was fetched, it was marked as seen or deleted, or a search did not find it.
func (p *Private) Looked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.mails {
		if !m.looked && !m.done {
			return false
		}
	}
	return true
}

// Submitting says that a mail is on its way: between MAIL FROM and the answer to its end.
func (p *Private) Submitting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.transactions > 0
}

// Changed gets a value when Settled may have changed, and when a mail was presented, fetched, deleted or submitted. Several such
// events may come as one value.
func (p *Private) Changed() <-chan struct{} { return p.changed }

// Outgoing returns what core has submitted so far, in the order of acceptance.
func (p *Private) Outgoing() []Outgoing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.outgoing)
}

// Take offers f each mail that core submits from now on, one at a time and in their order, before core is told that it is accepted. What
// f takes is its own, and not in Outgoing. When it takes one not, it is offered no more: so what is in Outgoing came after all that it took.
func (p *Private) Take(f func(Outgoing) (taken bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.take = f
}

// Taken is how many mails were taken.
func (p *Private) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// Stages makes f hear of "imap-login", "fetched" (of each mail, whole, once) and "submitted" (of each mail), as they happen. f is
// called from the connection's goroutine and should return at once.
func (p *Private) Stages(f func(stage string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage = f
}

// Close ends listeners and connections and returns when nothing of them is left. What was submitted stays readable.
func (p *Private) Close() error {
	p.closing.Do(func() { close(p.done) })
	return p.guard.close()
}

func (p *Private) signal() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *Private) tell(stage string) {
	p.mu.Lock()
	f := p.stage
	p.mu.Unlock()
	f(stage)
	p.signal()
}

// fetched notes what core has seen of a mail.
func (p *Private) fetched(uid imap.UID, whole bool) {
	p.mu.Lock()
	m := p.mails[uid]
	first := m != nil && whole && !m.done
	if m != nil {
		m.looked = true
		m.done = m.done || whole
	}
	p.mu.Unlock()
	if first {
		p.tell("fetched")
	}
}

func (p *Private) deleted(uids []imap.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, uid := range uids {
		if m := p.mails[uid]; m != nil {
			m.done = true
		}
	}
	p.signal()
}

func (p *Private) setIdling(s *privateSession, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.signal()
	if !on {
		delete(p.idling, s)
		return
	}
	p.idling[s] = struct{}{}
	for _, m := range p.mails {
		m.done = m.done || m.looked
	}
}

// accept offers a mail to Take, or keeps it. Mails come one at a time.
func (p *Private) accept(o Outgoing) {
	p.mu.Lock()
	take := p.take
	p.mu.Unlock()
	taken := take != nil && take(o)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total += int64(len(o.Data))
	if taken {
		p.taken++
		return
	}
	p.take = nil
	p.outgoing = append(p.outgoing, o)
}

// submit hands a bot's mail on. One that is refused counts in the total, too.
func (p *Private) submit(o Outgoing) error {
	p.mu.Lock()
	p.total += int64(len(o.Data))
	p.mu.Unlock()
	return refusal(p.cfg.Bot.Submission.Submit(o))
}

// room is how many bytes the next mail may have. It does not shrink before that mail is accepted: they come one at a time.
func (p *Private) room() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(p.cfg.MaxMail, p.cfg.MaxTotal-p.total)
}

func (p *Private) transaction(delta int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.transactions += delta
	p.signal()
}
