package ledger

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"time"

	"mayfly/internal/bot"
)

// Cursor is the place of a mail in the relay's INBOX (RFC 9051, 2.3.1.1).
type Cursor struct {
	UIDValidity uint32
	UID         uint32
}

// JobState is how far a mail has come: accepted → committed → cleared, or accepted → failed.
type JobState string

// The states of a job.
const (
	JobAccepted  JobState = "accepted"  // to be worked on
	JobCommitted JobState = "committed" // done; its mail may be deleted from the relay
	JobCleared   JobState = "cleared"   // done; its mail is deleted
	JobFailed    JobState = "failed"    // set aside: no session is started for it any more
)

// Job is a mail that the gate let pass.
type Job struct {
	ID        int64
	Bot       bot.Address
	Cursor    Cursor
	Kind      string          // the gate's verdict
	Sender    bot.Fingerprint // empty where nobody signed
	From      bot.Address
	MessageID string // the inner one
	Announces string // Message-ID of the mail that this one announces; empty: none
	Size      int64  // bytes
	Attempts  int    // sessions started for it
	State     JobState
	Accepted  time.Time
}

const (
	maxMessageID = 998  // octets, a line of RFC 5322
	maxReason    = 200  // bytes of a refusal's reason
	refusedSpan  = 5000 // UIDs: how far back a refusal is known to be counted
)

const selectJobs = `SELECT id, bot, uid_validity, uid, kind, sender, from_address, message_id, announces, size, attempts, state,
	accepted FROM jobs `

func scanJob(rows *sql.Rows) (Job, error) {
	var j Job
	var accepted int64
	err := rows.Scan(&j.ID, &j.Bot, &j.Cursor.UIDValidity, &j.Cursor.UID, &j.Kind, &j.Sender, &j.From, &j.MessageID,
		&j.Announces, &j.Size, &j.Attempts, &j.State, &accepted)
	j.Accepted = fromMicro(accepted)
	return j, err
}

// Accept records a mail and its cursor. For a cursor that is known it changes nothing and returns the job that is there,
// whatever its state. ID, Attempts, State and Accepted of the given job do not count.
func (l *Ledger) Accept(ctx context.Context, j Job) (Job, error) {
	var got []Job
	err := l.write(ctx, "accept", func(tx *sql.Tx) error {
		if err := installed(ctx, tx, j.Bot); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `INSERT INTO jobs (bot, uid_validity, uid, kind, sender, from_address, message_id, announces,
				size, state, accepted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (bot, uid_validity, uid) DO NOTHING`, j.Bot, j.Cursor.UIDValidity, j.Cursor.UID, j.Kind, j.Sender, j.From,
			bounded(j.MessageID), bounded(j.Announces), j.Size, JobAccepted, micro(time.Now()))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n > 0 {
			if err := l.charge(ctx, tx, j.Bot, received(j)...); err != nil {
				return err
			}
		}
		rows, err := tx.QueryContext(ctx, selectJobs+`WHERE bot = ? AND uid_validity = ? AND uid = ?`, j.Bot,
			j.Cursor.UIDValidity, j.Cursor.UID)
		got, err = collect(rows, err, scanJob)
		return err
	})
	if err != nil {
		return Job{}, err
	}
	return got[0], nil
}

func installed(ctx context.Context, tx *sql.Tx, addr bot.Address) error {
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM bots WHERE address = ?`, addr).Scan(&n); err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%w: %s", ErrRemoved, addr)
	}
	return nil
}

// bounded replaces a Message-ID that no honest mail has by a digest of it: a stranger chose it, and it is kept for good.
func bounded(messageID string) string {
	if len(messageID) <= maxMessageID {
		return messageID
	}
	sum := sha256.Sum256([]byte(messageID))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Attempt counts a session that is about to be started for a job, and returns how many there are with it. Counted before,
// so that a mail that kills the daemon is set aside some day.
func (l *Ledger) Attempt(ctx context.Context, jobID int64) (attempts int, err error) {
	err = l.write(ctx, "attempt", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE jobs SET attempts = attempts + 1 WHERE id = ? AND state = ?`, jobID, JobAccepted)
		if err := touched(res, err, fmt.Errorf("%w: job %d is not accepted", ErrJobState, jobID)); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT attempts FROM jobs WHERE id = ?`, jobID).Scan(&attempts)
	})
	return attempts, err
}

// Jobs returns the jobs of a bot that are in a state, in the order in which they were accepted.
func (l *Ledger) Jobs(ctx context.Context, addr bot.Address, state JobState) ([]Job, error) {
	rows, err := l.db.QueryContext(ctx, selectJobs+`WHERE bot = ? AND state = ? ORDER BY id`, addr, state)
	jobs, err := collect(rows, err, scanJob)
	return jobs, l.explain("jobs", err)
}

// JobAt returns the job of the mail at a cursor. The error wraps ErrNotFound where that mail was not accepted.
func (l *Ledger) JobAt(ctx context.Context, addr bot.Address, c Cursor) (Job, error) {
	rows, err := l.db.QueryContext(ctx, selectJobs+`WHERE bot = ? AND uid_validity = ? AND uid = ?`, addr, c.UIDValidity, c.UID)
	jobs, err := collect(rows, err, scanJob)
	if err == nil && len(jobs) == 0 {
		err = fmt.Errorf("%w: no job for the mail %d", ErrNotFound, c.UID)
	}
	if err != nil {
		return Job{}, l.explain("job", err)
	}
	return jobs[0], nil
}

// Forgive takes back what Attempt has counted: the session ended early, and not for the mail's sake.
func (l *Ledger) Forgive(ctx context.Context, jobID int64) error {
	return l.write(ctx, "forgive", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE jobs SET attempts = attempts - 1 WHERE id = ? AND attempts > 0`, jobID)
		return err
	})
}

