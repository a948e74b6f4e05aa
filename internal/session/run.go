package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"mayfly/internal/bot"
	"mayfly/internal/core"
	"mayfly/internal/gateway"
)

// occasion is what a bot is run for: a message that came, or an update of a webxdc message that is there.
type occasion struct {
	event  core.Event
	msg    core.Message
	sender bot.Fingerprint // who signed the mail
}

// What core calls a chat with one contact.
const single = "Single"

// messages runs the bot for what the mail turned out to be, if core says that it was a message or a webxdc update. Receipts,
// reactions, edits and the first half of a large message are neither, and the record is nil. A session has one run at most: of
// a mail that core splits into several messages, which apps do not send, the bot sees the first.
func (r *Runner) messages(ctx context.Context, c *coreSide, p *program, w Work) (*bot.RunRecord, error) {
	if err := c.client.StartIO(ctx, c.account); err != nil {
		return nil, err
	}
	for {
		e, ok, err := c.incoming(ctx, r.Limits.Incoming)
		if err != nil || !ok {
			return nil, err
		}
		w.Timeline.Mark(e.Kind)
		o := occasion{event: e, sender: w.Job.Sender}
		if o.msg, err = c.client.GetMessage(ctx, c.account, e.MsgID); err != nil {
			return nil, err
		}
		wakes, err := c.wakes(ctx, o, w.Bot.Manifest)
		if err != nil {
			return nil, err
		}
		if w.Message && wakes {
			return p.run(ctx, c, o, w.Timeline)
		}
	}
}

// wakes reports whether an occasion runs the bot. A message does if a person wrote it, encrypted and signed, and if it is
// meant for the bot where it came in a group.
func (c *coreSide) wakes(ctx context.Context, o occasion, m bot.Manifest) (bool, error) {
	chat, err := c.client.BasicChat(ctx, c.account, o.msg.ChatID)
	if err != nil {
		return false, err
	}
	if o.event.Kind == core.WebxdcStatusUpdate {
		// Core does not say who sent an update. In a group it could be another bot, and two would never stop.
		return o.msg.ShowPadlock && chat.Type == single, nil
	}
	if err := c.client.MarkSeen(ctx, c.account, o.msg.ID); err != nil {
		return false, err
	}
	if !o.msg.Authentic() || o.msg.IsInfo || o.msg.IsBot {
		return false, nil
	}
	if chat.Type == single || !m.GroupPrivacy {
		return true, nil
	}
	return c.addressed(ctx, o.msg, m)
}

// addressed reports whether a message in a group is meant for the bot: one of its commands, a mention of its name, or an
// answer to a message of its own.
func (c *coreSide) addressed(ctx context.Context, msg core.Message, m bot.Manifest) (bool, error) {
	if command, ok := strings.CutPrefix(msg.Text, "/"); ok {
		name, _, _ := strings.Cut(firstWord(command), "@")
		for _, known := range m.Commands {
			if strings.EqualFold(name, known.Name) {
				return true, nil
			}
		}
	}
	if strings.Contains(strings.ToLower(msg.Text), "@"+strings.ToLower(m.Name)) {
		return true, nil
	}
	if msg.Quote == nil || msg.Quote.MessageID == 0 {
		return false, nil
	}
	quoted, err := c.client.GetMessage(ctx, c.account, msg.Quote.MessageID)
	const self = 1
	return err == nil && quoted.FromID == self, err
}

func firstWord(s string) string {
	if i := strings.IndexFunc(s, unicode.IsSpace); i >= 0 {
		return s[:i]
	}
	return s
}

