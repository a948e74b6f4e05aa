package session

import (
	"context"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/crash"
)

// occasion is what a bot is run for: a message that came, an update of a webxdc message that is there, or a schedule.
type occasion struct {
	schedule *Schedule // nil: a message or an update
	event    core.Event
	msg      core.Message
	sender   bot.Fingerprint // who signed the mail
	id       string          // the mail's Message-ID, without brackets
}

// What core calls a chat with one contact.
const single = "Single"

// messages runs the bot for what the mail turned out to be, if core says that it was a message or a webxdc update. Receipts,
// reactions, edits and the first half of a large message are neither, and the record is nil. A mail has one run at most: of
// a mail that core splits into several messages, which apps do not send, the bot sees the first. For a schedule it is run at once.
func (r *Runner) messages(ctx context.Context, c *coreSide, p *program, w Work) (*bot.RunRecord, error) {
	if err := c.client.StartIO(ctx, c.account); err != nil {
		return nil, err
	}
	if w.Schedule != nil {
		return p.run(ctx, c, occasion{schedule: w.Schedule}, w.Timeline)
	}
	return r.message(ctx, c, p, w, c.incoming)
}

// message runs the bot for a mail that is presented, of which next tells what core reports.
func (r *Runner) message(ctx context.Context, c *coreSide, p *program, w Work,
	next func(context.Context, time.Duration) (core.Event, bool, error)) (*bot.RunRecord, error) {
	for {
		e, ok, err := next(ctx, r.Limits.Incoming)
		if err != nil || !ok {
			return nil, err
		}
		w.Timeline.Mark(e.Kind)
		crash.At(crash.Told)
		o := occasion{event: e, sender: w.Job.Sender, id: w.Job.MessageID}
		if o.msg, err = c.client.GetMessage(ctx, c.account, e.MsgID); err != nil {
			return nil, err
		}
		wakes, err := c.wakes(ctx, o, w.Bot.Manifest)
		if err != nil {
			return nil, err
		}
		if !w.Message || !wakes {
			continue
		}
		if c.word, err = c.hostWord(ctx, o, w.Bot.Manifest); err != nil || c.word != "" {
			return nil, err
		}
		return p.run(ctx, c, o, w.Timeline)
	}
}

// wakes reports whether an occasion runs the bot. A message does if a person wrote it, or a bot where that is wanted,
// encrypted and signed, and if it is meant for the bot where it came in a group.
func (c *coreSide) wakes(ctx context.Context, o occasion, m bot.Manifest) (bool, error) {
	chat, err := c.client.BasicChat(ctx, c.account, o.msg.ChatID)
	if err != nil {
		return false, err
	}
	if o.event.Kind == core.WebxdcStatusUpdate {
		// Core does not say who sent an update. In a group it could be another bot, and two would never stop.
		return (m.Runtime == bot.RuntimeJS || m.Mode == bot.ModeResident) && o.msg.ShowPadlock && chat.Type == single, nil
	}
	if err := c.client.MarkSeen(ctx, c.account, o.msg.ID); err != nil {
		return false, err
	}
	if !o.msg.Authentic() || o.msg.IsInfo || o.msg.IsBot && !m.FromBots {
		return false, nil
	}
	if chat.Type == single {
		c.wrote = o.sender
		return true, nil
	}
	if !m.GroupPrivacy {
		return true, nil
	}
	return c.addressed(ctx, o.msg, m)
}

// addressed reports whether a message in a group is meant for the bot: one of its commands, a mention of its name, or an
// answer to a message of its own.
func (c *coreSide) addressed(ctx context.Context, msg core.Message, m bot.Manifest) (bool, error) {
	if m.Addresses(msg.Text) {
		return true, nil
	}
	if msg.Quote == nil || msg.Quote.MessageID == 0 {
		return false, nil
	}
	quoted, err := c.client.GetMessage(ctx, c.account, msg.Quote.MessageID)
	const self = 1
	return err == nil && quoted.FromID == self, err
}

// hostWord is the host's word that a message is, where only core could tell: that a /stop in a group answers a message of the bot's, or
// comes with a picture. It reaches no bot. A /start is one of a contact that has not stopped the bot.
func (c *coreSide) hostWord(ctx context.Context, o occasion, m bot.Manifest) (bot.Word, error) {
	word, named := m.HostWord(o.msg.Text)
	if o.event.Kind != core.IncomingMsg || o.sender == "" || word == "" || word == bot.WordStart {
		return "", nil
	}
	if c.wrote == "" && !named {
		if meant, err := c.addressed(ctx, o.msg, m); err != nil || !meant {
			return "", err
		}
	}
	return word, nil
}