// Cleared records that the mail of a committed job is deleted from the relay. For a job that was set aside it does nothing:
// that stays failed.
func (l *Ledger) Cleared(ctx context.Context, jobID int64) error {
	return l.write(ctx, "cleared", func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE jobs SET state = iif(state = 'failed', 'failed', 'cleared')
			WHERE id = ? AND state <> 'accepted'`, jobID)
		return touched(res, err, fmt.Errorf("%w: job %d is not committed", ErrJobState, jobID))
	})
}

// Refusal is a mail that the gate refused. Only the first 200 bytes of the reason count.
type Refusal struct {
	Cursor Cursor
	Reason string
}

// Refused counts mails that the gate refused, each once for its cursor, however often it is seen until it is deleted.
func (l *Ledger) Refused(ctx context.Context, addr bot.Address, refusals ...Refusal) error {
	return l.write(ctx, "refused", func(tx *sql.Tx) error {
		if err := installed(ctx, tx, addr); err != nil {
			return err
		}
		for _, r := range refusals {
			if err := countRefusal(ctx, tx, addr, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func countRefusal(ctx context.Context, tx *sql.Tx, addr bot.Address, r Refusal) error {
	res, err := tx.ExecContext(ctx, `INSERT INTO refused (bot, uid_validity, uid) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		addr, r.Cursor.UIDValidity, r.Cursor.UID)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO refusals (bot, reason, count) VALUES (?, ?, 1)
		ON CONFLICT (bot, reason) DO UPDATE SET count = count + 1`, addr, r.Reason[:min(len(r.Reason), maxReason)]); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM refused WHERE bot = ? AND (uid_validity <> ? OR uid < ?)`, addr, r.Cursor.UIDValidity,
		int64(r.Cursor.UID)-refusedSpan)
	return err
}

// Refusals returns how many mails were refused, by reason.
func (l *Ledger) Refusals(ctx context.Context, addr bot.Address) (map[string]int64, error) {
	type counted struct {
		reason string
		count  int64
	}
	rows, err := l.db.QueryContext(ctx, `SELECT reason, count FROM refusals WHERE bot = ?`, addr)
	all, err := collect(rows, err, func(rows *sql.Rows) (c counted, err error) {
		return c, rows.Scan(&c.reason, &c.count)
	})
	if err != nil {
		return nil, l.explain("refusals", err)
	}
	m := make(map[string]int64, len(all))
	for _, c := range all {
		m[c.reason] = c.count
	}
	return m, nil
}

// Finished reports whether a mail with this signer and inner Message-ID was committed or set aside before: then the mail at
// hand is a replay. It is false where either is empty.
func (l *Ledger) Finished(ctx context.Context, addr bot.Address, sender bot.Fingerprint, messageID string) (bool, error) {
	if sender == "" || messageID == "" {
		return false, nil
	}
	var n int
	err := l.db.QueryRowContext(ctx, `SELECT count(*) FROM jobs WHERE bot = ? AND sender = ? AND message_id = ?
		AND state <> 'accepted'`, addr, sender, bounded(messageID)).Scan(&n)
	return n > 0, l.explain("finished", err)
}

// Announced reports whether a mail of a bot that announces another, by that one's inner Message-ID, was committed or set aside.
func (l *Ledger) Announced(ctx context.Context, addr bot.Address, messageID string) (bool, error) {
	return l.over(ctx, "announced", `announces <> '' AND announces = ?`, addr, bounded(messageID))
}

// KnowsAddress reports whether a mail that claimed to be from an address was committed or set aside before.
func (l *Ledger) KnowsAddress(ctx context.Context, addr, from bot.Address) (bool, error) {
	return l.over(ctx, "known address", `from_address = ?`, addr, from)
}

// KnowsSender reports whether a mail that was signed by a sender was committed or set aside before, also one that Tidy has forgotten
// if its sender wrote to the bot directly.
func (l *Ledger) KnowsSender(ctx context.Context, addr bot.Address, sender bot.Fingerprint) (found bool, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM consents WHERE bot = ?1 AND contact = ?2)
		OR EXISTS (SELECT 1 FROM jobs WHERE bot = ?1 AND sender = ?2 AND state <> 'accepted')`, addr, sender).Scan(&found)
	return found, l.explain("known sender", err)
}

// over reports whether a job of a bot is over for which a condition with one parameter holds.
func (l *Ledger) over(ctx context.Context, what, condition string, addr bot.Address, value any) (found bool, err error) {
	err = l.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM jobs WHERE bot = ? AND `+condition+` AND state <> 'accepted')`,
		addr, value).Scan(&found)
	return found, l.explain(what, err)
}
