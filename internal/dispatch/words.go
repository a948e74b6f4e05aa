package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/voice"
)

// The commands that the host answers, without starting core or bot.
const (
	wordStop  = "stop"
	wordStart = "start"
	wordAbout = "about"
)

// Each contact gets so many answers of the host's; what is more is deleted and counted.
const (
	wordsEvery = 20 * time.Second
	wordsBurst = 10
)

// hostWord is the host's command that a message is, or "". In a group it has to name the bot, as in /stop@Dice. An address from which a
// mail came counts only where the relay answers for it.
func hostWord(v gate.Verdict, name string) string {
	if v.Kind != gate.Message || v.Uncertain || !v.Plain || v.ByBot || v.Misplaced || v.From == "" || !strings.HasPrefix(v.Text, "/") {
		return ""
	}
	first, rest, _ := strings.Cut(v.Text[1:], "\n")
	if fields := strings.Fields(first); len(fields) > 0 {
		first, rest = fields[0], strings.Join(fields[1:], " ")+" "+rest
	}
	word, to, named := strings.Cut(strings.ToLower(first), "@")
	name = strings.ToLower(name)
	if named && to != name && !strings.HasPrefix(name, to+" ") {
		return ""
	}
	if v.Group && !named && !strings.Contains(strings.ToLower(rest), "@"+name) {
		return ""
	}
	switch word {
	case wordStop, wordStart, wordAbout:
		return word
	}
	return ""
}

// heed does what a host's command says, and deletes the message of a contact that has stopped the bot. It reports whether the mail is
// over. A /start of a contact that has not stopped the bot is left to the bot: it may have a welcome.
func (a *actor) heed(ctx context.Context, b ledger.Bot, cursor ledger.Cursor, v gate.Verdict, size int64) (over bool, err error) {
	if v.Kind != gate.Message || v.Sender == "" {
		return false, nil
	}
	from := v.From
	if v.Misplaced {
		from = ""
	}
	stopped, err := a.d.opts.Ledger.Stopped(ctx, a.account, v.Sender, from)
	if err != nil {
		return false, err
	}
	word := hostWord(v, b.Manifest.Name)
	if reason := idle(v, b.Manifest); word == "" && reason != "" {
		return true, a.refuse(cursor, reason, "nothing is started for it")
	}
	if word == "" || word == wordStart && !stopped {
		if !stopped || v.Group && !v.Plain {
			return false, nil
		}
		return true, a.refuse(cursor, "stopped", "the contact has stopped the bot")
	}
	if !a.mayAnswer(v.Sender) {
		return true, a.refuse(cursor, "commands", "too many commands of one contact")
	}
	answered, err := a.answer(ctx, b, cursor, v, word, size)
	return answered, err
}

// idle says why a message starts nothing, empty if it may: it is a text and nothing else, of a known sender, and no bot would be run for it.
// A text that begins with a quote may answer the bot: core knows.
func idle(v gate.Verdict, m bot.Manifest) string {
	switch {
	case !v.Plain || v.NewSender || v.Uncertain:
		return ""
	case v.ByBot:
		return "of a bot"
	case v.Group && m.GroupPrivacy && !v.Cut && !strings.HasPrefix(v.Text, ">") && !m.Addresses(v.Text):
		return "group privacy"
	}
	return ""
}

// mayAnswer takes one answer from what a contact may get.
func (a *actor) mayAnswer(to bot.Fingerprint) bool {
	if a.words == nil || len(a.words) >= maxSenders {
		a.words = map[bot.Fingerprint]*rate.Limiter{}
	}
	if a.words[to] == nil {
		a.words[to] = rate.NewLimiter(rate.Every(wordsEvery), wordsBurst)
	}
	return a.words[to].Allow()
}

// answer accepts the mail and finishes it in one transaction with what it changes and what the contact is told. Where the contact's key is
// not known, the change alone is made.
func (a *actor) answer(ctx context.Context, b ledger.Bot, cursor ledger.Cursor, v gate.Verdict, word string, size int64) (bool, error) {
	job, err := a.d.opts.Ledger.Accept(ctx, ledger.Job{
		Bot: a.account, Cursor: cursor, Kind: string(v.Kind), Sender: v.Sender, From: v.From, MessageID: v.MessageID, Size: size,
	})
	if err != nil {
		return false, err
	}
	out, err := a.say(b, v, wordText(b, word))
	if err != nil {
		a.log.Warn("a command of the host's could not be answered", "command", word, "err", err)
	}
	answer := ledger.Answer{Bot: a.account, Jobs: []int64{job.ID}, Outgoing: out, At: time.Now()}
	if word != wordAbout {
		answer.Word = &ledger.Word{Contact: v.Sender, Address: v.From, Stop: word == wordStop}
	}
	if err := a.d.opts.Ledger.Answer(ctx, answer); err != nil {
		return false, err // what the ledger does not name is deleted at the next start
	}
	a.log.Info("the host answered a command", "uid", cursor.UID, "command", word)
	if err := a.flush(ctx); err != nil {
		a.log.Warn("the answer waits in the outbox", "err", err)
	}
	return true, a.clear(ctx, job)
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
func wordText(b ledger.Bot, word string) string {
	m := b.Manifest
	switch word {
	case wordStop:
		return fmt.Sprintf("You have stopped %s. It sends you nothing any more, and what you write to it is deleted. Send /start to go on.", m.Name)
	case wordStart:
		return fmt.Sprintf("%s may write to you again.", m.Name)
	}
	lines := []string{m.Name + " " + m.Version, m.Summary, "By: " + m.Contact}
	if m.SourceCodeURL != "" {
		lines = append(lines, "Source: "+m.SourceCodeURL)
	}
	lines = append(lines, "Hosted by Mayfly on "+b.Address.Domain(), "Send /stop to hear nothing from it any more.")
	return strings.Join(lines, "\n")
}
