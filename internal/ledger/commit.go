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

const (
	runsKept = 1000     // a bot
	logsKept = 20       // a bot
	maxLog   = 64 << 10 // bytes of a run's log: its end is kept
	maxSaid  = 4 << 10  // bytes of a run's message: its end is kept
)

// Commit is all that a session changes. Account, Storage, UIDNext and State are what is in force from now on, also where
// they are what was in force before.
type Commit struct {
	Bot         bot.Address
	Jobs        []int64  // all of them accepted; none for a schedule
	Schedule    *Instant // that the session was for; nil: none
	JobState    JobState // JobCommitted where empty, or JobFailed
	Account     bot.Generation
	Storage     bot.Generation
	UIDNext     uint32
	State       bot.AccountState
	Fingerprint bot.Fingerprint // as it was where empty
	Invite      string          // as it was where empty
	Consent     bot.Fingerprint // of who wrote to the bot directly; empty for nobody
	ConsentFrom bot.Address     // the address that it wrote from
	Word        *Word           // a contact's about consent; may be nil
	Outgoing    []Outgoing      // in the order in which to send; ID, Bot and Attempts do not count
	Notice      *Notice         // that is among Outgoing; may be nil
	Run         *bot.RunRecord  // nil where core was alone and nothing is to be recorded
	Unsent      map[string]int  // as in RunRecord, to be counted as Failures
	Started     time.Time
	Ended       time.Time
}

// Run is what is kept of one run.
type Run struct {
	ID        int64
	Bot       bot.Address
	Jobs      []int64
	Started   time.Time
	Ended     time.Time
	Committed bool // false: it left nothing but this record, and its jobs were tried again or set aside
	Record    bot.RunRecord
}

// Commit makes a session true, whole, in one transaction; one with several mails has a Commit for each. It is refused with ErrRemoved where
// the bot is gone, with ErrJobState where a job is not (or no longer) accepted or a schedule not at its instant, with ErrStale where a
// generation or UIDNext is below the ledger's. A run that failed is counted as a Failure.
func (l *Ledger) Commit(ctx context.Context, commits ...Commit) error {
	return l.write(ctx, "commit", func(tx *sql.Tx) error {
		for _, c := range commits {
			if err := l.commit(ctx, tx, c); err != nil {
				return fmt.Errorf("%s: %w", c.Bot, err)
			}
		}
		return nil
	})
}

func (l *Ledger) commit(ctx context.Context, tx *sql.Tx, c Commit) error {
	if err := installed(ctx, tx, c.Bot); err != nil {
		return err
	}
	if err := advance(ctx, tx, c); err != nil {
		return err
	}
	if err := saveState(ctx, tx, c.Bot, c.State); err != nil {
		return err
	}
	if err := finish(ctx, tx, c); err != nil {
		return err
	}
	if c.Schedule != nil {
		var began time.Time
		if c.Run != nil && c.Run.Status == bot.RunOK {
			began = c.Started
		}
		if err := moveSchedule(ctx, tx, c.Bot, *c.Schedule, began); err != nil {
			return err
		}
	}
	if err := consent(ctx, tx, c.Bot, c.Consent, c.ConsentFrom, c.Ended); err != nil {
		return err
	}
	if c.Word != nil {
		if err := takeWord(ctx, tx, c.Bot, *c.Word, c.Ended); err != nil {
			return err
		}
	}
	if err := l.say(ctx, tx, c); err != nil {
		return err
	}
	for limit, n := range c.Unsent {
		if err := countFailure(ctx, tx, c.Bot, FailedLimit, limit, n, c.Ended); err != nil {
			return err
		}
	}
	if c.Notice != nil {
		if err := noticed(ctx, tx, c.Bot, *c.Notice, c.Ended); err != nil {
			return err
		}
	}
	if c.Run == nil {
		return nil
	}
	if c.Run.Status != bot.RunOK {
		if err := countFailure(ctx, tx, c.Bot, FailedRun, summary(c.Run.Message), 1, c.Ended); err != nil {
			return err
		}
	}
	return saveRun(ctx, tx, Run{Bot: c.Bot, Jobs: c.Jobs, Started: c.Started, Ended: c.Ended, Committed: true, Record: *c.Run})
}

