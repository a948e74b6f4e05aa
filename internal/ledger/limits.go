package ledger

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"mayfly/internal/bot"
)

// noticeEvery is how often a contact is told that it has reached a limit.
const noticeEvery = time.Hour

// overrunEvery is how often an author is told that the bot has used up what it may.
const overrunEvery = 24 * time.Hour

// MayNoticeLimit reports whether none of the subjects was told of a limit within the last hour.
func (l *Ledger) MayNoticeLimit(ctx context.Context, addr bot.Address, to ...Subject) (bool, error) {
	e, err := l.Exceeds(ctx, addr, noticeLimits(to)...)
	return e == nil, err
}

// NoticeLimit is Answer for a notice about a limit, unless one of the subjects was told within the last hour: then it does nothing.
func (l *Ledger) NoticeLimit(ctx context.Context, a Answer, to ...Subject) (told bool, err error) {
	err = l.write(ctx, "notice for "+string(a.Bot), func(tx *sql.Tx) error {
		minute, err := l.present(ctx, tx)
		if err != nil {
			return err
		}
		var uses []use
		for _, limit := range noticeLimits(to) {
			if e, err := exceeds(ctx, tx, a.Bot, limit, minute); err != nil || e != nil {
				return err
			}
			uses = append(uses, use{limit.Subject, Notices, 1})
		}
		told = true
		if err := l.charge(ctx, tx, a.Bot, uses...); err != nil {
			return err
		}
		return l.answer(ctx, tx, a)
	})
	return told && err == nil, err
}

func noticeLimits(to []Subject) []Limit {
	var limits []Limit
	for _, s := range to {
		limits = append(limits, Limit{Subject: s, Resource: Notices, Span: noticeEvery, Most: 1})
	}
	return limits
}

// Overrun is that a bot has used up what it may, and its mail waits.
type Overrun struct {
	Why   string
	Since time.Time
}

// Overran notes an Overrun for the bot's author, unless there is one that is not told yet, or was told within the last day.
func (l *Ledger) Overran(ctx context.Context, addr bot.Address, why string, at time.Time) error {
	return l.write(ctx, "overrun", func(tx *sql.Tx) error {
		if err := installed(ctx, tx, addr); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO overruns (bot, why, since) VALUES (?1, ?2, ?3)
			ON CONFLICT (bot) DO UPDATE SET why = ?2, since = ?3, told = 0 WHERE told <> 0 AND (told <= ?4 OR told > ?3)`,
			addr, tail(why, maxSaid), micro(at), micro(at.Add(-overrunEvery)))
		return err
	})
}

// Overrun returns the Overrun of a bot that its author was not told of yet, and whether there is one.
func (l *Ledger) Overrun(ctx context.Context, addr bot.Address) (o Overrun, there bool, err error) {
	var since int64
	err = l.db.QueryRowContext(ctx, `SELECT why, since FROM overruns WHERE bot = ? AND told = 0`, addr).Scan(&o.Why, &since)
	if errors.Is(err, sql.ErrNoRows) {
		return Overrun{}, false, nil
	}
	o.Since = fromMicro(since)
	return o, err == nil, l.explain("overrun", err)
}

// OverrunTold records that the author was told, or will be by the mails given.
func (l *Ledger) OverrunTold(ctx context.Context, addr bot.Address, at time.Time, mails ...Outgoing) error {
	return l.write(ctx, "overrun told", func(tx *sql.Tx) error {
		for _, m := range mails {
			if err := enqueue(ctx, tx, addr, m); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `UPDATE overruns SET told = ? WHERE bot = ?`, micro(at), addr)
		return err
	})
}
