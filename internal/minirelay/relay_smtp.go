package minirelay

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
)

// submission is one SMTP connection to a Relay.
type submission struct {
	relay *Relay
	conn  *smtp.Conn

	mu   sync.Mutex // a mail that comes by BDAT is read in a goroutine of its own
	user *account   // set by AUTH
	to   []*account
}

var _ smtp.AuthSession = (*submission)(nil)

func (s *submission) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *submission) Auth(mechanism string) (sasl.Server, error) {
	if mechanism != sasl.Plain {
		return nil, smtp.ErrAuthUnknownMechanism
	}
	return sasl.NewPlainServer(func(identity, user, password string) error {
		if identity != "" && identity != user {
			return smtp.ErrAuthFailed
		}
		a := s.relay.login(user, password)
		if a == nil {
			return smtp.ErrAuthFailed
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.user = a
		return nil
	}), nil
}

func (s *submission) Mail(from string, _ *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = nil
	if s.user == nil {
		return s.refused(refuse(530, smtp.EnhancedCode{5, 7, 0}, "Authentication required"))
	}
	if !strings.EqualFold(from, string(s.user.address)) {
		return s.refused(refuse(553, smtp.EnhancedCode{5, 7, 1}, "Sender address is not yours"))
	}
	cfg := s.relay.cfg
	if cfg.RatePerMinute > 0 && !s.user.rate.take(time.Now(), cfg.RatePerMinute, cfg.RateBurst) {
		s.relay.rateLimited.Add(1)
		return s.refused(refuse(450, smtp.EnhancedCode{4, 7, 1}, "Too much mail from "+string(s.user.address)))
	}
	return nil
}

func (s *submission) refused(err error) error {
	s.relay.refused.Add(1)
	return err
}

func (s *submission) Rcpt(to string, _ *smtp.RcptOptions) error {
	address, err := bot.ParseAddress(to)
	if err != nil {
		return s.refused(refuse(550, smtp.EnhancedCode{5, 1, 3}, "Not an address"))
	}
	if address.Domain() != s.relay.cfg.Domain {
		return s.refused(refuse(550, smtp.EnhancedCode{5, 7, 1}, "No mail goes to other domains from here"))
	}
	a := s.relay.account(address)
	if a == nil {
		return s.refused(refuse(550, smtp.EnhancedCode{5, 1, 1}, "No such user"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.to, a) {
		s.to = append(s.to, a)
	}
	return nil
}

func (s *submission) Data(r io.Reader) error {
	s.mu.Lock()
	user, to := s.user, slices.Clone(s.to)
	s.mu.Unlock()
	if user == nil || len(to) == 0 {
		return s.refused(refuse(503, smtp.EnhancedCode{5, 5, 1}, "No transaction"))
	}
	data, err := readMail(r, s.relay.cfg.MaxMail)
	if errors.Is(err, errTooBig) {
		return s.refused(smtp.ErrDataTooLarge)
	}
	if err != nil {
		return s.refused(err)
	}
	if err := s.check(user, data); err != nil {
		return s.refused(err)
	}
	return s.deliver(user, to, data)
}

// check is what filtermail does.
func (s *submission) check(user *account, data []byte) error {
	if from, ok := fromAddress(data); !ok || from != user.address {
		return refuse(554, smtp.EnhancedCode{5, 7, 1}, "The From field must be "+string(user.address))
	}
	if gate.IsHandshake(data) {
		return nil
	}
	if err := gate.LooksEncrypted(data); err != nil {
		s.relay.unencrypted.Add(1)
		s.relay.log.Debug("unencrypted mail", "from", user.address, "err", err)
		return refuse(523, smtp.NoEnhancedCode, "Encryption Needed: Invalid Unencrypted Mail")
	}
	return nil
}

// deliver refuses the mail for all recipients if one of them has no room for it: nothing here could send a bounce.
func (s *submission) deliver(user *account, to []*account, data []byte) error {
	for _, a := range to {
		if !a.store.hasRoom(len(data) + messageOverhead) {
			return s.refused(refuse(552, smtp.EnhancedCode{5, 2, 2}, "The mailbox of "+string(a.address)+" is full"))
		}
	}
	for _, a := range to {
		if err := s.relay.deliver(a, string(user.address), s.conn.Hostname(), data); err != nil {
			s.relay.log.Warn("a copy is lost", "to", a.address, "err", err)
		}
	}
	s.relay.accepted.Add(1)
	return nil
}

func (s *submission) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = nil
}

func (s *submission) Logout() error {
	s.Reset()
	return nil
}
