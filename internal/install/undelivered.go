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

// tellEvery is how often the author of a bot is told of mail that was given up.
const tellEvery = time.Hour

// Appender puts a mail into a folder of the account.
type Appender interface {
	Append(ctx context.Context, folder string, mail []byte) error
}

// Tell answers into Bot/Status which mails of the bot the relay has refused for good, at most once an hour. It connects only if
// there is something to tell. It returns when to call again, zero for when more was given up.
func (in *Installer) Tell(ctx context.Context, addr bot.Address, connect func(context.Context) (Appender, error)) (time.Time, error) {
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
	mail, err := composeUndelivered(b, failures, in.Now())
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
	in.Log.Info("Bot folder: told of mail that was given up", "bot", addr, "reasons", len(failures))
	return time.Time{}, in.Ledger.FailuresTold(ctx, addr, in.Now())
}

func composeUndelivered(b ledger.Bot, failures []ledger.Failure, now time.Time) ([]byte, error) {
	count, since := 0, now
	for _, f := range failures {
		count += f.Count
		if f.First.Before(since) {
			since = f.First
		}
	}
	var h mail.Header
	own := []*mail.Address{{Name: "Mayfly", Address: string(b.Address)}}
	h.SetAddressList("From", own)
	h.SetAddressList("To", own)
	h.SetSubject(Undelivered + ": " + mails(count) + " of " + title(b.Manifest))
	h.SetDate(now)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s undelivered %d", b.Address, since.UnixMicro()))
	h.SetMessageID(fmt.Sprintf("mayfly-%x@%s", sum[:16], strings.Trim(b.Address.Domain(), "[]")))
	h.Set("Auto-Submitted", "auto-generated")
	h.Set("Mayfly-State", Undelivered)
	return composeText(h, undeliveredText(b, failures, count, since))
}

func undeliveredText(b ledger.Bot, failures []ledger.Failure, count int, since time.Time) string {
	var text strings.Builder
	fmt.Fprintf(&text, "The relay has refused %s that %s wrote, since %s:\n\n", mails(count), title(b.Manifest), since.UTC().Format("2006-01-02 15:04 MST"))
	for _, f := range failures {
		why := f.Why
		if why == "" {
			why = "for other reasons"
		}
		fmt.Fprintf(&text, "%s: %s\n", mails(f.Count), oneLine(why))
	}
	text.WriteString("\nThat is final: they are not tried again for those whom the relay refused. What the bot writes from now on is sent as ever. " +
		"You are told of this once an hour at most.\n")
	return text.String()
}

func mails(n int) string {
	if n == 1 {
		return "1 mail"
	}
	return fmt.Sprintf("%d mails", n)
}

// oneLine makes foreign words fit for a list.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
