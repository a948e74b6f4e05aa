package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"regexp"
	"sync"

	"github.com/emersion/go-smtp"
	"golang.org/x/time/rate"

	"mayfly/internal/gate"
)

// filter is what a relay's filtermail is: Postfix hands it every submitted mail before it answers the client, and it hands back
// to Postfix, at another port, what is OpenPGP-encrypted or a handshake. It bounds how much a sender sends.
type filter struct {
	server   *smtp.Server
	reinject string
	rate     rate.Limit // mails a second and sender
	burst    int
	serving  sync.WaitGroup

	mu      sync.Mutex
	senders map[string]*rate.Limiter
	blocked map[string]bool
	passed  map[string][]string // Message-IDs, by sender, in order
	stats   FilterStats
}

// FilterStats count what the filter has answered.
type FilterStats struct {
	Passed      int // mails
	Unencrypted int // mails refused with 523
	TooMany     int // mails put off with 450
	Blocked     int // mails refused with 554, since their sender is blocked
}

func serveFilter(listener net.Listener, reinject string, config Config) (*filter, error) {
	f := &filter{reinject: reinject, rate: rate.Limit(float64(config.MailsPerMinute) / 60), burst: config.Burst,
		senders: map[string]*rate.Limiter{}, blocked: map[string]bool{}, passed: map[string][]string{}}
	f.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &filtering{filter: f}, nil }))
	f.server.Domain = "filter.test"
	f.server.MaxMessageBytes = 32 << 20
	f.server.MaxRecipients = 1000
	f.server.EnableSMTPUTF8 = true                        // Postfix offers it to clients, and cores use it
	f.serving.Go(func() { _ = f.server.Serve(listener) }) // it ends with an error when it is closed
	return f, nil
}

func (f *filter) close() error {
	err := f.server.Close()
	f.serving.Wait()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, smtp.ErrServerClosed) {
		return nil
	}
	return err
}

func (f *filter) count(add func(*FilterStats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add(&f.stats)
}

func (f *filter) blocks(from string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blocked[from] {
		f.stats.Blocked++
	}
	return f.blocked[from]
}

func (f *filter) pass(from string, mail []byte) {
	header, _, _ := bytes.Cut(mail, []byte("\r\n\r\n"))
	id := regexp.MustCompile(`(?im)^Message-ID:\s*<([^>]*)>`).FindSubmatch(header)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Passed++
	if id != nil {
		f.passed[from] = append(f.passed[from], string(id[1]))
	}
}

// maySend takes one mail from what a sender may send now.
func (f *filter) maySend(from string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.senders[from] == nil {
		f.senders[from] = rate.NewLimiter(f.rate, f.burst)
	}
	allowed := f.senders[from].Allow()
	if !allowed {
		f.stats.TooMany++
	}
	return allowed
}

// filtering is one connection of Postfix.
type filtering struct {
	filter  *filter
	from    string
	options *smtp.MailOptions
	to      []string
}

func (s *filtering) Mail(from string, options *smtp.MailOptions) error {
	if s.filter.blocks(from) {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "Mail from " + from + " is blocked: ask postmaster"}
	}
	if !s.filter.maySend(from) {
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Too much mail from " + from}
	}
	s.from, s.options = from, options
	return nil
}

func (s *filtering) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *filtering) Data(r io.Reader) error {
	mail, err := io.ReadAll(r) // bounded by MaxMessageBytes
	if err != nil {
		return err
	}
	if gate.LooksEncrypted(mail) != nil && !gate.IsHandshake(mail) {
		s.filter.count(func(stats *FilterStats) { stats.Unencrypted++ })
		return &smtp.SMTPError{Code: 523, EnhancedCode: smtp.NoEnhancedCode, Message: "Encryption Needed: Invalid Unencrypted Mail"}
	}
	s.filter.pass(s.from, mail)
	return s.handBack(mail)
}

// handBack gives the mail to Postfix, and Postfix's answer to the client.
func (s *filtering) handBack(mail []byte) error {
	c, err := smtp.Dial(s.filter.reinject)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail(s.from, &smtp.MailOptions{Body: s.options.Body, UTF8: s.options.UTF8}); err != nil {
		return err
	}
	for _, to := range s.to {
		if err := c.Rcpt(to, nil); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(mail); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

func (s *filtering) Reset()        { s.from, s.options, s.to = "", nil, nil }
func (s *filtering) Logout() error { return nil }
