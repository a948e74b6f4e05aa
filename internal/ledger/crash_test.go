package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"modernc.org/sqlite"

	"mayfly/internal/bot"
)

// The tests of this file kill a child, which is this test binary again, with SIGKILL: in the middle of a transaction, just
// before its COMMIT, just after it, and at times of chance. The points inside come from SQLite itself: temporary
// triggers on every table call a function that counts, and kills at a count.

func TestMain(m *testing.M) {
	if path := os.Getenv("LEDGER_CRASH"); path != "" {
		point, _ := strconv.Atoi(os.Getenv("LEDGER_POINT"))
		if err := crash(path, point); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func rawOpen(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path))
	must(t, err)
	return db
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// crash works in an existing ledger: a session for each UID from 1 on, and dies at the given point. With point 0 it goes on
// until it is killed, and says on stdout which sessions were committed.
func crash(path string, point int) error {
	ctx := context.Background()
	l, err := Open(ctx, path)
	if err != nil {
		return err
	}
	if point > 0 {
		if err := arm(l, point); err != nil {
			return err
		}
	}
	for n := 1; point == 0 || n <= 2; n++ {
		if err := oneSession(ctx, l, n); err != nil {
			return err
		}
		fmt.Println(n)
	}
	return nil
}

func oneSession(ctx context.Context, l *Ledger, n int) error {
	j, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{7, uint32(n)}, Kind: "message", Sender: "AB", MessageID: fmt.Sprint(n)})
	if err != nil {
		return err
	}
	if _, err := l.Attempt(ctx, j.ID); err != nil {
		return err
	}
	return l.Commit(ctx, session(j, n))
}

// arm makes the process die when the point-th write of a row, or end of a transaction, comes.
func arm(l *Ledger, point int) error {
	count := 0
	reached := func() {
		if count++; count == point {
			die()
		}
	}
	err := sqlite.RegisterScalarFunction("reached", 0, func(*sqlite.FunctionContext, []driver.Value) (driver.Value, error) {
		reached()
		return int64(0), nil
	})
	if err != nil {
		return err
	}
	// A function is known to connections that are opened after it was registered.
	l.db.SetMaxIdleConns(0)
	l.db.SetMaxIdleConns(1)
	for _, table := range []string{"bots", "states", "jobs", "runs", "outgoing"} {
		for _, event := range []string{"INSERT", "UPDATE"} {
			for _, when := range []string{"BEFORE", "AFTER"} {
				_, err := l.db.Exec(fmt.Sprintf(`CREATE TEMP TRIGGER %[1]s_%[2]s_%[3]s %[1]s %[2]s ON main.%[3]s
					BEGIN SELECT reached(); END`, when, event, table))
				if err != nil {
					return err
				}
			}
		}
	}
	conn, err := l.db.Conn(context.Background())
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error {
		c.(sqlite.HookRegisterer).RegisterCommitHook(func() int32 { reached(); return 0 })
		return nil
	})
}

func child(t *testing.T, path string, point int) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "LEDGER_CRASH="+path, "LEDGER_POINT="+strconv.Itoa(point))
	cmd.Stderr = os.Stderr
	return cmd
}

func killed(err error) bool {
	exit, ok := err.(*exec.ExitError)
	return ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// whole checks that every session in the ledger is there with all its parts or not at all, and returns how many there are.
func whole(t *testing.T, path string) (sessions, accepted int) {
	t.Helper()
	ctx := t.Context()
	l, err := Open(ctx, path)
	must(t, err)
	defer l.Close()
	b, err := l.Bot(ctx, dice)
	must(t, err)
	n := int(b.Account)
	done, err := l.Jobs(ctx, dice, JobCommitted)
	must(t, err)
	open, err := l.Jobs(ctx, dice, JobAccepted)
	must(t, err)
	out, err := l.Outbox(ctx, dice, 1<<20)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 1<<20)
	must(t, err)
	if b.Storage != bot.Generation(n) || int(b.UIDNext) != n+1 || b.State.Schema != n || len(done) != n || len(out) != 2*n ||
		len(runs) != min(n, runsKept) || len(open) > 1 {
		t.Fatalf("half a session: %+v, %d jobs done, %d open, %d mails, %d runs", b, len(done), len(open), len(out), len(runs))
	}
	for i, o := range out {
		if o.Path != fmt.Sprintf("%d-%c.eml", i/2+1, 'a'+i%2) {
			t.Fatalf("mail %d is %s", i, o.Path)
		}
	}
	return n, len(open)
}

func prepared(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	must(t, l.Install(t.Context(), Bot{Address: dice}))
	must(t, l.Close())
	return path
}

func TestKilledAtEveryStep(t *testing.T) {
	seen := map[[2]int]int{}
	for point := 1; ; point++ {
		if point > 200 {
			t.Fatal("no end of points")
		}
		path := prepared(t)
		err := child(t, path, point).Run()
		if err == nil {
			break
		}
		if !killed(err) {
			t.Fatalf("point %d: %v", point, err)
		}
		sessions, accepted := whole(t, path)
		seen[[2]int{sessions, accepted}]++
		// What was interrupted can be done again, and is there once.
		l := open(t, path)
		must(t, oneSession(t.Context(), l, sessions+1))
		must(t, l.Close())
		if again, _ := whole(t, path); again != sessions+1 {
			t.Fatalf("point %d: %d sessions, then %d", point, sessions, again)
		}
	}
	// Nothing yet; accepted, not committed; the same of the second session.
	for _, state := range [][2]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}} {
		if seen[state] < 3 {
			t.Errorf("only %d kills found (sessions, accepted) = %v: %v", seen[state], state, seen)
		}
	}
}

func TestKilledAtAnyTime(t *testing.T) {
	// This child has no triggers: it is the ledger as it is, killed wherever it happens to be.
	for round := range 12 {
		path := prepared(t)
		cmd := child(t, path, 0)
		said, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		time.AfterFunc(time.Duration(20+7*round)*time.Millisecond, func() { cmd.Process.Kill() })
		lines, err := io.ReadAll(said)
		must(t, err)
		if err := cmd.Wait(); !killed(err) {
			t.Fatal(err)
		}
		promised := strings.Count(string(lines), "\n")
		if sessions, _ := whole(t, path); sessions < promised || sessions > promised+1 {
			t.Errorf("%d sessions were reported committed, %d are there", promised, sessions)
		}
	}
}

// A power cut can leave the write-ahead log cut anywhere: what is left is a number of whole sessions.
func TestWALCutAnywhere(t *testing.T) {
	path := prepared(t)
	l, err := Open(t.Context(), path)
	must(t, err)
	for n := 1; n <= 5; n++ {
		must(t, oneSession(t.Context(), l, n))
	}
	db, err := os.ReadFile(path)
	must(t, err)
	wal, err := os.ReadFile(path + "-wal")
	must(t, err)
	must(t, l.Close())
	seen := map[int]bool{}
	last := 5
	for cut := len(wal); cut >= 0; cut -= len(wal)/40 + 13 {
		left := filepath.Join(t.TempDir(), "ledger.db")
		must(t, os.WriteFile(left, db, 0o600))
		must(t, os.WriteFile(left+"-wal", wal[:cut], 0o600))
		sessions, _ := whole(t, left)
		if sessions > last {
			t.Errorf("cut at %d: %d sessions, more than the %d of a longer log", cut, sessions, last)
		}
		last = sessions
		seen[last] = true
	}
	if len(seen) != 6 {
		t.Errorf("the cuts left %v sessions, want each number from 0 to 5", seen)
	}
}
