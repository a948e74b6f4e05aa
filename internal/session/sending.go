package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/gateway"
	"mayfly/internal/ledger"
	"mayfly/internal/minirelay"
)

// sending is what a bot may send in a session, of what it may send in an hour. The gateway asks it about calls, and so tells the bot what it
// cannot send; the mails that core then submits are taken from an account of their own, by the recipients of their envelopes: there a
// limit holds whatever the gateway missed.
type sending struct {
	calls, mails *quota

	mu     sync.Mutex
	missed map[string]int // messages that are not sent, by the limit
}

func (r *Runner) newSending(b ledger.Bot) *sending {
	limits := b.Manifest.Sending.Within(r.Limits.Sending)
	of := func() *quota {
		return &quota{ledger: r.Ledger, bot: b.Address, limits: limits, left: map[account]int64{}}
	}
	return &sending{calls: of(), mails: of(), missed: map[string]int{}}
}

// next is that of the session's next run, for which what this one has sent counts.
func (s *sending) next() *sending {
	return &sending{calls: s.calls, mails: s.mails, missed: map[string]int{}}
}

// Take implements gateway.Quota.
func (s *sending) Take(ctx context.Context, to []string, messages int, bytes int64) error {
	var addresses []bot.Address
	for _, text := range to {
		if a, err := bot.ParseAddress(text); err == nil { // to others nothing is sent
			addresses = append(addresses, a)
		}
	}
	return s.calls.take(ctx, addresses, int64(messages), bytes)
}

// Missed implements gateway.Quota.
func (s *sending) Missed(limit string, messages int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missed[limit] += messages
}

// unsent is what was not sent, with what an earlier attempt could not send.
func (s *sending) unsent(before map[string]int) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.missed)
	for limit, n := range before {
		all[limit] += n
	}
	return all
}

// strip returns mails without those recipients for whom there is no room, and leaves out mails for whom none is left.
func (s *sending) strip(ctx context.Context, mails []minirelay.Outgoing) ([]minirelay.Outgoing, error) {
	var all []bot.Address
	for _, m := range mails {
		all = append(all, m.To...)
	}
	if err := s.mails.know(ctx, all); err != nil {
		return nil, err
	}
	var kept []minirelay.Outgoing
	for _, m := range mails {
		var to []bot.Address
		for _, address := range m.To {
			err := s.mails.take(ctx, []bot.Address{address}, 1, int64(len(m.Data)))
			var over *gateway.Over
			switch {
			case err == nil:
				to = append(to, address)
			case errors.As(err, &over):
				s.Missed(over.Limit, 1)
			default:
				return nil, err
			}
		}
		if m.To = to; len(to) > 0 {
			kept = append(kept, m)
		}
	}
	return kept, nil
}

// quota is what is left of the limits of sending.
type quota struct {
	ledger Ledger
	bot    bot.Address
	limits bot.Sending

	mu   sync.Mutex
	left map[account]int64 // of those that were asked about
}

// account is what a subject has of a resource.
type account struct {
	subject  ledger.Subject
	resource ledger.Resource
}

// wish is what is wanted of an account.
type wish struct {
	account
	most, need int64
	limit      string // in words
}

// know asks the ledger, once, what was sent to some addresses, and by the bot, before the session.
func (q *quota) know(ctx context.Context, to []bot.Address) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.learn(ctx, to)
}

// learn is know, with q.mu held.
func (q *quota) learn(ctx context.Context, to []bot.Address) error {
	wishes := q.ofBot(0, 0)
	for _, a := range to {
		wishes = append(wishes, q.ofContact(a, 0, 0)...)
	}
	var unknown []ledger.Limit
	asked := map[account]bool{}
	for _, w := range wishes {
		if _, known := q.left[w.account]; !known && !asked[w.account] {
			asked[w.account] = true
			unknown = append(unknown, w.bound())
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	standings, err := q.ledger.Standings(ctx, q.bot, unknown...)
	for _, s := range standings {
		q.left[account{s.Subject, s.Resource}] = s.Most - s.Used
	}
	return err
}

// take takes mails of so many bytes together to each of those addresses for whom there is room, or nothing.
func (q *quota) take(ctx context.Context, to []bot.Address, mails, bytes int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.learn(ctx, to); err != nil {
		return err
	}
	var taken []wish
	var n int64
	var full *wish
	for _, a := range to {
		wishes := q.ofContact(a, mails, bytes)
		if w := q.over(wishes); w != nil {
			full = w
			continue
		}
		taken, n = append(taken, wishes...), n+1
	}
	wishes := q.ofBot(n*mails, n*bytes)
	switch w := q.over(wishes); {
	case n == 0 && full != nil:
		return q.until(ctx, *full)
	case n > 0 && w != nil:
		return q.until(ctx, *w)
	}
	for _, w := range append(taken, wishes...) {
		q.left[w.account] -= w.need
	}
	return nil
}

// over is the first of some wishes for which there is no room.
func (q *quota) over(wishes []wish) *wish {
	for i, w := range wishes {
		if w.need > q.left[w.account] {
			return &wishes[i]
		}
	}
	return nil
}

// until is an *Over with the time when there is room for a wish.
func (q *quota) until(ctx context.Context, w wish) error {
	limit := w.bound()
	limit.Need = w.need
	e, err := q.ledger.Exceeds(ctx, q.bot, limit)
	if err != nil {
		return err
	}
	over := &gateway.Over{Limit: w.limit, Until: time.Now().Add(time.Hour)} // this session has used it
	if e != nil {
		over.Until = e.Until
	}
	return over
}

func (w wish) bound() ledger.Limit {
	return ledger.Limit{Subject: w.subject, Resource: w.resource, Span: time.Hour, Most: w.most}
}

func (q *quota) ofBot(mails, bytes int64) []wish {
	l := q.limits
	return limited(
		wish{account{ledger.WholeBot, ledger.Sent}, int64(l.Mails), mails, fmt.Sprintf("%d mails an hour", l.Mails)},
		wish{account{ledger.WholeBot, ledger.SentBytes}, l.Bytes, bytes, bot.FormatSize(l.Bytes) + " an hour"})
}

func (q *quota) ofContact(a bot.Address, mails, bytes int64) []wish {
	l, s := q.limits, ledger.ByRecipient(a)
	return limited(
		wish{account{s, ledger.Sent}, int64(l.MailsPerContact), mails, fmt.Sprintf("%d mails an hour to one contact", l.MailsPerContact)},
		wish{account{s, ledger.SentBytes}, l.BytesPerContact, bytes, bot.FormatSize(l.BytesPerContact) + " an hour to one contact"})
}

// limited are the wishes of which there is a limit.
func limited(all ...wish) []wish {
	return slices.DeleteFunc(all, func(w wish) bool { return w.most <= 0 })
}
