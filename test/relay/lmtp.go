package relay

import (
	"net"
	"time"

	"github.com/emersion/go-smtp"

	"mayfly/internal/bot"
)

// Deliver hands a mail to Dovecot by LMTP (RFC 2033), past Postfix and the filter, and returns when Dovecot has answered.
func (r *Relay) Deliver(to bot.Address, mail string) error {
	conn, err := net.Dial("tcp", r.LMTP)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	c := smtp.NewClientLMTP(conn)
	defer c.Close()
	if err := c.Mail("someone@chat.test", nil); err != nil {
		return err
	}
	if err := c.Rcpt(string(to), nil); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(mail)); err != nil {
		return err
	}
	return w.Close()
}
