package minirelay

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

// privateSubmission is one SMTP connection of core.
type privateSubmission struct {
	private *Private

	mu    sync.Mutex // a mail that comes by BDAT is read in a goroutine of its own
	open  bool
	to    []bot.Address
	named int // recipients, those included that are no addresses of ours
}

var _ smtp.AuthSession = (*privateSubmission)(nil)

func (s *privateSubmission) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

func (s *privateSubmission) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(string, string, string) error { return nil }), nil
	case sasl.Login:
		return new(anyLogin), nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// anyLogin is the server's side of SASL LOGIN (draft-murchison-sasl-login), for any name and password.
type anyLogin struct{ prompts int }

func (a *anyLogin) Next(response []byte) (challenge []byte, done bool, err error) {
	if response != nil {
		a.prompts++
	}
	switch a.prompts {
	case 0:
		return []byte("Username:"), false, nil
	case 1:
		return []byte("Password:"), false, nil
	}
	return nil, true, nil
}

func (s *privateSubmission) Mail(from string, _ *smtp.MailOptions) error {
	s.Reset()
	if !strings.EqualFold(from, string(s.private.cfg.Address)) {
		return refuse(553, smtp.EnhancedCode{5, 7, 1}, "Sender address is not yours")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = true
	s.private.transaction(+1)
	return nil
}

func (s *privateSubmission) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named >= s.private.cfg.MaxRecipients {
		return refuse(550, smtp.EnhancedCode{5, 5, 3}, "Too many recipients")
	}
	s.named++
	address, err := bot.ParseAddress(to)
	if err != nil {
		s.private.log.Warn("a recipient is left out", "err", err)
		return nil
	}
	if !slices.Contains(s.to, address) {
		s.to = append(s.to, address)
	}
	return nil
}

func (s *privateSubmission) Data(r io.Reader) error {
	p, to := s.private, s.recipients()
	if len(to) == 0 {
		return refuse(553, smtp.EnhancedCode{5, 1, 3}, "No recipient has a usable address")
	}
	select {
	case p.taking <- struct{}{}:
		defer func() { <-p.taking }()
	case <-p.done:
		return refuse(421, smtp.EnhancedCode{4, 3, 2}, "Closing")
	}
	data, err := readMail(r, p.room())
	if errors.Is(err, errTooBig) {
		return p.tooBig()
	}
	if err != nil {
		return err
	}
	p.accept(Outgoing{From: p.cfg.Address, To: to, Data: data, MessageID: messageID(data)})
	p.tell("submitted")
	return nil
}

// tooBig says which of the two bounds was hit.
func (p *Private) tooBig() error {
	if p.room() == p.cfg.MaxMail {
		return smtp.ErrDataTooLarge
	}
	return refuse(552, smtp.EnhancedCode{5, 2, 2}, "The session has sent as much as it may")
}

func (s *privateSubmission) recipients() []bot.Address {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.to)
}

func (s *privateSubmission) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to, s.named = nil, 0
	if s.open {
		s.open = false
		s.private.transaction(-1)
	}
}

func (s *privateSubmission) Logout() error {
	s.Reset()
	return nil
}

var errTooBig = errors.New("minirelay: too many bytes")

// readMail reads at most limit bytes; one more is errTooBig.
func readMail(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, errTooBig
	}
	return b.Bytes(), nil
}

func refuse(code int, enhanced smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text}
}
