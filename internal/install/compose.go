package install

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-message/mail"

	"mayfly/internal/bot"
	"mayfly/internal/bundle"
)

// Compose writes the message that installs or updates a bot when it is appended to the account's folder Bot: the bundle as
// a zip.
func Compose(b *bundle.Bundle, addr bot.Address) ([]byte, error) {
	zip, err := b.Zip()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("Installs %s.\n", title(b.Manifest))
	return composeMixed(requestHeader(addr, "install "+title(b.Manifest)), text,
		attachment{name: "bundle.zip", mediaType: "application/zip", disposition: "attachment", data: zip})
}

// ComposeUninstall writes the message that uninstalls the account's bot.
func ComposeUninstall(addr bot.Address) ([]byte, error) {
	return composeText(requestHeader(addr, "uninstall"), "Uninstalls the bot of this account.\n")
}

// ComposeRollback writes the message that puts back the bundle before the installed one.
func ComposeRollback(addr bot.Address) ([]byte, error) {
	return composeText(requestHeader(addr, "rollback"), "Puts back the version before.\n")
}

func requestHeader(addr bot.Address, subject string) mail.Header {
	var h mail.Header
	own := []*mail.Address{{Address: string(addr)}}
	h.SetAddressList("From", own)
	h.SetAddressList("To", own)
	h.SetSubject(subject)
	h.SetDate(time.Now())
	h.SetMessageID(rand.Text() + "@" + strings.Trim(addr.Domain(), "[]"))
	return h
}
