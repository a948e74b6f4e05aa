package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/bot"
)

// Outgoing is a mail that was said and has still to be sent.
type Outgoing struct {
	ID        int64
	Bot       bot.Address
	From      bot.Address   // envelope
	To        []bot.Address // envelope
	MessageID string        // the outer one
	Path      string        // file in the outbox's folder, relative to it
	Size      int64         // bytes of the file
	Attempts  int           // times that it was put off
	NotBefore time.Time     // zero: at once
	LastError string
	Exempt    bool      // from consent: it goes to stopped contacts too
	Said      time.Time // when it was committed
}

const (
	deadKept     = 100 // mails of a bot that were given up
	failuresKept = 20  // reasons of a bot that its author is told by name
	maxFailure   = 500 // bytes of such a reason
)

// FailureKind says what failed.
type FailureKind string

// The kinds of failures.
const (
	FailedMail FailureKind = "mail" // did not reach all whom it was for; why in the relay's words
	FailedRun  FailureKind = "run"  // the bot's own failure; why in the first two lines of its record
	FailedHost FailureKind = "host" // a mail was set aside, since sessions for it kept failing

	FailedLimit FailureKind = "limit" // a message was not sent, since a limit of sending was reached; why is that limit
)

// Failure is a reason for which something of a bot failed.
type Failure struct {
	Kind        FailureKind
	Why         string // "" stands for all reasons of the kind beyond the first 20
	Count       int
	First, Last time.Time
}

const selectOutgoing = `SELECT id, bot, from_address, recipients, message_id, path, size, attempts, not_before, last_error, said, exempt
	FROM outgoing `

func enqueue(ctx context.Context, tx *sql.Tx, addr bot.Address, o Outgoing) error {
	if o.Path == "" || len(o.To) == 0 {
		return errors.New("an outgoing mail has no file or no recipient")
	}
	to, err := json.Marshal(o.To)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO outgoing (bot, from_address, recipients, message_id, path, size, not_before,
		last_error, said, exempt) VALUES (?, ?, ?, ?, ?, ?, ?, '', ?, ?)`, addr, o.From, string(to), o.MessageID, o.Path, o.Size, micro(o.NotBefore),
		micro(time.Now()), o.Exempt)
	return err
}

func scanOutgoing(rows *sql.Rows) (Outgoing, error) {
	var o Outgoing
	var to string
	var notBefore, said int64
	err := rows.Scan(&o.ID, &o.Bot, &o.From, &to, &o.MessageID, &o.Path, &o.Size, &o.Attempts, &notBefore, &o.LastError, &said, &o.Exempt)
	if err != nil {
		return o, err
	}
	o.NotBefore, o.Said = fromMicro(notBefore), fromMicro(said)
	return o, json.Unmarshal([]byte(to), &o.To)
}

// Outbox returns up to limit unsent mails of a bot in the order in which they were said, due or not; with a limit of -1 all.
func (l *Ledger) Outbox(ctx context.Context, addr bot.Address, limit int) ([]Outgoing, error) {
	return l.outgoing(ctx, `WHERE bot = ? AND dead = 0 ORDER BY id LIMIT ?`, addr, limit)
}

// Dead returns the newest mails of a bot that could not be delivered, newest first, LastError saying why.
func (l *Ledger) Dead(ctx context.Context, addr bot.Address, limit int) ([]Outgoing, error) {
	return l.outgoing(ctx, `WHERE bot = ? AND dead = 1 ORDER BY id DESC LIMIT ?`, addr, limit)
}

func (l *Ledger) outgoing(ctx context.Context, where string, args ...any) ([]Outgoing, error) {
	rows, err := l.db.QueryContext(ctx, selectOutgoing+where, args...)
	mails, err := collect(rows, err, scanOutgoing)
	return mails, l.explain("outbox", err)
}

// OutboxPaths returns the files of all unsent mails of all bots.
func (l *Ledger) OutboxPaths(ctx context.Context) ([]string, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT path FROM outgoing WHERE dead = 0 ORDER BY id`)
	paths, err := collect(rows, err, func(rows *sql.Rows) (path string, err error) { return path, rows.Scan(&path) })
	return paths, l.explain("outbox paths", err)
}

