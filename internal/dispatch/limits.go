package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
	"mayfly/internal/voice"
)

// Limits are the operator's; they hold whatever a manifest says. What is 0 is not bounded.
//
// They are counted in the ledger, in windows that slide, and so hold over restarts. A contact is known by its key and by its address;
// the stricter holds. What a contact may is checked when the gate knows who signed, and so is what the bot may.
type Limits struct {
	PerUser      bot.PerUser   // ceilings of what manifests grant
	CPUPerHour   time.Duration // of one bot's own program
	CPUPerDay    time.Duration
	MailsPerHour int   // that one bot takes
	BytesPerHour int64 // of one bot, received and sent
	Sending      bot.Sending
}

// leastCPU is what must be left of a bot's CPU time for a run to begin.
const leastCPU = 500 * time.Millisecond

// within says what has to wait, or is dropped, because a contact, the bot or the host has reached a limit. A job was within them when it
// was accepted, but for the CPU time. It returns the CPU time that a run may take; 0 is no bound.
func (a *actor) within(ctx context.Context, b ledger.Bot, v gate.Verdict, size int64, fresh bool) (cpu time.Duration, dropped bool, err error) {
	if err := a.d.opts.HostCPU.Room(ctx); err != nil {
		return 0, false, err
	}
	if v.Kind == gate.Message {
		if cpu, err = a.cpuLeft(ctx, b.Manifest); err != nil {
			return 0, false, err
		}
	}
	if !fresh || v.Kind == gate.Own {
		return cpu, false, nil
	}
	if err := a.botWithin(ctx, b.Manifest, size); err != nil {
		return 0, false, err
	}
	dropped, err = a.contactWithin(ctx, b, v, size)
	return cpu, dropped, err
}

// worded is a limit, and in words.
type worded struct {
	limit ledger.Limit
	words string
}

func bare(all []worded) []ledger.Limit {
	var limits []ledger.Limit
	for _, l := range all {
		limits = append(limits, l.limit)
	}
	return limits
}

// ofBot are the limits of a bot; where Most is 0 there is none.
func (l Limits) ofBot(m bot.Manifest) []worded {
	sending := m.Sending.Within(l.Sending)
	cpu := func(span, most time.Duration) worded {
		return worded{
			ledger.Limit{Resource: ledger.CPU, Span: span, Most: most.Microseconds(), Need: leastCPU.Microseconds()},
			fmt.Sprintf("%s of CPU time %s", most, per(span)),
		}
	}
	all := []worded{
		cpu(time.Hour, l.CPUPerHour), cpu(24*time.Hour, l.CPUPerDay),
		{ledger.Limit{Resource: ledger.Mails, Span: time.Hour, Most: int64(l.MailsPerHour)}, fmt.Sprintf("%d mails taken an hour", l.MailsPerHour)},
		{ledger.Limit{Resource: ledger.Sent, Span: time.Hour, Most: int64(sending.Mails)}, fmt.Sprintf("%d mails sent an hour", sending.Mails)},
		{ledger.Limit{Resource: ledger.SentBytes, Span: time.Hour, Most: sending.Bytes}, bot.FormatSize(sending.Bytes) + " sent an hour"},
		{ledger.Limit{Resource: ledger.Bytes, Span: time.Hour, Most: l.BytesPerHour}, bot.FormatSize(l.BytesPerHour) + " an hour"},
	}
	for i := range all {
		all[i].limit.Subject = ledger.WholeBot
	}
	return all
}

// Over returns what a bot has used up, in words, and when there is room again; "" where there is room for a mail now.
func (l Limits) Over(ctx context.Context, in HostLedger, b ledger.Bot) (what string, until time.Time, err error) {
	for _, w := range l.ofBot(b.Manifest) {
		if w.limit.Most <= 0 {
			continue
		}
		e, err := in.Exceeds(ctx, b.Address, w.limit)
		if err != nil {
			return "", time.Time{}, err
		}
		if e != nil && e.Until.After(until) {
			what, until = w.words, e.Until
		}
	}
	return what, until, nil
}

// cpuLeft is what the bot may still use, or an *overBudget.
func (a *actor) cpuLeft(ctx context.Context, m bot.Manifest) (left time.Duration, err error) {
	for _, l := range a.d.opts.Limits.ofBot(m) {
		if l.limit.Resource != ledger.CPU || l.limit.Most <= 0 {
			continue
		}
		used, err := a.d.opts.Ledger.Used(ctx, a.account, ledger.WholeBot, ledger.CPU, l.limit.Span)
		if err != nil {
			return 0, err
		}
		if rest := time.Duration(l.limit.Most-used) * time.Microsecond; left == 0 || rest < left {
			left = rest
		}
		if err := a.botLimits(ctx, l); err != nil {
			return 0, err
		}
	}
	return left, nil
}

