package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/voice"
)

// Each contact, by its key and by its address, gets so many answers of the host's, and all contacts of a bot together so many: what is
// more is deleted and counted, but for what /stop and /start change.
const (
	wordsEvery    = 20 * time.Second
	wordsBurst    = 10
	allWordsEvery = time.Second
	allWordsBurst = 120
)

// hostWord is the host's command that a message is, or "". In a group it has to name the bot, as in /stop@Dice. An address from which a
// mail came counts only where the relay answers for it.
func hostWord(v gate.Verdict, m bot.Manifest) bot.Word {
	if v.Kind != gate.Message || v.Uncertain || !v.Plain || v.ByBot || v.Misplaced || v.From == "" {
		return ""
	}
	word, named := m.HostWord(v.Text)
	if v.Group && !named {
		return ""
	}
	return word
}

// stopped reports whether who wrote has stopped the bot.
func (a *actor) stopped(ctx context.Context, v gate.Verdict) (bool, error) {
	from := v.From
	if v.Misplaced {
		from = ""
	}
	return a.d.opts.Ledger.Stopped(ctx, a.account, v.Sender, from)
}

// heed does what a host's command says, and deletes the message of a contact that has stopped the bot. It reports whether the mail is
// over, and whether its sender has stopped the bot. A /start of a contact that has not is left to the bot: it may have a welcome.
func (a *actor) heed(ctx context.Context, b ledger.Bot, job ledger.Job, v gate.Verdict) (over, stopped bool, err error) {
	if v.Kind != gate.Message || v.Sender == "" {
		return false, false, nil
	}
	if stopped, err = a.stopped(ctx, v); err != nil {
		return false, stopped, err
	}
	if word := hostWord(v, b.Manifest); word != "" && (word != bot.WordStart || stopped) {
		over, err = a.obey(ctx, b, job, v, word)
		return over, stopped && word != bot.WordStart, err
	}
	if reason := idle(v, b.Manifest); reason != "" {
		return true, stopped, a.drop(ctx, job, reason, "nothing is started for it")
	}
	if stopped && (!v.Group || v.Plain) {
		return true, stopped, a.drop(ctx, job, "stopped", "the contact has stopped the bot")
	}
	return false, stopped, nil
}

// drop refuses a mail for which nothing is started. A job that was to be tried again is over, and its record says why.
func (a *actor) drop(ctx context.Context, job ledger.Job, reason, detail string) error {
	if job.ID == 0 {
		return a.refuse(job.Cursor, reason, detail)
	}
	a.log.Info("a run is not tried again", "uid", job.Cursor.UID, "reason", reason)
	if err := a.d.opts.Ledger.Abandon(ctx, job.ID, "not tried again: "+detail); err != nil {
		return err
	}
	return a.clear(ctx, job)
}

// idle says why a message starts nothing, empty if it may: it is a text and nothing else, of a known sender, and no bot would be run for it.
// A text that begins with a quote may answer the bot: core knows.
func idle(v gate.Verdict, m bot.Manifest) string {
	switch {
	case !v.Plain || v.NewSender || v.Uncertain:
		return ""
	case v.ByBot && !m.FromBots:
		return "of a bot"
	case v.Group && m.GroupPrivacy && !v.Cut && !strings.HasPrefix(v.Text, ">") && !m.Addresses(v.Text):
		return "group privacy"
	}
	return ""
}

// mayAnswer takes one answer from what a contact, and all of them, may get.
func (a *actor) mayAnswer(v gate.Verdict) bool {
	if a.words == nil || len(a.words) >= maxSenders {
		a.words = map[ledger.Subject]*rate.Limiter{ledger.WholeBot: rate.NewLimiter(rate.Every(allWordsEvery), allWordsBurst)}
	}
	needs := []need{{"commands", a.words[ledger.WholeBot], 1}}
	for _, s := range contactOf(v.Sender, v.From) {
		if a.words[s] == nil {
			a.words[s] = rate.NewLimiter(rate.Every(wordsEvery), wordsBurst)
		}
		needs = append(needs, need{"commands", a.words[s], 1})
	}
	if slices.ContainsFunc(needs, func(n need) bool { return n.wait() > 0 }) {
		return false
	}
	for _, n := range needs {
		n.take()
	}
	return true
}

