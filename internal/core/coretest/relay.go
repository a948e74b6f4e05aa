package coretest

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"mayfly/internal/core"
)

// Relay is IMAP and SMTP on loopback with local delivery, for cores that test one another. It checks nothing.
type Relay struct {
	// Refusing makes SMTP answer 451 to every mail.
	Refusing atomic.Bool

	imap, smtp uint16
	users      *imapmemserver.Server
	mu         sync.Mutex
	boxes      map[string]*imapmemserver.User
}

const password = "password"

// NewRelay serves until the end of the test.
func NewRelay(t testing.TB) *Relay {
	t.Helper()
	r := &Relay{users: imapmemserver.New(), boxes: make(map[string]*imapmemserver.User)}
	imapServer := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return r.users.NewSession(), nil, nil
		},
		InsecureAuth: true,
	})
	smtpServer := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &submission{relay: r}, nil }))
	smtpServer.AllowInsecureAuth = true
	imapListener, smtpListener := listen(t), listen(t)
	r.imap, r.smtp = port(imapListener), port(smtpListener)
	var serving sync.WaitGroup
	serving.Go(func() { _ = imapServer.Serve(imapListener) })
	serving.Go(func() { _ = smtpServer.Serve(smtpListener) })
	t.Cleanup(func() {
		_ = imapServer.Close()
		_ = smtpServer.Close()
		serving.Wait()
	})
	return r
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func port(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// transport makes the mailbox, if need be, and says how to reach it.
func (r *Relay) transport(t testing.TB, addr string) core.Transport {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.boxes[addr] == nil {
		user := imapmemserver.NewUser(addr, password)
		if err := user.Create("INBOX", nil); err != nil {
			t.Fatal(err)
		}
		r.boxes[addr] = user
		r.users.AddUser(user)
	}
	return core.Transport{
		Addr: addr, Password: password,
		IMAPServer: "127.0.0.1", IMAPPort: r.imap, SMTPServer: "127.0.0.1", SMTPPort: r.smtp,
	}
}

func (r *Relay) deliver(to string, mail []byte) error {
	r.mu.Lock()
	box := r.boxes[to]
	r.mu.Unlock()
	if box == nil {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such mailbox"}
	}
	_, err := box.Append("INBOX", bytes.NewReader(mail), &imap.AppendOptions{Time: time.Now()})
	return err
}

// submission is one SMTP session.
type submission struct {
	relay *Relay
	to    []string
}

func (s *submission) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *submission) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, _ string) error { return nil }), nil
}

func (s *submission) Mail(string, *smtp.MailOptions) error {
	if s.relay.Refusing.Load() {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "later"}
	}
	return nil
}

func (s *submission) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

func (s *submission) Data(r io.Reader) error {
	mail, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	for _, to := range s.to {
		if err := s.relay.deliver(to, mail); err != nil {
			return err
		}
	}
	return nil
}

func (s *submission) Reset()        { s.to = nil }
func (s *submission) Logout() error { return nil }
