package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mayfly/internal/bot"
)

// over accepts and commits a mail, and leaves a run with a log.
func over(t *testing.T, l *Ledger, uid uint32, log string) Job {
	t.Helper()
	j := accept(t, l, uid)
	b, err := l.Bot(t.Context(), dice)
	must(t, err)
	must(t, l.Commit(t.Context(), Commit{Bot: dice, Jobs: []int64{j.ID}, Account: b.Account + 1, UIDNext: b.UIDNext + 1,
		Run: &bot.RunRecord{Status: bot.RunOK, Log: log}, Started: time.Now(), Ended: time.Now()}))
	return j
}

// What is over goes after its time, and what has still to be done never does.
func TestTidyForgetsWhatIsOver(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	const day = 24 * time.Hour
	cleared, committed, failed := over(t, l, 1, "a"), over(t, l, 2, "b"), accept(t, l, 3)
	waiting := accept(t, l, 4)
	must(t, l.Cleared(ctx, cleared.ID))
	must(t, l.Fail(ctx, []int64{failed.ID}, bot.RunRecord{Status: bot.RunInternal}, true))
	must(t, l.Commit(ctx, Commit{Bot: dice, Account: 9, UIDNext: 9, Outgoing: []Outgoing{{To: []bot.Address{"a@b"}, Path: "1"}, {To: []bot.Address{"a@b"}, Path: "2"}}}))
	unsent, err := l.Outbox(ctx, dice, 9)
	must(t, err)
	must(t, l.Undeliverable(ctx, unsent[0].ID, "no such user"))

	counts := func() string {
		jobs := ""
		for _, state := range []JobState{JobCleared, JobCommitted, JobFailed, JobAccepted} {
			all, err := l.Jobs(ctx, dice, state)
			must(t, err)
			jobs += fmt.Sprint(len(all), " ")
		}
		runs, err := l.Runs(ctx, dice, 99)
		must(t, err)
		logs := 0
		for _, r := range runs {
			logs += len(r.Record.Log)
		}
		dead, err := l.Dead(ctx, dice, 9)
		must(t, err)
		out, err := l.Outbox(ctx, dice, 9)
		must(t, err)
		return fmt.Sprintf("jobs %sruns %d logs %d dead %d outbox %d", jobs, len(runs), logs, len(dead), len(out))
	}
	for _, test := range []struct {
		age  time.Duration
		want string
	}{
		{2 * day, "jobs 1 1 1 1 runs 3 logs 2 dead 1 outbox 1"},
		{29 * day, "jobs 1 1 1 1 runs 3 logs 2 dead 1 outbox 1"},
		{31 * day, "jobs 0 1 1 1 runs 3 logs 0 dead 0 outbox 1"},
		{91 * day, "jobs 0 1 0 0 runs 0 logs 0 dead 0 outbox 1"},
		{1000 * day, "jobs 0 1 0 0 runs 0 logs 0 dead 0 outbox 1"},
	} {
		_, err := l.Tidy(ctx, time.Now().Add(test.age), DefaultRetention())
		must(t, err)
		if got := counts(); got != test.want {
			t.Errorf("after %v: %s, want %s", test.age, got, test.want)
		}
	}
	_ = committed
	_ = waiting
	must(t, l.Cleared(ctx, committed.ID))
}

// A contact that wrote to the bot directly stays known when its mails are forgotten.
func TestTidyForgetsNoContact(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	must(t, l.Commit(ctx, Commit{Bot: dice, Jobs: []int64{j.ID}, UIDNext: 2, Consent: "AB12", Ended: time.Now()}))
	must(t, l.Cleared(ctx, j.ID))
	rows, err := l.Tidy(ctx, time.Now().Add(50*24*time.Hour), DefaultRetention())
	must(t, err)
	known, err := l.KnowsSender(ctx, dice, "AB12")
	must(t, err)
	if rows != 1 || !known {
		t.Errorf("%d rows went, the sender is known: %v", rows, known)
	}
}