// obey accepts the mail and finishes it in one transaction with what it changes and what the contact is told. Where the contact's key is
// not known, or it was told much already, the change alone is made. A /start goes on to a bot whose commands have it.
func (a *actor) obey(ctx context.Context, b ledger.Bot, job ledger.Job, v gate.Verdict, word bot.Word) (over bool, err error) {
	answer := ledger.Answer{Bot: a.account, At: time.Now()}
	if word == bot.WordStop || word == bot.WordStart {
		answer.Word = &ledger.Word{Contact: v.Sender, Address: v.From, Stop: word == bot.WordStop}
	}
	told := a.mayAnswer(v)
	if !told && answer.Word == nil {
		return true, a.drop(ctx, job, "commands", "too many commands of one contact")
	}
	var text string
	if told {
		if text, err = a.wordText(ctx, b, v, word); err != nil {
			return false, err
		}
	}
	onward := word == bot.WordStart && b.Manifest.Declares(word)
	if !onward {
		if job, err = a.d.opts.Ledger.Accept(ctx, job); err != nil {
			return false, err
		}
		answer.Jobs = []int64{job.ID}
	}
	if told {
		if answer.Outgoing, err = a.say(b, v, text); err != nil {
			a.log.Warn("a command of the host's could not be answered", "command", word, "err", err)
		}
	}
	if err := a.d.opts.Ledger.Answer(ctx, answer); err != nil {
		return false, err // what the ledger does not name is deleted at the next start
	}
	a.log.Info("the host answered a command", "uid", job.Cursor.UID, "command", word)
	if word == bot.WordStop && a.waitlist.release(contactOf(v.Sender, v.From), v.From) {
		a.waiting = time.Millisecond // what waits of the contact is to be deleted
	}
	if err := a.flush(ctx); err != nil {
		a.log.Warn("the answer waits in the outbox", "err", err)
	}
	if onward {
		return false, nil
	}
	return true, a.clear(ctx, job)
}

// answerLate answers a word that only a session could tell from a message. What it changes was committed with the session; that it cannot
// be answered is not tried again.
func (a *actor) answerLate(ctx context.Context, job ledger.Job, word bot.Word) {
	if word == bot.WordStop && a.waitlist.release(contactOf(job.Sender, job.From), job.From) {
		a.waiting = time.Millisecond
	}
	v := gate.Verdict{Kind: gate.Message, Sender: job.Sender, From: job.From, Group: true} // it may be of one, and the answer is private
	if !a.mayAnswer(v) {
		return
	}
	b, err := a.d.opts.Ledger.Bot(ctx, a.account) // with the key that the session has learned
	var text string
	if err == nil {
		text, err = a.wordText(ctx, b, v, word)
	}
	answer := ledger.Answer{Bot: a.account, At: time.Now()}
	if err == nil {
		answer.Outgoing, err = a.say(b, v, text)
	}
	if err == nil {
		err = a.d.opts.Ledger.Answer(ctx, answer)
	}
	if err != nil {
		a.log.Warn("a command of the host's could not be answered", "command", word, "err", err)
	}
}

// say composes and stages a text to who wrote, in private.
func (a *actor) say(b ledger.Bot, v gate.Verdict, text string) ([]ledger.Outgoing, error) {
	keys, err := a.keys(b)
	if err != nil {
		return nil, err
	}
	secret, err := a.d.opts.Keys.Keys(a.account)
	if err != nil {
		return nil, err
	}
	theirs := v.SenderKey
	if theirs == nil {
		theirs = keys.PublicKey(v.Sender)
	}
	if theirs == nil || len(secret) == 0 {
		return nil, errors.New("there is no key to encrypt to, or none to sign with")
	}
	m := voice.Message{From: a.account, Name: b.Manifest.Name, SelfKey: secret[0], To: v.From, ToKey: theirs, Text: text, Date: time.Now()}
	if !v.Group {
		m.InReplyTo = v.MessageID
	}
	mail, id, err := voice.Compose(m)
	if err != nil {
		return nil, err
	}
	path, err := a.d.opts.Outbox.Stage(mail)
	if err != nil {
		return nil, err
	}
	return []ledger.Outgoing{{From: a.account, To: []bot.Address{v.From}, MessageID: id, Path: path, Size: int64(len(mail))}}, nil
}

// wordText is what the host answers.
func (a *actor) wordText(ctx context.Context, b ledger.Bot, v gate.Verdict, word bot.Word) (string, error) {
	switch m := b.Manifest; word {
	case bot.WordStop:
		return fmt.Sprintf("You have stopped %s. It sends you nothing any more, and what you write to it is deleted. Send /start to go on.", m.Name), nil
	case bot.WordStart:
		return fmt.Sprintf("%s may write to you again.", m.Name), nil
	case bot.WordUsage:
		return a.usageText(ctx, b, v)
	case bot.WordHelp:
		return helpText(m), nil
	}
	return aboutText(b), nil
}

func aboutText(b ledger.Bot) string {
	m := b.Manifest
	lines := []string{m.Name + " " + m.Version, m.Summary, "By: " + m.Contact}
	if m.SourceCodeURL != "" {
		lines = append(lines, "Source: "+m.SourceCodeURL)
	}
	lines = append(lines, "Hosted by Mayfly on "+b.Address.Domain(), "Send /stop to hear nothing from it any more, /help for what it understands.")
	return strings.Join(lines, "\n")
}

// helpText lists the bot's commands and then the host's, which every bot has.
func helpText(m bot.Manifest) string {
	lines := []string{m.Name}
	if m.Summary != "" {
		lines = append(lines, m.Summary)
	}
	lines = append(lines, "")
	for _, c := range m.Commands {
		lines = append(lines, strings.TrimSuffix("/"+c.Name+" – "+c.Description, " – "))
	}
	return strings.Join(append(lines,
		"/about – who made this bot, and where it runs",
		"/usage – what you have used of it, and what you may",
		"/stop – hear nothing from it any more; /start to go on",
	), "\n")
}
