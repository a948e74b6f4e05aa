package ledger

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"mayfly/internal/bot"
)

// Subject is who uses something of a bot.
type Subject string

// WholeBot is the bot itself, whoever caused it.
const WholeBot Subject = "bot"

// WholeHost is all bots together. What it uses is kept under no bot's address.
const WholeHost Subject = "host"

// ByKey is a contact, known by the key that signed.
func ByKey(f bot.Fingerprint) Subject { return Subject("key " + f) }

// ByAddress is whoever writes from an address. Keys are free to make, so what a key may do its address may do, and no more.
func ByAddress(a bot.Address) Subject { return Subject("from " + a) }

// ByRecipient is who gets mail of the bot.
func ByRecipient(a bot.Address) Subject { return Subject("to " + a) }

// Resource is what is used.
type Resource string

// The resources. Those of contacts are what they cause.
const (
	Mails     Resource = "mails"      // accepted; of contacts and bots
	Bytes     Resource = "bytes"      // received and sent; of contacts and bots
	Wall      Resource = "wall"       // microseconds of runs; of contacts
	CPU       Resource = "cpu"        // microseconds: of the bot's program; of all sandboxes, for the host
	CoreCPU   Resource = "core cpu"   // microseconds of core and its reader; of bots
	Sent      Resource = "sent"       // mails out; of recipients and bots
	SentBytes Resource = "sent bytes" // of recipients and bots
	Notices   Resource = "notices"    // about limits; of contacts
)

// Limit is the most that a subject may use of a resource in any time of Span, which is up to a day.
type Limit struct {
	Subject  Subject
	Resource Resource
	Span     time.Duration
	Most     int64
	Need     int64 // what is wanted now; 0: whatever it will be, so that something must be left
}

// Exceeded says that there is no room under a limit.
type Exceeded struct {
	Limit
	Used  int64
	Until time.Time // when there will be, if nothing more is used
}

// use is an amount that is charged to a subject.
type use struct {
	subject  Subject
	resource Resource
	amount   int64
}

// usageKept is how long what was used is remembered, the longest Span.
const usageKept = 24 * time.Hour

// clock notices that the host's clock was set while the program ran, by the time that cannot be set.
type clock struct {
	now func() time.Time         // the time of day
	ran func() (d time.Duration) // since some moment, whatever the time of day says
	mu  sync.Mutex
	day time.Time     // now, when it was last asked
	was time.Duration // ran at that moment
}

func newClock() *clock {
	start := time.Now()
	c := &clock{now: func() time.Time { return time.Now().Round(0) }, ran: func() time.Duration { return time.Since(start) }}
	c.day, c.was = c.now(), c.ran()
	return c
}

// leap is by how much the clock was set since the last call, where that is a minute or more.
func (c *clock) leap() (now time.Time, by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, ran := c.now(), c.ran()
	by = now.Sub(c.day) - (ran - c.was)
	if by.Abs() < time.Minute {
		return now, 0
	}
	c.day, c.was = now, ran
	return now, by
}

func minutes(t time.Time) int64 { return t.Unix() / 60 }

// present returns the present minute, when what was used before stands where the clock has it: moved with a clock that was set while
// the program ran, and not in the future, where a clock that was wrong before this start has left it.
func (l *Ledger) present(ctx context.Context, tx *sql.Tx) (minute int64, err error) {
	now, by := l.clock.leap()
	minute = minutes(now)
	if err := moveUsage(ctx, tx, int64(by/time.Minute)); err != nil {
		return 0, err
	}
	var newest int64
	if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(minute), 0) FROM usage`).Scan(&newest); err != nil {
		return 0, err
	}
	return minute, moveUsage(ctx, tx, min(minute-newest, 0))
}

// moveUsage moves all that was used by so many minutes, by way of negative numbers, which meet none that is there.
func moveUsage(ctx context.Context, tx *sql.Tx, by int64) error {
	if by == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE usage SET minute = -(minute + ?)`, by); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `UPDATE usage SET minute = -minute`)
	return err
}

// charge adds to what was used, in the transaction of what used it.
func (l *Ledger) charge(ctx context.Context, tx *sql.Tx, addr bot.Address, uses ...use) error {
	minute, err := l.present(ctx, tx)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if u.amount <= 0 {
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO usage (bot, subject, resource, minute, amount) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET amount = amount + excluded.amount`, addr, u.subject, u.resource, minute, u.amount); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM usage WHERE minute < ?`, minute-int64(usageKept/time.Minute))
	return err
}

// Spend charges an amount to a subject.
func (l *Ledger) Spend(ctx context.Context, addr bot.Address, s Subject, r Resource, amount int64) error {
	return l.write(ctx, "spend", func(tx *sql.Tx) error { return l.charge(ctx, tx, addr, use{s, r, amount}) })
}

// contact are the subjects that stand for whoever sent a mail.
func (j Job) contact() []Subject {
	var subjects []Subject
	if j.Sender != "" {
		subjects = append(subjects, ByKey(j.Sender))
	}
	if j.From != "" {
		subjects = append(subjects, ByAddress(j.From))
	}
	return subjects
}

// received is what a mail uses when it is accepted.
func received(j Job) []use {
	var uses []use
	for _, s := range append(j.contact(), WholeBot) {
		uses = append(uses, use{s, Mails, 1}, use{s, Bytes, j.Size})
	}
	return uses
}

