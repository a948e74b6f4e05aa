package session

import (
	"context"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
	"mayfly/internal/voice"
)

// What a user reads of a run that failed, at most once in apologizeEvery.
const (
	apologizeEvery = time.Hour
	sorryError     = "Sorry, this bot failed on your message, so there is no answer to it. Its author is told of the error. " +
		"The same message would probably fail again. You can go on with others."
	sorryLimit = "Sorry, this bot needed more time or memory for your message than it may use, so there is no answer to it. " +
		"Its author is told. Something smaller may work."
	sorryPart = "Sorry, this bot failed while it was answering your message, so something may be missing. Its author is told of the error. " +
		"The same message would probably fail again. You can go on with others."
	sorryLater = "Sorry, this bot has tried to answer your message several times, and could not for now. Its author is told. " +
		"Please try again later."
)

// apologize adds to what a session says, whose bot has failed, a sentence to the person who wrote, and tells the ledger so. It is the
// host's and not sent by core: so it is no message of the chat that the bot would know of, and always to the sender alone, in private.
// A person who wrote in a group is told only after having written to the bot directly before; who has stopped the bot is not. Behind an
// update of a webxdc app nobody waits for words.
func (r *Runner) apologize(ctx context.Context, w Work, failed *runFailed, end *ending) {
	if failed == nil || !failed.message || w.Job.Sender == "" || w.Job.From == "" {
		return
	}
	notice := ledger.Notice{Contact: w.Job.Sender, About: "a failed run"}
	wanted, err := r.wantsWords(ctx, w, notice, end.consent != "")
	if err != nil || !wanted {
		r.warnUntold(w, err)
		return
	}
	mail, err := compose(w.Bot, end.state, end.selfKeys, w.Job.Sender, w.Job.From, sorry(failed.record), w.Job.MessageID)
	if err != nil || mail == nil {
		r.warnUntold(w, err)
		return
	}
	end.outgoing, end.notice = append(end.outgoing, *mail), &notice
}

func sorry(r bot.RunRecord) string {
	switch {
	case r.AtOnce > 0:
		return sorryPart
	case r.Status == bot.RunTimeout || r.OOMKilled:
		return sorryLimit
	case r.Status == bot.RunError && r.ExitCode == exitTempFail:
		return sorryLater
	}
	return sorryError
}

func (r *Runner) warnUntold(w Work, err error) {
	if err != nil {
		r.Log.Warn("the user could not be told that the bot failed", "bot", w.Bot.Address, "uid", w.Job.Cursor.UID, "err", err)
	}
}

// wantsWords reports whether a contact is to be told of something now.
func (r *Runner) wantsWords(ctx context.Context, w Work, n ledger.Notice, direct bool) (bool, error) {
	at, err := r.Ledger.Noticed(ctx, w.Bot.Address, n)
	if err != nil || time.Since(at) < apologizeEvery {
		return false, err
	}
	if !direct {
		return r.Ledger.Consents(ctx, w.Bot.Address, n.Contact)
	}
	stopped, err := r.Ledger.Stopped(ctx, w.Bot.Address, n.Contact, w.Job.From)
	return !stopped, err
}

// compose makes a mail of the host in the bot's name; nil where the contact's key is not known.
func compose(b ledger.Bot, state bot.AccountState, selfKeys [][]byte, to bot.Fingerprint, at bot.Address, text, inReplyTo string) (*minirelay.Outgoing, error) {
	state.SelfKeys = selfKeys
	keys, err := gate.NewKeys(b.Address, state)
	if err != nil {
		return nil, err
	}
	key := keys.PublicKey(to)
	if key == nil {
		return nil, nil
	}
	mail, id, err := voice.Compose(voice.Message{
		From: b.Address, Name: b.Manifest.Name, SelfKey: selfKeys[0], To: at, ToKey: key, Text: text, Date: time.Now(), InReplyTo: inReplyTo,
	})
	if err != nil {
		return nil, err
	}
	return &minirelay.Outgoing{From: b.Address, To: []bot.Address{at}, MessageID: id, Data: mail}, nil
}