// botWithin is an *overBudget where the bot has taken or sent too much.
func (a *actor) botWithin(ctx context.Context, m bot.Manifest, size int64) error {
	for _, l := range a.d.opts.Limits.ofBot(m) {
		if l.limit.Resource == ledger.CPU {
			continue
		}
		if l.limit.Resource == ledger.Bytes {
			l.limit.Need = size
		}
		if err := a.botLimits(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// botLimits lets mail wait where a limit of the bot's has no room. Its author is told once a day.
func (a *actor) botLimits(ctx context.Context, l worded) error {
	if l.limit.Most <= 0 {
		return nil
	}
	e, err := a.d.opts.Ledger.Exceeds(ctx, a.account, l.limit)
	if err != nil || e == nil {
		return err
	}
	if err := a.d.opts.Ledger.Overran(ctx, a.account, l.words, time.Now()); err != nil {
		return err
	}
	return &overBudget{need: need{whose: "bot: " + l.words}, until: e.Until}
}

// granted is what a contact may cause: what the manifest says, and never more than the operator grants.
func (l Limits) granted(m bot.PerUser) bot.PerUser {
	m.MailsPerHour = int(stricter(int64(m.MailsPerHour), int64(l.PerUser.MailsPerHour)))
	m.MailsPerDay = int(stricter(int64(m.MailsPerDay), int64(l.PerUser.MailsPerDay)))
	m.SecondsPerHour = int(stricter(int64(m.SecondsPerHour), int64(l.PerUser.SecondsPerHour)))
	m.BytesPerHour = stricter(m.BytesPerHour, l.PerUser.BytesPerHour)
	return m
}

// stricter is the lower of two limits, of which 0 is none.
func stricter(a, b int64) int64 {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// contactLimits are those of whoever sent a mail.
func contactLimits(subjects []ledger.Subject, p bot.PerUser, size int64) []worded {
	var limits []worded
	for _, s := range subjects {
		for _, l := range []worded{
			{ledger.Limit{Resource: ledger.Mails, Span: time.Hour, Most: int64(p.MailsPerHour)}, fmt.Sprintf("%d messages an hour", p.MailsPerHour)},
			{ledger.Limit{Resource: ledger.Mails, Span: 24 * time.Hour, Most: int64(p.MailsPerDay)}, fmt.Sprintf("%d messages a day", p.MailsPerDay)},
			{ledger.Limit{Resource: ledger.Wall, Span: time.Hour, Most: int64(p.SecondsPerHour) * 1e6}, fmt.Sprintf("%d seconds of work an hour", p.SecondsPerHour)},
			{ledger.Limit{Resource: ledger.Bytes, Span: time.Hour, Most: p.BytesPerHour, Need: size}, bot.FormatSize(p.BytesPerHour) + " an hour"},
		} {
			l.limit.Subject = s
			if l.limit.Most > 0 {
				limits = append(limits, l)
			}
		}
	}
	return limits
}

// toContact are the limits of what a bot sends to an address. Who got all of it cannot be answered: what it writes waits.
func toContact(to bot.Address, s bot.Sending) []worded {
	var limits []worded
	for _, l := range []worded{
		{ledger.Limit{Resource: ledger.Sent, Most: int64(s.MailsPerContact)}, fmt.Sprintf("%d messages to you an hour", s.MailsPerContact)},
		{ledger.Limit{Resource: ledger.SentBytes, Most: s.BytesPerContact}, bot.FormatSize(s.BytesPerContact) + " sent to you an hour"},
	} {
		l.limit.Subject, l.limit.Span = ledger.ByRecipient(to), time.Hour
		if l.limit.Most > 0 {
			limits = append(limits, l)
		}
	}
	return limits
}

// ofContact are the limits of whoever sent a mail: of what that contact causes, and of what it gets.
func (l Limits) ofContact(m bot.Manifest, v gate.Verdict, size int64) []worded {
	limits := contactLimits(contactOf(v.Sender, v.From), l.granted(m.PerUser), size)
	if v.From != "" {
		limits = append(limits, toContact(v.From, m.Sending.Within(l.Sending))...)
	}
	return limits
}

// contactWithin lets the mail of a contact wait that has reached a limit, or reports that it is to be dropped. The contact is told.
func (a *actor) contactWithin(ctx context.Context, b ledger.Bot, v gate.Verdict, size int64) (dropped bool, err error) {
	if v.Sender == "" {
		return false, nil // nobody signed: an invitation, whose sessions are bounded by Budgets
	}
	subjects := contactOf(v.Sender, v.From)
	granted := a.d.opts.Limits.granted(b.Manifest.PerUser)
	limits := a.d.opts.Limits.ofContact(b.Manifest, v, size)
	over, err := a.contactOver(ctx, subjects, limits)
	switch {
	case err != nil || over == nil:
		return false, err
	case !over.limit:
		return false, over
	}
	if v.Kind == gate.Message {
		if err := a.notice(ctx, b, v, subjects, noticeText(granted, b.Manifest.Name, over.whose, over.until)); err != nil {
			a.log.Warn("a contact could not be told of a limit", "err", err)
		}
	}
	if granted.Drop {
		return true, nil
	}
	return false, over
}

// contactOf are the subjects that stand for whoever sent a mail.
func contactOf(sender bot.Fingerprint, from bot.Address) []ledger.Subject {
	var subjects []ledger.Subject
	if sender != "" {
		subjects = append(subjects, ledger.ByKey(sender))
	}
	if from != "" {
		subjects = append(subjects, ledger.ByAddress(from))
	}
	return subjects
}

// contactOver says which limit of a contact has no room, or that earlier mail waits for one. nil: neither.
func (a *actor) contactOver(ctx context.Context, subjects []ledger.Subject, limits []worded) (*overBudget, error) {
	if over := a.waitlist.of(subjects); over != nil {
		return &overBudget{need: over.need, until: over.until, contact: subjects, limit: over.limit}, nil
	}
	e, err := a.d.opts.Ledger.Exceeds(ctx, a.account, bare(limits)...)
	if err != nil || e == nil {
		return nil, err
	}
	i := slices.IndexFunc(limits, func(l worded) bool { return l.limit == e.Limit })
	return &overBudget{need: need{whose: limits[i].words}, until: e.Until, contact: subjects, limit: true}, nil
}

// noticeText is what a contact is told.
func noticeText(p bot.PerUser, name, limit string, until time.Time) string {
	when := clockTime(until)
	if p.Notice != "" {
		return strings.NewReplacer("{limit}", limit, "{until}", when).Replace(p.Notice)
	}
	text := fmt.Sprintf("You have reached a limit of %s: %s. ", name, limit)
	if p.Drop {
		return text + fmt.Sprintf("What you write before %s is not answered.", when)
	}
	return text + fmt.Sprintf("What you write is kept, and answered after %s.", when)
}

// clockTime is a time in words: rounded up, and with the day where it is another one.
func clockTime(t time.Time) string {
	at := t.UTC().Add(time.Minute - time.Nanosecond).Truncate(time.Minute)
	if now := time.Now().UTC(); at.YearDay() != now.YearDay() {
		return at.Format("2006-01-02 15:04 UTC")
	}
	return at.Format("15:04 UTC")
}

// notice tells a contact of a limit, once an hour at most. Only those hear it who have
// written to the bot directly and have not stopped it, not whoever writes much in a group.
func (a *actor) notice(ctx context.Context, b ledger.Bot, v gate.Verdict, to []ledger.Subject, text string) error {
	may, err := a.d.opts.Ledger.MayNoticeLimit(ctx, a.account, to...)
	if err != nil || !may {
		return err
	}
	if wrote, err := a.d.opts.Ledger.Consents(ctx, a.account, v.Sender); err != nil || !wrote {
		return err
	}
	keys, err := a.keys(b)
	if err != nil {
		return err
	}
	secret, err := a.d.opts.Keys.Keys(a.account)
	if err != nil {
		return err
	}
	theirs := keys.PublicKey(v.Sender)
	if theirs == nil || v.From == "" || len(secret) == 0 {
		return nil
	}
	mail, id, err := voice.Compose(voice.Message{
		From: a.account, Name: b.Manifest.Name, SelfKey: secret[0], To: v.From, ToKey: theirs, Text: text, Date: time.Now(),
	})
	if err != nil {
		return err
	}
	path, err := a.d.opts.Outbox.Stage(mail)
	if err != nil {
		return err
	}
	told, err := a.d.opts.Ledger.NoticeLimit(ctx, ledger.Answer{Bot: a.account, At: time.Now(), Outgoing: []ledger.Outgoing{
		{From: a.account, To: []bot.Address{v.From}, MessageID: id, Path: path, Size: int64(len(mail))},
	}}, to...)
	if err == nil && !told {
		return a.d.opts.Outbox.Discard(path)
	}
	return err // what the ledger does not name is deleted at the next start
}

func per(span time.Duration) string {
	if span == time.Hour {
		return "an hour"
	}
	return "a day"
}