// chargeSession charges what a session used: to the bot, to those who get its mail, and to whoever sent what it worked on.
func (l *Ledger) chargeSession(ctx context.Context, tx *sql.Tx, c Commit) error {
	var uses []use
	var sent int64
	for _, o := range c.Outgoing {
		sent += o.Size * int64(len(o.To))
		for _, to := range o.To {
			uses = append(uses, use{ByRecipient(to), Sent, 1}, use{ByRecipient(to), SentBytes, o.Size})
		}
		uses = append(uses, use{WholeBot, Sent, int64(len(o.To))})
	}
	uses = append(uses, use{WholeBot, SentBytes, sent}, use{WholeBot, Bytes, sent})
	var wall int64
	if c.Run != nil {
		wall = c.Run.Wall.Microseconds()
		uses = append(uses, use{WholeBot, CPU, c.Run.CPU.Microseconds()}, use{WholeBot, CoreCPU, c.Run.CoreCPU.Microseconds()})
	}
	for _, id := range c.Jobs {
		var j Job
		if err := tx.QueryRowContext(ctx, `SELECT sender, from_address FROM jobs WHERE id = ?`, id).Scan(&j.Sender, &j.From); err != nil {
			return err
		}
		for _, s := range j.contact() {
			uses = append(uses, use{s, Wall, wall / int64(len(c.Jobs))}, use{s, Bytes, sent / int64(len(c.Jobs))})
		}
	}
	return l.charge(ctx, tx, c.Bot, uses...)
}

// Exceeds returns the limit that has no room for the longest, nil where all have. More than a limit's Most at once is wanted in vain;
// there is room for it when nothing else was used.
func (l *Ledger) Exceeds(ctx context.Context, addr bot.Address, limits ...Limit) (*Exceeded, error) {
	var longest *Exceeded
	err := l.write(ctx, "usage", func(tx *sql.Tx) error {
		minute, err := l.present(ctx, tx)
		if err != nil {
			return err
		}
		for _, limit := range limits {
			e, err := exceeds(ctx, tx, addr, limit, minute)
			if err != nil {
				return err
			}
			if e != nil && (longest == nil || e.Until.After(longest.Until)) {
				longest = e
			}
		}
		return nil
	})
	return longest, err
}

func exceeds(ctx context.Context, tx *sql.Tx, addr bot.Address, limit Limit, minute int64) (*Exceeded, error) {
	span := int64(limit.Span / time.Minute)
	if span <= 0 || limit.Span > usageKept {
		return nil, errors.New("a limit's span is a minute to a day")
	}
	rows, err := tx.QueryContext(ctx, `SELECT minute, amount FROM usage WHERE bot = ? AND subject = ? AND resource = ? AND minute > ?
		ORDER BY minute`, addr, limit.Subject, limit.Resource, minute-span)
	slots, err := collect(rows, err, func(rows *sql.Rows) (s [2]int64, err error) { return s, rows.Scan(&s[0], &s[1]) })
	if err != nil {
		return nil, err
	}
	e := Exceeded{Limit: limit}
	for _, s := range slots {
		e.Used += s[1]
	}
	need := min(max(limit.Need, 1), limit.Most)
	left := e.Used
	for i := 0; left+need > limit.Most; i++ {
		if i == len(slots) {
			return nil, errors.New("a limit of nothing is no limit") // Most is 0
		}
		left -= slots[i][1]
		e.Until = time.Unix((slots[i][0]+span)*60, 0)
	}
	if e.Until.IsZero() {
		return nil, nil
	}
	return &e, nil
}

// Standing is how much of a limit is used.
type Standing struct {
	Limit
	Used int64
	Free time.Time // when all of it is free again, if nothing more is used; zero where nothing is used
}

// Standings returns how much of some limits is used, in their order.
func (l *Ledger) Standings(ctx context.Context, addr bot.Address, limits ...Limit) ([]Standing, error) {
	var all []Standing
	err := l.write(ctx, "usage", func(tx *sql.Tx) error {
		minute, err := l.present(ctx, tx)
		if err != nil {
			return err
		}
		for _, limit := range limits {
			s, last, span := Standing{Limit: limit}, int64(0), int64(limit.Span/time.Minute)
			if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(amount), 0), coalesce(max(minute), 0) FROM usage
				WHERE bot = ? AND subject = ? AND resource = ? AND minute > ?`, addr, limit.Subject, limit.Resource, minute-span).Scan(&s.Used, &last); err != nil {
				return err
			}
			if last > 0 {
				s.Free = time.Unix((last+span)*60, 0)
			}
			all = append(all, s)
		}
		return nil
	})
	return all, err
}

// Used is what a subject has used of a resource in the last time of span, which is up to a day.
func (l *Ledger) Used(ctx context.Context, addr bot.Address, s Subject, r Resource, span time.Duration) (used int64, err error) {
	err = l.write(ctx, "usage", func(tx *sql.Tx) error {
		minute, err := l.present(ctx, tx)
		if err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT coalesce(sum(amount), 0) FROM usage WHERE bot = ? AND subject = ? AND resource = ? AND minute > ?`,
			addr, s, r, minute-int64(span/time.Minute)).Scan(&used)
	})
	return used, err
}