// Say puts a mail into the outbox before the session that says it is committed, and charges it as Commit does. It is refused with
// ErrRemoved where the bot is gone, with ErrJobState where one of the session's jobs is not accepted.
func (l *Ledger) Say(ctx context.Context, addr bot.Address, jobIDs []int64, o Outgoing) error {
	return l.write(ctx, "say for "+string(addr), func(tx *sql.Tx) error {
		if err := installed(ctx, tx, addr); err != nil {
			return err
		}
		for _, id := range jobIDs {
			if of, err := owner(ctx, tx, []int64{id}); err != nil || of != addr {
				return errors.Join(err, fmt.Errorf("%w: job %d is of %q", ErrJobState, id, of))
			}
		}
		return l.say(ctx, tx, Commit{Bot: addr, Jobs: jobIDs, Outgoing: []Outgoing{o}})
	})
}

// say puts what a session says into the outbox, and charges what it used.
func (l *Ledger) say(ctx context.Context, tx *sql.Tx, c Commit) error {
	for _, o := range c.Outgoing {
		if err := enqueue(ctx, tx, c.Bot, o); err != nil {
			return err
		}
	}
	return l.chargeSession(ctx, tx, c)
}

func advance(ctx context.Context, tx *sql.Tx, c Commit) error {
	res, err := tx.ExecContext(ctx, `UPDATE bots SET account = :account, storage = :storage, uid_next = :uid_next,
			fingerprint = coalesce(nullif(:fingerprint, ''), fingerprint), invite = coalesce(nullif(:invite, ''), invite)
		WHERE address = :bot AND account <= :account AND storage <= :storage AND uid_next <= :uid_next`,
		sql.Named("bot", c.Bot), sql.Named("account", c.Account), sql.Named("storage", c.Storage),
		sql.Named("uid_next", c.UIDNext), sql.Named("fingerprint", c.Fingerprint), sql.Named("invite", c.Invite))
	return touched(res, err, fmt.Errorf("%w: account %d, folder %d, UIDNEXT %d", ErrStale, c.Account, c.Storage, c.UIDNext))
}

func finish(ctx context.Context, tx *sql.Tx, c Commit) error {
	state := c.JobState
	if state == "" {
		state = JobCommitted
	}
	if state != JobCommitted && state != JobFailed {
		return fmt.Errorf("%w: a commit leaves its jobs committed or failed, not %q", ErrJobState, state)
	}
	for _, id := range c.Jobs {
		res, err := tx.ExecContext(ctx, `UPDATE jobs SET state = ? WHERE id = ? AND bot = ? AND state = ?`, state, id, c.Bot,
			JobAccepted)
		if err := touched(res, err, fmt.Errorf("%w: job %d of %s is not accepted", ErrJobState, id, c.Bot)); err != nil {
			return err
		}
	}
	return nil
}

// Fail records a session that was not committed: it changed nothing. With setAside its jobs become JobFailed, else they
// stay accepted and their session can be tried again. The jobs must be of one bot, accepted, and at least one. A mail that is set
// aside is counted as a Failure.
func (l *Ledger) Fail(ctx context.Context, jobIDs []int64, record bot.RunRecord, setAside bool) error {
	return l.write(ctx, "fail", func(tx *sql.Tx) error {
		addr, err := owner(ctx, tx, jobIDs)
		if err != nil {
			return err
		}
		if setAside {
			if err := finish(ctx, tx, Commit{Bot: addr, Jobs: jobIDs, JobState: JobFailed}); err != nil {
				return err
			}
			if err := countFailure(ctx, tx, addr, FailedHost, summary(record.Message), 1, time.Now()); err != nil {
				return err
			}
		}
		if err := l.chargeSession(ctx, tx, Commit{Bot: addr, Jobs: jobIDs, Run: &record}); err != nil {
			return err
		}
		now := time.Now()
		return saveRun(ctx, tx, Run{Bot: addr, Jobs: jobIDs, Started: now.Add(-record.Wall), Ended: now, Record: record})
	})
}

