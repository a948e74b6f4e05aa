//go:build linux && (amd64 || arm64)

package faults

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"mayfly/internal/bot"
	"mayfly/internal/ledger"
	"mayfly/test/inject"
)

func openLedger(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
	must(t, err)
	return l
}

// times are in microseconds or minutes since 1970: two tries differ in them.
var times = regexp.MustCompile(`\b(1[789]\d{14}|[23]\d{7})\b`)

// ledgerState is all that is in all tables.
func ledgerState(t *testing.T, dir string) string {
	t.Helper()
	must(t, openLedger(t, dir).Close()) // looks for damages
	db, err := sql.Open("sqlite", filepath.Join(dir, "ledger.db"))
	must(t, err)
	defer db.Close()
	var damage string
	must(t, db.QueryRow(`PRAGMA integrity_check`).Scan(&damage))
	all := []string{"  " + damage}
	for _, name := range query(t, db, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'sqlite_sequence' ORDER BY name`) {
		for _, row := range query(t, db, `SELECT * FROM "`+name+`" ORDER BY 1, 2`) {
			all = append(all, "  "+name+" "+times.ReplaceAllString(row, "T"))
		}
	}
	return strings.Join(all, "\n")
}

// query returns the rows, as text that is cut off where it is long.
func query(t *testing.T, db *sql.DB, text string) []string {
	t.Helper()
	rows, err := db.Query(text)
	must(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	must(t, err)
	var all []string
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		must(t, rows.Scan(into...))
		var row []string
		for _, v := range values {
			row = append(row, fmt.Sprintf("%.60s", fmt.Sprint(v)))
		}
		all = append(all, strings.Join(row, " "))
	}
	must(t, rows.Err())
	return all
}

func at(second int64) time.Time { return time.Unix(1_780_000_000+second, 0).UTC() }

func job(uid uint32) ledger.Job {
	return ledger.Job{Bot: dice, Cursor: ledger.Cursor{UIDValidity: 7, UID: uid}, Kind: "message", Sender: "AB", From: "ada@example.org", MessageID: fmt.Sprint(uid), Size: 100}
}

func commit(id int64, n int) ledger.Commit {
	return ledger.Commit{
		Bot: dice, Jobs: []int64{id}, Account: bot.Generation(n), Storage: bot.Generation(n), UIDNext: uint32(n) + 1,
		State: bot.AccountState{Schema: n, Readable: true}, Consent: "AB", ConsentFrom: "ada@example.org",
		Outgoing: []ledger.Outgoing{{From: dice, To: []bot.Address{"ada@example.org"}, MessageID: "<a>", Path: fmt.Sprintf("%032x.eml", n), Size: 10}},
		Run:      &bot.RunRecord{Status: bot.RunOK, CPU: 5 * time.Millisecond, Log: strings.Repeat("log", 3000)},
		Started:  at(10), Ended: at(20),
	}
}

// accepted is a ledger with a bot, whose first mail was committed and whose second was accepted.
func accepted(t *testing.T, dir string) {
	l := openLedger(t, dir)
	defer l.Close()
	must(t, l.Install(t.Context(), ledger.Bot{Address: dice, Digest: digest, Installed: at(0), Updated: at(0)}))
	j, err := l.Accept(t.Context(), job(1))
	must(t, err)
	must(t, l.Commit(t.Context(), commit(j.ID, 1)))
	_, err = l.Accept(t.Context(), job(2))
	must(t, err)
}

// withLog is accepted after a kill, with a write-ahead log that the next commit moves into the database.
func withLog(t *testing.T, dir string) {
	busy := t.TempDir()
	accepted(t, busy)
	l := openLedger(t, busy)
	defer l.Close()
	for uid := uint32(3); l.Size() < 5<<20; uid++ {
		j, err := l.Accept(t.Context(), job(uid))
		must(t, err)
		must(t, l.Fail(t.Context(), []int64{j.ID}, bot.RunRecord{Status: bot.RunInternal, Log: strings.Repeat("log", 20_000)}, true))
	}
	must(t, copyTree(busy, dir))
}

func ledgerOperations() []operation {
	on := func(do func(*testing.T, *ledger.Ledger) error) func(*testing.T, string) work {
		return func(t *testing.T, dir string) work {
			l := openLedger(t, dir)
			return work{func() error { return do(t, l) }, func() { l.Close() }}
		}
	}
	opening := func(t *testing.T, dir string) work {
		return work{func() error {
			l, err := ledger.Open(t.Context(), filepath.Join(dir, "ledger.db"))
			if err == nil {
				err = l.Close()
			}
			return err
		}, nil}
	}
	// committing is what a repetition does: a job that is committed is not committed again.
	committing := on(func(t *testing.T, l *ledger.Ledger) error {
		j, err := l.JobAt(t.Context(), dice, job(2).Cursor)
		if err != nil || j.State == ledger.JobCommitted {
			return err
		}
		return l.Commit(t.Context(), commit(j.ID, 2))
	})
	all := []operation{
		looking(op("ledger", "open, the first time", nil, opening, ledgerState)),
		looking(op("ledger", "open after a kill", withLog, opening, ledgerState)),
		op("ledger", "install", accepted, on(func(t *testing.T, l *ledger.Ledger) error {
			return l.Install(t.Context(), ledger.Bot{Address: dice, Digest: digest + "00", Updated: at(1)})
		}), ledgerState),
		op("ledger", "accept", accepted, on(func(t *testing.T, l *ledger.Ledger) error {
			_, err := l.Accept(t.Context(), job(3))
			return err
		}), ledgerState),
		op("ledger", "commit", accepted, committing, ledgerState),
		op("ledger", "commit, and empty the log", withLog, committing, ledgerState),
		op("ledger", "refuse", accepted, on(func(t *testing.T, l *ledger.Ledger) error {
			return l.Refused(t.Context(), dice, ledger.Refusal{Cursor: ledger.Cursor{UIDValidity: 7, UID: 9}, Reason: "unsigned"})
		}), ledgerState),
		op("ledger", "tidy", accepted, on(func(t *testing.T, l *ledger.Ledger) error {
			const ever = 100 * 365 * 24 * time.Hour // one transaction: of the run alone
			_, err := l.Tidy(t.Context(), at(1e7), ledger.Retention{Done: ever, SetAside: ever, Runs: time.Hour, Logs: ever, Dead: ever, RunCount: 1000, LogBytes: 1e9})
			return err
		}), ledgerState),
		op("ledger", "remove", accepted, on(func(t *testing.T, l *ledger.Ledger) error {
			err := l.Remove(t.Context(), dice)
			if n, count := l.CountBots(t.Context()); count == nil && n == 0 {
				return nil
			}
			return err
		}), ledgerState),
	}
	for i := range all {
		// SQLite syncs the folder of a new log, and does not mind when that fails. Open has done it before, and does: TestOpenSyncsItsFolder.
		// Nor does it mind when the log cannot be moved into the database after a commit: it is the log that has the commit.
		moved := strings.Contains(all[i].name, "empty the log")
		all[i].unsynced = func(name string) bool { return name == "." || moved }
	}
	return all
}

func TestOpenSyncsItsFolder(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, string){"new": func(*testing.T, string) {}, "there": accepted, "after a kill": withLog} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			var err error
			must(t, inject.Run(dir, func(c inject.Call) inject.Answer {
				if c.Effect == inject.Sync && c.Path == dir {
					return inject.Answer{Errno: syscall.EIO}
				}
				return inject.Answer{}
			}, func() {
				var l *ledger.Ledger
				if l, err = ledger.Open(t.Context(), filepath.Join(dir, "ledger.db")); err == nil {
					l.Close()
				}
			}))
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("its folder was not made durable, and Open says %v", err)
			}
		})
	}
}
