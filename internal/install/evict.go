package install

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-message/mail"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
)

// Evict uninstalls a bot because the operator wants it, as its author's uninstall does, and tells the author in Bot/Status. The account
// stays watched: its author may install again if the Rules let him. untold is why the author could not be told; the bot is gone then, too.
func (in *Installer) Evict(ctx context.Context, addr bot.Address, why string, connect func(context.Context) (Appender, error)) (untold, err error) {
	b, err := in.Ledger.Bot(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := in.uninstall(ctx, addr); err != nil {
		return nil, err
	}
	in.Log.Info("removed by the operator", "bot", addr, "why", why)
	mail, err := composeRemoved(b, why, in.Now())
	if err != nil {
		return nil, err
	}
	c, err := connect(ctx)
	if err != nil {
		return err, nil
	}
	return c.Append(ctx, StatusFolder, mail), nil
}

func composeRemoved(b ledger.Bot, why string, now time.Time) ([]byte, error) {
	var h mail.Header
	own := []*mail.Address{{Name: "Mayfly", Address: string(b.Address)}}
	h.SetAddressList("From", own)
	h.SetAddressList("To", own)
	h.SetSubject(Removed + ": " + title(b.Manifest))
	h.SetDate(now)
	if err := h.GenerateMessageIDWithHostname(strings.Trim(b.Address.Domain(), "[]")); err != nil {
		return nil, err
	}
	h.Set("Auto-Submitted", "auto-generated")
	h.Set("Mayfly-State", Removed)
	text := fmt.Sprintf("The operator of this host has removed %s. What it had stored and its key are deleted; its invite link is dead.\n", title(b.Manifest))
	if why = oneLine(why); why != "" {
		text += "\nThe reason: " + why + "\n"
	}
	return composeText(h, text+"\nThe account itself is untouched. To ask about it, write to the operator of the relay.\n")
}