// Abandon ends a job whose session was to be tried again, and records why it is not. Nothing of it is kept, and nobody is told.
func (l *Ledger) Abandon(ctx context.Context, jobID int64, why string) error {
	return l.write(ctx, "abandon", func(tx *sql.Tx) error {
		addr, err := owner(ctx, tx, []int64{jobID})
		if err != nil {
			return err
		}
		if err := finish(ctx, tx, Commit{Bot: addr, Jobs: []int64{jobID}}); err != nil {
			return err
		}
		now := time.Now()
		return saveRun(ctx, tx, Run{Bot: addr, Jobs: []int64{jobID}, Started: now, Ended: now, Record: bot.RunRecord{Status: bot.RunInternal, Message: why}})
	})
}

// owner returns the one bot that all the jobs belong to.
func owner(ctx context.Context, tx *sql.Tx, jobIDs []int64) (bot.Address, error) {
	if len(jobIDs) == 0 {
		return "", errors.New("no job was given that says whose session it was")
	}
	var addr bot.Address
	for i, id := range jobIDs {
		var of bot.Address
		err := tx.QueryRowContext(ctx, `SELECT bot FROM jobs WHERE id = ? AND state = ?`, id, JobAccepted).Scan(&of)
		if errors.Is(err, sql.ErrNoRows) {
			return "", fmt.Errorf("%w: job %d is not accepted", ErrJobState, id)
		}
		if err != nil {
			return "", err
		}
		if i > 0 && of != addr {
			return "", fmt.Errorf("%w: jobs of both %s and %s", ErrJobState, addr, of)
		}
		addr = of
	}
	return addr, nil
}

func saveRun(ctx context.Context, tx *sql.Tx, r Run) error {
	log := tail(r.Record.Log, maxLog)
	r.Record.Log = ""
	r.Record.Message, r.Record.Kept = tail(r.Record.Message, maxSaid), tail(r.Record.Kept, maxSaid)
	record, err := json.Marshal(r.Record)
	if err != nil {
		return err
	}
	jobs, err := json.Marshal(append([]int64{}, r.Jobs...))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO runs (bot, jobs, started, ended, committed, record, log)
		VALUES (?, ?, ?, ?, ?, ?, ?)`, r.Bot, string(jobs), micro(r.Started), micro(r.Ended), r.Committed, string(record),
		log); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM runs WHERE bot = ?1 AND id <=
		(SELECT id FROM runs WHERE bot = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, r.Bot, runsKept); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE runs SET log = '' WHERE log <> '' AND id =
		(SELECT id FROM runs WHERE bot = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`, r.Bot, logsKept)
	return err
}

// summary is the head of a message for the author: what failed, and where in the program.
func summary(message string) string {
	lines := strings.SplitN(strings.TrimSpace(message), "\n", 3)
	return strings.Join(lines[:min(len(lines), 2)], "\n")
}

// tail keeps the end of a long text, where the error is, and says what was cut. What a bot printed need not be UTF-8.
func tail(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	cut := len(s) - most
	return fmt.Sprintf("[%d bytes cut]\n", cut) + strings.ToValidUTF8(s[cut:], "")
}

// Runs returns the newest runs of a bot, newest first.
func (l *Ledger) Runs(ctx context.Context, addr bot.Address, limit int) ([]Run, error) {
	rows, err := l.db.QueryContext(ctx, `SELECT id, bot, jobs, started, ended, committed, record, log FROM runs WHERE bot = ?
		ORDER BY id DESC LIMIT ?`, addr, limit)
	runs, err := collect(rows, err, scanRun)
	return runs, l.explain("runs", err)
}

func scanRun(rows *sql.Rows) (Run, error) {
	var r Run
	var started, ended int64
	var jobs, record, log string
	if err := rows.Scan(&r.ID, &r.Bot, &jobs, &started, &ended, &r.Committed, &record, &log); err != nil {
		return r, err
	}
	r.Started, r.Ended = fromMicro(started), fromMicro(ended)
	err := errors.Join(json.Unmarshal([]byte(jobs), &r.Jobs), json.Unmarshal([]byte(record), &r.Record))
	r.Record.Log = log
	return r, err
}
