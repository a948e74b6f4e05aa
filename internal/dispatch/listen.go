package dispatch

import (
	"context"
	"errors"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/mailbox"
)

// maxWord bounds the mail in which a command of the host's is looked for while the bot is paused, in bytes: a text, keys, and their wrapping.
const maxWord = 128 << 10

// heard is how far the INBOX of a paused bot was listened to in this pause.
type heard struct {
	since time.Time // of the pause
	upTo  ledger.Cursor
}

// has reports whether a mail was listened to. They come in the order of their UIDs.
func (h *heard) has(c ledger.Cursor) bool {
	return h.upTo.UIDValidity == c.UIDValidity && c.UID <= h.upTo.UID
}

// overhear listens to a mail of a paused bot, once. One that had to wait for a budget is looked at again.
func (a *actor) overhear(ctx context.Context, cursor ledger.Cursor, size int64, waited bool) error {
	if a.heard.has(cursor) && !waited {
		return nil
	}
	var err error
	if size <= maxWord {
		err = a.hold(ctx, size, func() error { return a.listen(ctx, cursor) })
	}
	var over *overBudget
	if (err == nil || errors.As(err, &over)) && !a.heard.has(cursor) {
		a.heard.upTo = cursor
	}
	return err
}

// listen answers a mail of a paused bot that is a command of the host's. Every other mail stays where it is, and is read when the pause
// is over.
func (a *actor) listen(ctx context.Context, cursor ledger.Cursor) error {
	a.worked = true
	a.looked()
	raw, err := a.inbox.Fetch(ctx, cursor.UID, maxWord)
	if errors.Is(err, mailbox.ErrVanished) || errors.Is(err, mailbox.ErrTooLarge) {
		return nil
	}
	if err != nil {
		return err
	}
	claim := gate.ReadClaim(raw)
	if !claim.Encrypted {
		return nil
	}
	var over *overBudget
	if err := a.admit(ctx, claim, len(raw)); errors.As(err, &over) {
		a.waitlist.add(cursor.UID, claim.From, over)
		return err
	} else if err != nil {
		return err
	}
	b, err := a.d.opts.Ledger.Bot(ctx, a.account)
	if err != nil {
		return err
	}
	v, err := a.judge(ctx, b, raw)
	if err != nil {
		return err
	}
	word := hostWord(v, b.Manifest)
	if word == "" || v.Sender == "" {
		return nil
	}
	if stopped, err := a.stopped(ctx, v); err != nil || word == bot.WordStart && !stopped {
		return err
	}
	job := jobOf(ledger.Job{Bot: a.account, Cursor: cursor}, v, int64(len(raw)))
	_, err = a.obey(ctx, b, job, v, word)
	return err
}
