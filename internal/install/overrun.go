package install

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-message/mail"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// tellOverrun answers into Bot/Status, and by chat where it can, that the bot has used up what it may. The ledger bounds how often.
func (in *Installer) tellOverrun(ctx context.Context, addr bot.Address, connect func(context.Context) (Appender, error)) error {
	o, there, err := in.Ledger.Overrun(ctx, addr)
	if err != nil || !there {
		return err
	}
	b, err := in.Ledger.Bot(ctx, addr)
	if err != nil {
		return err
	}
	mail, err := composeOverrun(b, o, in.Now())
	if err != nil {
		return err
	}
	c, err := connect(ctx)
	if err != nil {
		return err
	}
	if err := c.Append(ctx, StatusFolder, mail); err != nil {
		return err
	}
	in.Log.Info("Bot folder: told of a limit", "bot", addr, "limit", o.Why)
	return in.Ledger.OverrunTold(ctx, addr, in.Now(), in.letters(ctx, b, overrunText(b, o))...)
}

func composeOverrun(b ledger.Bot, o ledger.Overrun, now time.Time) ([]byte, error) {
	var h mail.Header
	own := []*mail.Address{{Name: "Mayfly", Address: string(b.Address)}}
	h.SetAddressList("From", own)
	h.SetAddressList("To", own)
	h.SetSubject(OverLimit + ": " + title(b.Manifest) + ", " + o.Why)
	h.SetDate(now)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s over-limit %d", b.Address, o.Since.UnixMicro()))
	h.SetMessageID(fmt.Sprintf("mayfly-%x@%s", sum[:16], strings.Trim(b.Address.Domain(), "[]")))
	h.Set("Auto-Submitted", "auto-generated")
	h.Set("Mayfly-State", OverLimit)
	return composeText(h, overrunText(b, o))
}

func overrunText(b ledger.Bot, o ledger.Overrun) string {
	return fmt.Sprintf("%s has reached a limit of this host: %s, at %s.\n\nMail to it waits in the mailbox, and is worked off "+
		"when there is room again. Nothing is lost or sent back. You are told of this once a day at most.\n",
		title(b.Manifest), o.Why, o.Since.UTC().Format("2006-01-02 15:04 MST"))
}
