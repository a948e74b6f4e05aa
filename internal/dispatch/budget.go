package dispatch

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"mayfly/internal/bot"
	"mayfly/internal/gate"
	"mayfly/internal/ledger"
)

// Rate bounds how much is done: PerMinute in the long run, Burst at once. The zero value is no bound.
type Rate struct {
	PerMinute int
	Burst     int
}

// Budgets bound the work that mail causes before it is known to be wanted. What is over a budget waits in the INBOX, and is
// never dropped for that: the address is the one that the mail claims, and somebody else may have written it.
//
// Address, Bot and Host come before decryption. Mail that is not encrypted is outside of them: to refuse it takes microseconds.
// Sessions and Uncertain come after it, when the signer is known.
//
// Bot, Host and Sessions are there twice: for those from whom a mail was accepted before, and for strangers. So a flood of
// strangers' mail holds up strangers only.
type Budgets struct {
	Address   Rate // mails that claim to be from one address
	Bot, Host Rate // units of decryption, each a mail of up to 100 kB
	Sessions  Rate // of one bot
	Uncertain Rate // mails of one bot on which core has to decide, since the gate cannot
}

// DefaultBudgets are far above what people write. A unit of decryption is about a third of a millisecond, so that a host spends at most a
// second a minute on strangers' junk.
func DefaultBudgets() Budgets {
	return Budgets{
		Address: Rate{30, 60}, Bot: Rate{600, 1000}, Host: Rate{3000, 6000}, Sessions: Rate{120, 300}, Uncertain: Rate{6, 20},
	}
}

func (r Rate) limiter() *rate.Limiter {
	if r == (Rate{}) {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(float64(r.PerMinute)/60), r.Burst)
}

// lanes are a budget that is there twice.
type lanes struct{ known, strangers *rate.Limiter }

func (r Rate) lanes() lanes { return lanes{r.limiter(), r.limiter()} }

func (l lanes) of(known bool) *rate.Limiter {
	if known {
		return l.known
	}
	return l.strangers
}

// maxSenders bounds the addresses that a bot's budget remembers. When there are more, those with a full budget are forgotten,
// and if there is none, all.
const maxSenders = 10_000

// budget is that of one bot.
type budget struct {
	rates     Budgets
	host      lanes // shared
	bot       lanes
	sessions  lanes
	uncertain *rate.Limiter
	senders   map[bot.Address]*rate.Limiter
}

func newBudget(rates Budgets, host lanes) *budget {
	return &budget{
		rates: rates, host: host, bot: rates.Bot.lanes(), sessions: rates.Sessions.lanes(), uncertain: rates.Uncertain.limiter(),
		senders: map[bot.Address]*rate.Limiter{},
	}
}

// units are what the decryption of so many bytes takes from a budget.
func units(size int) int { return 1 + size/100_000 }

// decryption takes one mail from the budgets before decryption, or from none and says which one it is over.
func (b *budget) decryption(from bot.Address, known bool, size int) *overBudget {
	needs := []need{
		{"sender", b.ofSender(from), 1}, {"bot", b.bot.of(known), units(size)}, {"host", b.host.of(known), units(size)},
	}
	for _, n := range needs {
		if n.wait() > 0 {
			return &overBudget{need: n}
		}
	}
	for _, n := range needs {
		n.take()
	}
	return nil
}

// session takes one session from the budgets after decryption.
func (b *budget) session(known, uncertain bool) *overBudget {
	n := need{"sessions", b.sessions.of(known), 1}
	if uncertain {
		n = need{"uncertain", b.uncertain, 1}
	}
	if n.wait() > 0 {
		return &overBudget{need: n}
	}
	n.take()
	return nil
}

func (b *budget) ofSender(from bot.Address) *rate.Limiter {
	l := b.senders[from]
	if l == nil {
		b.forget()
		l = b.rates.Address.limiter()
		b.senders[from] = l
	}
	return l
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

// need is so much of a budget.
type need struct {
	whose   string
	limiter *rate.Limiter
	n       int
}

// amount is at most what there ever is: more than that waits for the full budget.
func (n need) amount() int { return min(n.n, n.limiter.Burst()) }

// wait is how long until there is enough, 0 for now.
func (n need) wait() time.Duration {
	missing := float64(n.amount()) - n.limiter.Tokens()
	if missing <= 0 || n.limiter.Limit() == rate.Inf {
		return 0
	}
	return max(time.Duration(missing/float64(n.limiter.Limit())*float64(time.Second)), time.Millisecond)
}

func (n need) take() { n.limiter.AllowN(time.Now(), n.amount()) }

// overBudget says that a mail has to wait: for a budget, or where there is none until a time. It is no failure.
type overBudget struct {
	need
	until     time.Time
	announced string           // it waits for the mail that announces this Message-ID, up to the time
	contact   []ledger.Subject // later mail of these waits too
	limit     bool             // of the contact's: it is told
}

func (o *overBudget) Error() string { return "over the budget: " + o.whose }

func (o *overBudget) wait() time.Duration {
	if o.limiter == nil {
		return max(time.Until(o.until), 0)
	}
	return o.need.wait()
}

// admit takes an encrypted mail from the budgets before decryption, unless an earlier one of the same address waits.
func (a *actor) admit(ctx context.Context, claim gate.Claim, size int) error {
	if !claim.Encrypted {
		return nil
	}
	known := false
	if claim.From != "" {
		if over := a.waitlist.held[claim.From]; over != nil {
			return over
		}
		var err error
		if known, err = a.d.opts.Ledger.KnowsAddress(ctx, a.account, claim.From); err != nil {
			return err
		}
	}
	if over := a.budget.decryption(claim.From, known, size); over != nil {
		return over
	}
	return nil
}
