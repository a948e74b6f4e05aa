package dispatch

import (
	"time"

	"golang.org/x/time/rate"

	"mayfly/internal/bot"
)

// Rate bounds how much mail is looked at: PerMinute in the long run, Burst at once. The zero value is no bound.
type Rate struct {
	PerMinute int
	Burst     int
}

// Budgets bound the mail that is decrypted, before it is: the work for a mail is spent before anybody knows who sent it. What
// is over a budget waits in the INBOX. The address is the one that the mail claims, so mail is never dropped for it: somebody
// else may have written that address into his.
type Budgets struct {
	Address, Bot, Host Rate
}

// DefaultBudgets are far above what people write.
func DefaultBudgets() Budgets {
	return Budgets{Address: Rate{30, 60}, Bot: Rate{120, 300}, Host: Rate{1200, 2400}}
}

func (r Rate) limiter() *rate.Limiter {
	if r == (Rate{}) {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(float64(r.PerMinute)/60), r.Burst)
}

// maxSenders bounds the addresses that a bot's budget remembers. When there are more, those with a full budget are forgotten,
// and if there is none, all.
const maxSenders = 10_000

// budget is that of one bot.
type budget struct {
	rates   Budgets
	host    *rate.Limiter // shared
	bot     *rate.Limiter
	senders map[bot.Address]*rate.Limiter
}

func newBudget(rates Budgets, host *rate.Limiter) *budget {
	return &budget{rates: rates, host: host, bot: rates.Bot.limiter(), senders: map[bot.Address]*rate.Limiter{}}
}

// ofHost takes one mail from the budgets of the bot and the host, or returns how long to wait for it.
func (b *budget) ofHost() time.Duration {
	if wait := take(b.bot); wait > 0 {
		return wait
	}
	return take(b.host)
}

// ofSender takes one mail from the budget of an address, or returns how long to wait for it.
func (b *budget) ofSender(from bot.Address) time.Duration {
	l := b.senders[from]
	if l == nil {
		b.forget()
		l = b.rates.Address.limiter()
		b.senders[from] = l
	}
	return take(l)
}

// overBudget says that a mail has to wait. It is no failure.
type overBudget struct {
	whose string // "sender", "bot or host", or "account"
	wait  time.Duration
	alone bool // those behind it may go on
}

func (o *overBudget) Error() string { return "over the budget of the " + o.whose }

// take takes one token, or none and says when there will be one.
func take(l *rate.Limiter) time.Duration {
	r := l.Reserve()
	if !r.OK() {
		return time.Minute
	}
	wait := r.Delay()
	if wait > 0 {
		r.Cancel()
	}
	return wait
}

func (b *budget) forget() {
	if len(b.senders) < maxSenders {
		return
	}
	for from, l := range b.senders {
		if l.Tokens() >= float64(b.rates.Address.Burst) {
			delete(b.senders, from)
		}
	}
	if len(b.senders) >= maxSenders {
		clear(b.senders)
	}
}
