package session

import (
	"context"
	"errors"
	"strings"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

// Letter makes a mail of the host's, in a bot's name, to the author whom the bot's manifest names, and puts it into the outbox's folder
// for the ledger to name. It is encrypted to the key that an invite link names, or else to that of the contact who last wrote to the bot
// from the address. It is nil where the bot's account does not hold that key, or the author has stopped the bot.
func (r *Runner) Letter(ctx context.Context, b ledger.Bot, text string) (*ledger.Outgoing, error) {
	to, at, err := r.author(ctx, b)
	if err != nil || to == "" || at == "" {
		return nil, err
	}
	if stopped, err := r.Ledger.Stopped(ctx, b.Address, to, ""); err != nil || stopped {
		return nil, err
	}
	selfKeys, err := r.Keys.Keys(b.Address)
	if err != nil {
		return nil, err
	}
	mail, err := compose(b, b.State, selfKeys, to, at, text, "")
	if err != nil || mail == nil {
		return nil, err
	}
	staged, err := r.stage(b.Address, []minirelay.Outgoing{*mail})
	if err != nil {
		return nil, err
	}
	return &staged[0], nil
}

// author is whom the manifest's contact stands for, and where that is reached; empty where it is not known.
func (r *Runner) author(ctx context.Context, b ledger.Bot) (bot.Fingerprint, bot.Address, error) {
	to, at := readContact(b.Manifest.Contact)
	if to == "" && at != "" {
		to, err := r.Ledger.ContactAt(ctx, b.Address, at)
		return to, at, err
	}
	known, err := r.Ledger.AddressOf(ctx, b.Address, to)
	if known != "" {
		at = known
	}
	return to, at, err
}

// readContact takes a manifest's contact apart: an invite link, mailto: or an address.
func readContact(contact string) (bot.Fingerprint, bot.Address) {
	if to, fields, ok := bot.ReadInvite(contact); ok {
		at, err := bot.ParseAddress(fields.Get("a"))
		if err != nil {
			at = ""
		}
		return to, at
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(contact, "mailto:"), "?")
	at, err := bot.ParseAddress(address)
	if err != nil {
		return "", ""
	}
	return "", at
}

// metKey is where core's account keeps the last invite of its author that it has accepted.
const metKey = "ui.mayfly.author"

// meetAuthor has core accept the invite link that is the manifest's contact, once for each link: so the bot learns the author's key. What
// comes back are handshakes, which are worked off by core alone.
func (r *Runner) meetAuthor(ctx context.Context, c *coreSide, b ledger.Bot) error {
	link := b.Manifest.Contact
	if _, _, ok := bot.JoinableInvite(link); !ok {
		return nil
	}
	met, err := c.client.GetConfig(ctx, c.account, metKey)
	if err != nil || met == link {
		return err
	}
	var refused *core.Error
	if _, err := c.client.SecureJoin(ctx, c.account, link); errors.As(err, &refused) {
		r.Log.Warn("core refuses the invite link of the bot's author", "bot", b.Address, "err", err)
	} else if err != nil {
		return err
	}
	return c.client.SetConfig(ctx, c.account, metKey, link)
}