// run hands the occasion to the waiting worker and sees the run through. A run that does not count is a *runFailed.
func (p *program) run(ctx context.Context, c *coreSide, o occasion, timeline *Timeline) (*bot.RunRecord, error) {
	<-p.opened
	if p.err != nil {
		return nil, host(fmt.Errorf("the bot's sandbox: %w", p.err))
	}
	started, session := time.Now(), ctx
	ctx, cancel := context.WithTimeout(ctx, p.bot.Manifest.Limits.Wall+time.Second)
	defer cancel()
	verdict := &verdict{timeline: timeline}
	files := &files{core: c.box, bot: p.box, shown: map[string]string{}}
	g := gateway.New(gateway.Options{
		Core: c.client, Files: files, Account: uint32(c.account), Chats: []uint32{uint32(o.msg.ChatID)},
		CorePaths: c.corePaths(), Limits: gateway.DefaultLimits(), Notify: verdict.notify,
	})
	job, err := p.job(ctx, g, files, o)
	if err != nil {
		return nil, err
	}
	stdin := p.box.Program("worker").Stdin
	if _, err := stdin.Write(append(job, '\n')); err != nil {
		return nil, fmt.Errorf("the worker took no job: %w", err)
	}
	serveErr := make(chan error, 1)
	go func() {
		err := g.Serve(ctx, p.lines, stdin)
		if err != nil { // the bot broke the protocol: there is nothing more to wait for
			cancel()
		}
		serveErr <- err
	}()
	exit, waitErr := p.box.Wait(ctx, "worker")
	if waitErr != nil {
		waitErr = errors.Join(waitErr, p.box.Kill())
	}
	served := <-serveErr
	timeline.Mark("handler done")
	if session.Err() != nil {
		return nil, context.Cause(session)
	}
	select {
	case <-c.client.Done():
		return nil, errors.New("core ended during the run")
	default:
	}
	record, err := p.judge(ctx, verdict, exit, errors.Join(waitErr, served))
	if err != nil {
		return nil, err
	}
	record.Wall = time.Since(started)
	if record.Status != bot.RunOK {
		return nil, &runFailed{record}
	}
	return &record, nil
}

// job is the line that the worker waits for; package worker describes it.
func (p *program) job(ctx context.Context, g *gateway.Gateway, f *files, o occasion) ([]byte, error) {
	m := p.bot.Manifest
	job := map[string]any{
		"event": "message", "main": m.Main, "account": g.Account(),
		"bot":         map[string]string{"name": m.Name, "address": string(p.bot.Address), "version": m.Version},
		"deadline_ms": m.Limits.Wall.Milliseconds(), "heap": heap(m.Limits.Memory),
	}
	var err error
	if job["message"], err = g.Read(ctx, "get_message", o.msg.ID); err != nil {
		return nil, err
	}
	if job["chat"], err = g.Read(ctx, "get_basic_chat_info", o.msg.ChatID); err != nil {
		return nil, err
	}
	if o.event.Kind == core.WebxdcStatusUpdate {
		job["event"] = "webxdc"
		job["update"], err = update(ctx, g, o)
	} else {
		err = p.addMessage(ctx, g, f, o, job)
	}
	if err != nil {
		return nil, err
	}
	if err := p.box.Seal(attachmentsDir); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"job": job})
}

// addMessage adds what only a message has: its sender and its attachment.
func (p *program) addMessage(ctx context.Context, g *gateway.Gateway, f *files, o occasion, job map[string]any) error {
	attachment, err := f.attachment(o.msg)
	if err != nil {
		return err
	}
	raw, err := g.Read(ctx, "get_contact", o.msg.FromID)
	if err != nil {
		return err
	}
	contact := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &contact); err != nil {
		return fmt.Errorf("core's contact: %w", err)
	}
	if o.sender != "" {
		if contact["fingerprint"], err = json.Marshal(o.sender); err != nil {
			return err
		}
	}
	job["attachment"], job["contact"] = attachment, contact
	return nil
}

// update reads the webxdc update that the event tells of, with the id of the message that it belongs to.
func update(ctx context.Context, g *gateway.Gateway, o occasion) (any, error) {
	raw, err := g.Read(ctx, "get_webxdc_status_updates", o.msg.ID, o.event.Serial-1)
	if err != nil {
		return nil, err
	}
	var text string // core answers with JSON in a string
	var updates []map[string]json.RawMessage
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("core's webxdc updates: %w", err)
	}
	if err := json.Unmarshal([]byte(text), &updates); err != nil {
		return nil, fmt.Errorf("core's webxdc updates: %w", err)
	}
	if len(updates) == 0 {
		return nil, fmt.Errorf("core has no webxdc update %d", o.event.Serial)
	}
	if updates[0]["msgId"], err = json.Marshal(o.msg.ID); err != nil {
		return nil, err
	}
	return updates[0], nil
}
