package dispatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
)

// usageText says what a contact has used of a bot and may use, what the bot may, and when there is more.
func (a *actor) usageText(ctx context.Context, b ledger.Bot, v gate.Verdict) (string, error) {
	granted := a.d.opts.Limits.granted(b.Manifest.PerUser)
	limits := contactLimits(contactOf(v.Sender, v.From), granted, 0)
	limits = append(limits, toContact(v.From, b.Manifest.Sending.Within(a.d.opts.Limits.Sending))...)
	used, err := a.d.opts.Ledger.Standings(ctx, a.account, bare(limits)...)
	if err != nil {
		return "", err
	}
	lines := append([]string{"What you have used of " + b.Manifest.Name + ":"}, contactUsage(used)...)
	bots, err := a.botUsage(ctx, b.Manifest)
	if err != nil {
		return "", err
	}
	if p, paused, err := a.d.opts.Ledger.Paused(ctx, a.account); err != nil {
		return "", err
	} else if paused {
		bots = append(bots, "The operator has paused it, on "+p.Since.UTC().Format("2006-01-02")+". What you write is kept until it goes on.")
	}
	return strings.Join(append(append(lines, ""), bots...), "\n"), nil
}

// contactUsage has a line for each limit, by the stricter of key and address, and one for each window: when what was used is free again.
func contactUsage(used []ledger.Standing) []string {
	type kind struct {
		resource ledger.Resource
		span     time.Duration
	}
	most := map[kind]ledger.Standing{}
	free := map[time.Duration]time.Time{}
	var order []kind
	for _, s := range used {
		k := kind{s.Resource, s.Span}
		if _, there := most[k]; !there {
			order = append(order, k)
		}
		if s.Used >= most[k].Used {
			most[k] = s
		}
		if s.Free.After(free[s.Span]) {
			free[s.Span] = s.Free
		}
	}
	var lines []string
	for _, k := range order {
		lines = append(lines, standing(most[k]))
	}
	for _, span := range []time.Duration{time.Hour, 24 * time.Hour} {
		if at := free[span]; !at.IsZero() {
			lines = append(lines, fmt.Sprintf("What counts for %s is all free again at %s, if you write no more.", the(span), clockTime(at)))
		}
	}
	return lines
}

func standing(s ledger.Standing) string {
	within := "in " + the(s.Span)
	switch s.Resource {
	case ledger.Wall:
		return fmt.Sprintf("%d of %d seconds of work %s", (s.Used+999_999)/1e6, s.Most/1e6, within)
	case ledger.Sent:
		return fmt.Sprintf("%d of %d messages to you %s", s.Used, s.Most, within)
	case ledger.SentBytes:
		return fmt.Sprintf("%s of %s to you %s", bot.RoundSize(s.Used), bot.RoundSize(s.Most), within)
	case ledger.Bytes:
		return fmt.Sprintf("%s of %s %s", bot.RoundSize(s.Used), bot.RoundSize(s.Most), within)
	}
	return fmt.Sprintf("%d of %d messages %s", s.Used, s.Most, within)
}

func the(span time.Duration) string {
	if span == time.Hour {
		return "the last hour"
	}
	return "the last 24 hours"
}

// botUsage says what the bot may, and of what it has nothing left. How much it has used is nobody's but its author's.
func (a *actor) botUsage(ctx context.Context, m bot.Manifest) ([]string, error) {
	var may, over []string
	for _, l := range a.d.opts.Limits.ofBot(m) {
		if l.limit.Most <= 0 {
			continue
		}
		may = append(may, l.words)
		e, err := a.d.opts.Ledger.Exceeds(ctx, a.account, l.limit)
		if err != nil {
			return nil, err
		}
		if e != nil {
			over = append(over, fmt.Sprintf("It has used all of its %s, and goes on at %s.", l.words, clockTime(e.Until)))
		}
	}
	if len(may) > 0 {
		over = append([]string{"The bot itself may use: " + strings.Join(may, ", ") + "."}, over...)
	}
	return over, nil
}
