package session

import (
	"context"
	"net/url"
	"strings"

	"mayfly/internal/bot"
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
	if _, link, ok := strings.Cut(contact, "https://i.delta.chat/#"); ok {
		fingerprint, rest, _ := strings.Cut(link, "&")
		fields, err := url.ParseQuery(rest)
		at, err2 := bot.ParseAddress(fields.Get("a"))
		if err != nil || err2 != nil {
			at = ""
		}
		return bot.Fingerprint(strings.ToUpper(fingerprint)), at
	}
	address, _, _ := strings.Cut(strings.TrimPrefix(contact, "mailto:"), "?")
	at, err := bot.ParseAddress(address)
	if err != nil {
		return "", ""
	}
	return "", at
}