// RetryNow makes the unsent mails of a bot due, and returns how many there are.
func (l *Ledger) RetryNow(ctx context.Context, addr bot.Address) (n int64, err error) {
	err = l.write(ctx, "retry", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE outgoing SET not_before = 0 WHERE bot = ? AND dead = 0`, addr)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// Sent forgets a mail that the relay has taken.
func (l *Ledger) Sent(ctx context.Context, id int64) error {
	return l.settle(ctx, "sent", id, `DELETE FROM outgoing WHERE id = ? AND dead = 0`, id)
}

// Deferred records a failed try and when to try again.
func (l *Ledger) Deferred(ctx context.Context, id int64, until time.Time, why string) error {
	return l.settle(ctx, "deferred", id, `UPDATE outgoing SET attempts = attempts + 1, not_before = ?, last_error = ?
		WHERE id = ? AND dead = 0`, micro(until), tail(why, maxSaid), id)
}

// SentToSome forgets a mail that the relay has taken for some of its recipients, and counts the Failure.
func (l *Ledger) SentToSome(ctx context.Context, id int64, why string) error {
	return l.write(ctx, "sent to some", func(tx *sql.Tx) error {
		if err := countUnsent(ctx, tx, id, why); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `DELETE FROM outgoing WHERE id = ? AND dead = 0`, id)
		return touched(res, err, fmt.Errorf("%w: no unsent mail %d", ErrNotFound, id))
	})
}

// Failures returns what has failed of a bot since FailuresTold, each kind's most frequent reasons first, and when it was told last; a
// zero time is never.
func (l *Ledger) Failures(ctx context.Context, addr bot.Address) (failures []Failure, told time.Time, err error) {
	rows, err := l.db.QueryContext(ctx, `SELECT kind, why, count, first, last FROM failures WHERE bot = ?
		ORDER BY kind DESC, count DESC, why`, addr)
	failures, err = collect(rows, err, func(rows *sql.Rows) (f Failure, err error) {
		var first, last int64
		err = rows.Scan(&f.Kind, &f.Why, &f.Count, &first, &last)
		f.First, f.Last = fromMicro(first), fromMicro(last)
		return f, err
	})
	if err != nil || len(failures) == 0 {
		return nil, time.Time{}, l.explain("failures", err)
	}
	var at int64
	err = l.db.QueryRowContext(ctx, `SELECT failures_told FROM bots WHERE address = ?`, addr).Scan(&at)
	return failures, fromMicro(at), l.explain("failures", err)
}

// FailuresTold forgets the Failures of a bot, because its author was told of them, or will be by the mails given. What is counted
// between Failures and FailuresTold is lost: one goroutine must call both, Commit and Undeliverable.
func (l *Ledger) FailuresTold(ctx context.Context, addr bot.Address, at time.Time, mails ...Outgoing) error {
	return l.write(ctx, "failures told", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE bots SET failures_told = ? WHERE address = ?`, micro(at), addr)
		if err := touched(res, err, fmt.Errorf("%w: %s", ErrRemoved, addr)); err != nil {
			return err
		}
		for _, m := range mails {
			if err := enqueue(ctx, tx, addr, m); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM failures WHERE bot = ?`, addr)
		return err
	})
}

// countUnsent counts an unsent mail.
func countUnsent(ctx context.Context, tx *sql.Tx, id int64, why string) error {
	var addr bot.Address
	err := tx.QueryRowContext(ctx, `SELECT bot FROM outgoing WHERE id = ? AND dead = 0`, id).Scan(&addr)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: no unsent mail %d", ErrNotFound, id)
	}
	if err != nil {
		return err
	}
	return countFailure(ctx, tx, addr, FailedMail, why, 1, time.Now())
}

// countFailure counts a failure. When there are many reasons, new ones are counted together: a relay may put something new into each
// of its answers, and a bot into each of its errors.
func countFailure(ctx context.Context, tx *sql.Tx, addr bot.Address, kind FailureKind, why string, n int, at time.Time) error {
	why = strings.ToValidUTF8(why[:min(len(why), maxFailure)], "")
	_, err := tx.ExecContext(ctx, `INSERT INTO failures (bot, kind, why, count, first, last)
		SELECT ?1, ?2, iif((SELECT count(*) FROM failures WHERE bot = ?1 AND kind = ?2) < ?3
			OR EXISTS (SELECT 1 FROM failures WHERE bot = ?1 AND kind = ?2 AND why = ?4), ?4, ''), ?6, ?5, ?5
		WHERE true ON CONFLICT (bot, kind, why) DO UPDATE SET count = count + ?6, last = excluded.last`, addr, kind, failuresKept, why, micro(at), n)
	return err
}

// Undeliverable gives a mail up, and counts the Failure. It is no longer in the Outbox but among the Dead.
func (l *Ledger) Undeliverable(ctx context.Context, id int64, why string) error {
	return l.write(ctx, "undeliverable", func(tx *sql.Tx) error {
		if err := countUnsent(ctx, tx, id, why); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE outgoing SET dead = 1, last_error = ? WHERE id = ? AND dead = 0`, tail(why, maxSaid), id)
		if err := touched(res, err, fmt.Errorf("%w: no unsent mail %d", ErrNotFound, id)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM outgoing WHERE dead = 1 AND id <= (SELECT id FROM outgoing WHERE dead = 1 AND
			bot = (SELECT bot FROM outgoing WHERE id = ?1) ORDER BY id DESC LIMIT 1 OFFSET ?2)
			AND bot = (SELECT bot FROM outgoing WHERE id = ?1)`, id, deadKept)
		return err
	})
}

func (l *Ledger) settle(ctx context.Context, what string, id int64, query string, args ...any) error {
	return l.write(ctx, what, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, query, args...)
		return touched(res, err, fmt.Errorf("%w: no unsent mail %d", ErrNotFound, id))
	})
}