// What all bots together have is bounded by size: the newest stays.
func TestTidyBoundsTheHost(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	keep := DefaultRetention()
	keep.RunCount, keep.LogBytes = 5, 300
	for i := range 8 {
		over(t, l, uint32(i+1), strings.Repeat("x", 100))
	}
	_, err := l.Tidy(ctx, time.Now(), keep)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 99)
	must(t, err)
	logs := ""
	for _, r := range runs {
		logs += fmt.Sprint(len(r.Record.Log), " ")
	}
	if logs != "100 100 100 0 0 " {
		t.Errorf("bytes of the logs, newest first: %s", logs)
	}
}

// The write-ahead log is emptied, and unused space given back.
func TestTidyGivesSpaceBack(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	for i := range 400 {
		over(t, l, uint32(i+1), "")
	}
	if _, err := l.db.Exec(`UPDATE runs SET log = printf('%.*c', 60000, 'x')`); err != nil {
		t.Fatal(err)
	}
	before := sizeOf(l.path)
	keep := DefaultRetention()
	keep.LogBytes = 0
	_, err := l.Tidy(ctx, time.Now(), keep)
	must(t, err)
	if now := l.Size(); before < 20<<20 || now > 4<<20 || sizeOf(l.path+"-wal") != 0 {
		t.Errorf("%d bytes before, %d after, %d of them the log", before, now, sizeOf(l.path+"-wal"))
	}
}

// A snapshot is the ledger at one moment, and nothing else happens until its caller is done.
func TestSnapshot(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	over(t, l, 1, "first")
	path := filepath.Join(t.TempDir(), "copy.db")
	done := make(chan error)
	must(t, l.Snapshot(ctx, path, func() error {
		go func() { done <- l.Remove(ctx, dice) }()
		select {
		case err := <-done:
			t.Errorf("the bot was removed beside a snapshot: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		return nil
	}))
	must(t, <-done)
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o", info.Mode().Perm())
	}
	copied := open(t, path)
	runs, err := copied.Runs(ctx, dice, 9)
	must(t, err)
	if len(runs) != 1 || runs[0].Record.Log != "first" {
		t.Errorf("the copy has the runs %v", runs)
	}
	must(t, copied.SameSchema(ctx))
	if _, err := copied.db.Exec(`CREATE TRIGGER t AFTER INSERT ON jobs BEGIN DELETE FROM runs; END`); err != nil {
		t.Fatal(err)
	}
	want(t, copied.SameSchema(ctx), ErrSchema)
}

func TestDamagesNamesWhatIsWrong(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	over(t, l, 1, "")
	found, err := l.Damages(ctx)
	must(t, err)
	if len(found) != 0 {
		t.Errorf("%q is wrong with a new ledger", found)
	}
	raw := rawOpen(t, l.path)
	defer raw.Close()
	if _, err := raw.Exec(`PRAGMA foreign_keys = 0; DELETE FROM bots`); err != nil {
		t.Fatal(err)
	}
	found, err = l.Damages(ctx)
	must(t, err)
	if all := strings.Join(found, "\n"); !strings.Contains(all, "of jobs belongs to no bots") || !strings.Contains(all, "of states belongs to no bots") {
		t.Errorf("found %q", found)
	}
}

func TestRetryNow(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	must(t, l.Commit(ctx, Commit{Bot: dice, UIDNext: 2, Outgoing: []Outgoing{{To: []bot.Address{"a@b"}, Path: "1", Size: 7}}}))
	mails, err := l.Outbox(ctx, dice, 9)
	must(t, err)
	must(t, l.Deferred(ctx, mails[0].ID, time.Now().Add(time.Hour), "away"))
	n, err := l.RetryNow(ctx, dice)
	must(t, err)
	mails, err = l.Outbox(ctx, dice, 9)
	must(t, err)
	if n != 1 || !mails[0].NotBefore.IsZero() || mails[0].LastError != "away" || time.Since(mails[0].Said) > time.Minute {
		t.Errorf("%d due: %+v", n, mails[0])
	}
	files, err := l.OutboxFiles(ctx)
	must(t, err)
	if len(files) != 1 || files[0] != (Named{dice, "1", 7}) {
		t.Errorf("files %v", files)
	}
}
