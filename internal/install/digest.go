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

// tellEvery is how often the author of a bot is told of what has failed.
const tellEvery = time.Hour

// Appender puts a mail into a folder of the account.
type Appender interface {
	Append(ctx context.Context, folder string, mail []byte) error
}

// Author writes to the author of a bot by chat, encrypted. It is nil where the bot knows no key of the manifest's contact, or where the
// author does not want to hear from it.
type Author interface {
	Letter(ctx context.Context, b ledger.Bot, text string) (*ledger.Outgoing, error)
}

// Tell sums up into Bot/Status, and by chat where it can, what has failed of a bot: its runs, and mails that the relay has refused for
// good; at most once an hour. That the bot has reached a limit it tells apart, at most once a day. It connects only if there is something
// to tell. It returns when to call again, zero for when more failed.
func (in *Installer) Tell(ctx context.Context, addr bot.Address, connect func(context.Context) (Appender, error)) (time.Time, error) {
	if err := in.tellOverrun(ctx, addr, connect); err != nil {
		return time.Time{}, err
	}
	failures, told, err := in.Ledger.Failures(ctx, addr)
	if err != nil || len(failures) == 0 {
		return time.Time{}, err
	}
	if due := told.Add(tellEvery); !told.IsZero() && due.After(in.Now()) {
		return due, nil
	}
	b, err := in.Ledger.Bot(ctx, addr)
	if err != nil {
		return time.Time{}, err
	}
	d := digestOf(failures)
	mail, err := d.compose(b, in.Now())
	if err != nil {
		return time.Time{}, err
	}
	c, err := connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if err := c.Append(ctx, StatusFolder, mail); err != nil {
		return time.Time{}, err
	}
	letters := in.letters(ctx, b, d.text(b))
	in.Log.Info("Bot folder: told of failures", "bot", addr, "reasons", len(failures), "by_chat", len(letters) > 0)
	return time.Time{}, in.Ledger.FailuresTold(ctx, addr, in.Now(), letters...)
}

// letters is what is told by chat. That it cannot be written holds nothing up: the answer in Bot/Status is there.
func (in *Installer) letters(ctx context.Context, b ledger.Bot, text string) []ledger.Outgoing {
	letter, err := in.Author.Letter(ctx, b, chatText(text))
	if err != nil {
		in.Log.Warn("the bot's author could not be told by chat", "bot", b.Address, "err", err)
	}
	if err != nil || letter == nil {
		return nil
	}
	return []ledger.Outgoing{*letter}
}

// digest is what has failed, by kind.
type digest struct {
	runs, mails, host, limits list
}

type list struct {
	failures    []ledger.Failure
	count       int
	first, last time.Time
}

func digestOf(failures []ledger.Failure) digest {
	var d digest
	for _, f := range failures {
		switch f.Kind {
		case ledger.FailedRun:
			d.runs.add(f)
		case ledger.FailedHost:
			d.host.add(f)
		case ledger.FailedLimit:
			d.limits.add(f)
		default:
			d.mails.add(f)
		}
	}
	return d
}

func (l *list) add(f ledger.Failure) {
	l.failures = append(l.failures, f)
	l.count += f.Count
	if l.first.IsZero() || f.First.Before(l.first) {
		l.first = f.First
	}
	if f.Last.After(l.last) {
		l.last = f.Last
	}
}

// state is what the mail is told to be about: the bot's own failures come first.
func (d digest) state() string {
	if d.runs.count+d.host.count > 0 {
		return Failed
	}
	if d.mails.count == 0 {
		return OverLimit
	}
	return Undelivered
}

func (d digest) subject(b ledger.Bot) string {
	var parts []string
	if d.runs.count > 0 {
		parts = append(parts, Failed+": "+count(d.runs.count, "run"))
	}
	if d.host.count > 0 {
		parts = append(parts, "set aside: "+count(d.host.count, "mail"))
	}
	if d.mails.count > 0 {
		parts = append(parts, Undelivered+": "+count(d.mails.count, "mail"))
	}
	if d.limits.count > 0 {
		parts = append(parts, OverLimit+": "+count(d.limits.count, "message"))
	}
	return strings.Join(parts, ", ") + " of " + title(b.Manifest)
}

func (d digest) compose(b ledger.Bot, now time.Time) ([]byte, error) {
	var h mail.Header
	own := []*mail.Address{{Name: "Mayfly", Address: string(b.Address)}}
	h.SetAddressList("From", own)
	h.SetAddressList("To", own)
	h.SetSubject(d.subject(b))
	h.SetDate(now)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d %d %d", b.Address, d.state(), micro(d.runs), micro(d.mails), micro(d.host), micro(d.limits)))
	h.SetMessageID(fmt.Sprintf("mayfly-%x@%s", sum[:16], strings.Trim(b.Address.Domain(), "[]")))
	h.Set("Auto-Submitted", "auto-generated")
	h.Set("Mayfly-State", d.state())
	return composeText(h, d.text(b))
}

func micro(l list) int64 {
	if l.count == 0 {
		return 0
	}
	return l.first.UnixMicro()
}

const onceAnHour = "You are told once an hour at most.\n"

func (d digest) text(b ledger.Bot) string {
	var text strings.Builder
	if d.runs.count > 0 {
		fmt.Fprintf(&text, "%s of %s failed, %s:\n\n", count(d.runs.count, "run"), title(b.Manifest), d.runs.between())
		d.runs.write(&text, "time")
		text.WriteString("\nNothing that such a run did counts. The person who wrote was told that the bot failed, once an hour at most.\n\n")
	}
	if d.host.count > 0 {
		fmt.Fprintf(&text, "%s to %s set aside, %s, since this host failed on it again and again:\n\n", count(d.host.count, "mail"), title(b.Manifest), d.host.between())
		d.host.write(&text, "mail")
		text.WriteString("\nIt stays in the INBOX. The host's operator can have it tried again.\n\n")
	}
	if d.mails.count > 0 {
		fmt.Fprintf(&text, "The relay has refused %s that %s wrote, %s:\n\n", count(d.mails.count, "mail"), title(b.Manifest), d.mails.between())
		d.mails.write(&text, "mail")
		text.WriteString("\nThat is final: they are not tried again for those whom the relay refused. What the bot writes from now on is sent as ever.\n\n")
	}
	if d.limits.count > 0 {
		fmt.Fprintf(&text, "%s of %s not sent, %s, over these limits:\n\n", count(d.limits.count, "message"), title(b.Manifest), d.limits.between())
		d.limits.write(&text, "message")
		text.WriteString("\nThey are not sent later. The bot was told where it asked for the error; all else that it wrote was sent.\n\n")
	}
	text.WriteString(onceAnHour)
	return text.String()
}

// maxChat bounds the text of a chat message, in bytes.
const maxChat = 4000

// chatText is a text as a message of the bot's.
func chatText(text string) string {
	const stop = "To get no more of these messages, write /stop.\n"
	if len(text) > maxChat {
		text = strings.ToValidUTF8(text[:maxChat], "") + "…\n\nThe whole list is in the account's folder " + StatusFolder + ".\n"
	}
	return text + stop
}

func (l list) between() string {
	const layout = "2006-01-02 15:04 MST"
	first, last := l.first.UTC().Format(layout), l.last.UTC().Format(layout)
	if first == last {
		return first
	}
	return first + " to " + last
}

func (l list) write(text *strings.Builder, what string) {
	for _, f := range l.failures {
		why := f.Why
		if why == "" {
			why = "for other reasons"
		}
		fmt.Fprintf(text, "%s: %s\n", count(f.Count, what), oneLine(why))
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// oneLine makes foreign words fit for a list.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
