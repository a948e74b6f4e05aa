package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"mayfly/internal/bot"
)

const dice = bot.Address("dice@relay.example")

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func fresh(t *testing.T) *Ledger {
	t.Helper()
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	must(t, l.Install(t.Context(), Bot{Address: dice, Digest: "d1"}))
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

func accept(t *testing.T, l *Ledger, uid uint32) Job {
	t.Helper()
	j, err := l.Accept(t.Context(), Job{Bot: dice, Cursor: Cursor{7, uid}, Kind: "message", Sender: "AB12", From: "user@relay.example",
		MessageID: fmt.Sprintf("<%d@x>", uid), Size: 3000})
	must(t, err)
	return j
}

func TestOpenMakesAPrivateDurableFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "strange ?%#name.db")
	l := open(t, path)
	must(t, l.AddAccount(t.Context(), dice))
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", info.Name(), info.Mode().Perm())
		}
	}
	for pragma, value := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		must(t, l.db.QueryRow("PRAGMA "+pragma).Scan(&got))
		if got != value {
			t.Errorf("%s is %s, want %s", pragma, got, value)
		}
	}
}

func TestInstallUpdateRemove(t *testing.T) {
	ctx := t.Context()
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	_, err := l.Bot(ctx, dice)
	want(t, err, ErrNotFound)
	first := Bot{
		Address: dice, Manifest: bot.Manifest{Name: "Dice", Commands: []bot.Command{{Name: "roll"}}}, Digest: "d1",
		Fingerprint: "F1", Invite: "https://i.delta.chat/#x", Account: 3, Storage: 2, UIDValidity: 9, UIDNext: 40,
		State:     bot.AccountState{Schema: 150, Readable: true, PublicKeys: [][]byte{{1, 2}}, AuthTokens: []string{"t"}},
		Installed: time.UnixMicro(1000).UTC(), Updated: time.UnixMicro(2000).UTC(),
	}
	must(t, l.Install(ctx, first))
	got, err := l.Bot(ctx, dice)
	must(t, err)
	if !reflect.DeepEqual(got, first) {
		t.Fatalf("got %+v\nwant %+v", got, first)
	}

	must(t, l.Install(ctx, Bot{Address: dice, Digest: "d2", Updated: time.UnixMicro(3000).UTC()}))
	updated := first
	updated.Digest, updated.Previous, updated.Manifest, updated.Updated = "d2", "d1", bot.Manifest{}, time.UnixMicro(3000).UTC()
	got, err = l.Bot(ctx, dice)
	must(t, err)
	if !reflect.DeepEqual(got, updated) {
		t.Fatalf("an update lost something:\ngot  %+v\nwant %+v", got, updated)
	}
	g, err := l.Generations(ctx)
	must(t, err)
	if len(g) != 1 || g[dice] != (Generations{Account: 3, Storage: 2}) {
		t.Fatalf("generations %v", g)
	}

	must(t, l.Remove(ctx, dice))
	want(t, l.Remove(ctx, dice), ErrNotFound)
	all, err := l.Bots(ctx)
	must(t, err)
	if len(all) != 0 {
		t.Fatalf("still there: %v", all)
	}
}

func TestRemoveTakesAllThatBelongsToTheBot(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	must(t, l.Refused(ctx, dice, Refusal{Cursor{7, 2}, "clear"}))
	must(t, l.Commit(ctx, session(j, 1)))
	must(t, l.Remove(ctx, dice))
	for _, table := range []string{"bots", "states", "jobs", "refusals", "refused", "runs", "outgoing"} {
		var n int
		must(t, l.db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
		if n != 0 {
			t.Errorf("%d rows left in %s", n, table)
		}
	}
	want(t, l.Commit(ctx, Commit{Bot: dice, Account: 2, Storage: 2, UIDNext: 9}), ErrRemoved)
	_, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{7, 3}})
	want(t, err, ErrRemoved)
}

func TestAccounts(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	must(t, l.AddAccount(ctx, "b@relay.example"))
	first, err := l.Accounts(ctx)
	must(t, err)
	must(t, l.AddAccount(ctx, "b@relay.example"))
	again, err := l.Accounts(ctx)
	must(t, err)
	if len(again) != 1 || again[0] != first[0] || time.Since(again[0].Added) > time.Minute {
		t.Fatalf("%v, then %v", first, again)
	}
	must(t, l.RemoveAccount(ctx, "b@relay.example"))
	want(t, l.RemoveAccount(ctx, "b@relay.example"), ErrNotFound)
}

func TestTheFolderOutlivesTheBot(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	wantFolder := func(want Folder) {
		t.Helper()
		if got, err := l.Folder(ctx, dice); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	wantFolder(Folder{})
	must(t, l.SetSeen(ctx, dice, 4))
	wantFolder(Folder{Inbox: 4})
	must(t, l.SetHandled(ctx, dice, Cursor{3, 8}))
	must(t, l.SetHandled(ctx, dice, Cursor{3, 9}))
	must(t, l.SetSeen(ctx, dice, 5))
	must(t, l.Remove(ctx, dice))
	wantFolder(Folder{Handled: Cursor{3, 9}, Inbox: 5, HadBot: true})
	must(t, l.SetHandled(ctx, dice, Cursor{3, 10}))
	must(t, l.SetSeen(ctx, dice, 6))
	wantFolder(Folder{Handled: Cursor{3, 10}, Inbox: 6, HadBot: true})
}

func TestABotThatWasNeverSeenIsRemembered(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	must(t, l.Remove(ctx, dice))
	want(t, l.Remove(ctx, dice), ErrNotFound)
	if f, err := l.Folder(ctx, dice); err != nil || f != (Folder{HadBot: true}) {
		t.Errorf("%+v, %v", f, err)
	}
}

// The bundle before is what a rollback puts back. The same bundle again does not become its own predecessor.
func TestThePreviousBundleIsKept(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	for i, step := range []struct{ digest, previous string }{{"d1", ""}, {"d2", "d1"}, {"d2", "d1"}, {"d1", "d2"}, {"d3", "d1"}} {
		request := Cursor{7, uint32(i + 1)}
		must(t, l.Install(ctx, Bot{Address: dice, Digest: step.digest, Request: request}))
		b, err := l.Bot(ctx, dice)
		if err != nil || b.Digest != step.digest || b.Previous != step.previous || b.Request != request {
			t.Errorf("step %d: digest %q, previous %q, request %v, %v", i, b.Digest, b.Previous, b.Request, err)
		}
	}
	must(t, l.Remove(ctx, dice))
	must(t, l.Install(ctx, Bot{Address: dice, Digest: "d4"}))
	if b, err := l.Bot(ctx, dice); err != nil || b.Previous != "" {
		t.Errorf("a new bot has the predecessor %q, %v", b.Previous, err)
	}
}

// New bots and new bundles count, the same bundle again does not, and neither an uninstall nor a restart takes one away.
func TestInstallsAreCounted(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	start := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	at := func(minutes int, addr bot.Address, digest string) time.Time {
		t.Helper()
		now := start.Add(time.Duration(minutes) * time.Minute)
		must(t, l.Install(ctx, Bot{Address: addr, Digest: digest, Updated: now}))
		return now
	}
	times := []time.Time{at(0, dice, "d1"), at(1, "b@relay.example", "d1"), at(2, dice, "d2")}
	at(3, dice, "d2")
	must(t, l.Remove(ctx, dice))
	must(t, l.Close())
	l = open(t, path)
	got, err := l.Installs(ctx, start)
	if err != nil || !reflect.DeepEqual(got, times) {
		t.Errorf("%v, %v, want %v", got, err, times)
	}
	if got, err = l.Installs(ctx, start.Add(time.Minute)); err != nil || !reflect.DeepEqual(got, times[1:]) {
		t.Errorf("%v, %v, want %v", got, err, times[1:])
	}
	if n, err := l.CountBots(ctx); err != nil || n != 1 {
		t.Errorf("%d bots, %v", n, err)
	}
	last := at(24*60+2, dice, "d1")
	if got, err = l.Installs(ctx, start); err != nil || !reflect.DeepEqual(got, []time.Time{times[2], last}) {
		t.Errorf("%v, %v: what is older than a day is forgotten", got, err)
	}
}

func TestForgivenAttemptsDoNotCount(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	_, err := l.JobAt(ctx, dice, Cursor{7, 1})
	want(t, err, ErrNotFound)
	j := accept(t, l, 1)
	_, err = l.Attempt(ctx, j.ID)
	must(t, err)
	must(t, l.Forgive(ctx, j.ID))
	must(t, l.Forgive(ctx, j.ID))
	got, err := l.JobAt(ctx, dice, Cursor{7, 1})
	must(t, err)
	if got != j {
		t.Errorf("%+v, was %+v", got, j)
	}
}

func TestAcceptIsIdempotentByCursor(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	if j.ID == 0 || j.State != JobAccepted || j.Kind != "message" || j.Size != 3000 || j.Accepted.IsZero() {
		t.Fatalf("%+v", j)
	}
	if again := accept(t, l, 1); again != j {
		t.Fatalf("the same mail again: %+v, was %+v", again, j)
	}
	if other := accept(t, l, 2); other.ID == j.ID {
		t.Fatal("another UID is the same job")
	}
	must(t, l.Commit(ctx, session(j, 1)))
	must(t, l.Cleared(ctx, j.ID))
	if again := accept(t, l, 1); again.ID != j.ID || again.State != JobCleared {
		t.Fatalf("seen again after it was done: %+v", again)
	}
	moved, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{8, 1}})
	must(t, err)
	if moved.ID == j.ID {
		t.Fatal("another UIDVALIDITY is the same job")
	}
}

func TestAttemptsAreCountedUntilTheJobIsOver(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	for n := 1; n <= 3; n++ {
		got, err := l.Attempt(ctx, j.ID)
		must(t, err)
		if got != n {
			t.Fatalf("attempt %d, want %d", got, n)
		}
	}
	must(t, l.Fail(ctx, []int64{j.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "boom", Wall: time.Second}, false))
	if got := accept(t, l, 1); got.State != JobAccepted || got.Attempts != 3 {
		t.Fatalf("after a failure that is tried again: %+v", got)
	}
	must(t, l.Fail(ctx, []int64{j.ID}, bot.RunRecord{Status: bot.RunInternal}, true))
	if got := accept(t, l, 1); got.State != JobFailed {
		t.Fatalf("set aside: %+v", got)
	}
	_, err := l.Attempt(ctx, j.ID)
	want(t, err, ErrJobState)
	want(t, l.Fail(ctx, []int64{j.ID}, bot.RunRecord{}, true), ErrJobState)
	want(t, l.Commit(ctx, session(j, 1)), ErrJobState)
	must(t, l.Cleared(ctx, j.ID))
	failed, err := l.Jobs(ctx, dice, JobFailed)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 10)
	must(t, err)
	if len(failed) != 1 || len(runs) != 2 || runs[1].Committed || runs[1].Record.Message != "boom" ||
		runs[1].Ended.Sub(runs[1].Started) != time.Second || !reflect.DeepEqual(runs[1].Jobs, []int64{j.ID}) {
		t.Fatalf("%+v %+v", failed, runs)
	}
}

// session is a commit that leaves a trace of n in every table.
func session(j Job, n int) Commit {
	return Commit{
		Bot: dice, Jobs: []int64{j.ID}, Account: bot.Generation(n), Storage: bot.Generation(n), UIDNext: uint32(n) + 1,
		State: bot.AccountState{Schema: n, Readable: true},
		Outgoing: []Outgoing{
			{From: dice, To: []bot.Address{"user@relay.example"}, MessageID: "<a>", Path: fmt.Sprintf("%d-a.eml", n), Size: 10},
			{From: dice, To: []bot.Address{"user@relay.example", "b@relay.example"}, MessageID: "<b>", Path: fmt.Sprintf("%d-b.eml", n)},
		},
		Run:     &bot.RunRecord{Status: bot.RunOK, CPU: 5 * time.Millisecond, Memory: 6 << 20, Log: "hello\n"},
		Started: time.UnixMicro(10).UTC(), Ended: time.UnixMicro(20).UTC(),
	}
}

func TestCommitIsAllThatASessionChanges(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	c := session(j, 1)
	c.Fingerprint, c.Invite = "F1", "https://i"
	must(t, l.Commit(ctx, c))
	b, err := l.Bot(ctx, dice)
	must(t, err)
	if b.Account != 1 || b.Storage != 1 || b.UIDNext != 2 || b.State.Schema != 1 || b.Fingerprint != "F1" || b.Invite != "https://i" {
		t.Errorf("bot %+v", b)
	}
	out, err := l.Outbox(ctx, dice, 10)
	must(t, err)
	if len(out) != 2 || out[0].Path != "1-a.eml" || out[0].Size != 10 || len(out[1].To) != 2 || out[1].From != dice {
		t.Errorf("outbox %+v", out)
	}
	runs, err := l.Runs(ctx, dice, 10)
	must(t, err)
	if len(runs) != 1 || !runs[0].Committed || !reflect.DeepEqual(runs[0].Record, *c.Run) || runs[0].Started != c.Started {
		t.Errorf("runs %+v", runs)
	}
	want(t, l.Commit(ctx, session(j, 2)), ErrJobState)
	if b, _ := l.Bot(ctx, dice); b.Account != 1 {
		t.Error("a refused commit changed the bot")
	}
}

func TestCommitIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Commit)
		err    error
	}{
		"older account":  {func(c *Commit) { c.Account = 4 }, ErrStale},
		"older folder":   {func(c *Commit) { c.Storage = 4 }, ErrStale},
		"older UIDNEXT":  {func(c *Commit) { c.UIDNext = 5 }, ErrStale},
		"unknown job":    {func(c *Commit) { c.Jobs = append(c.Jobs, 999) }, ErrJobState},
		"same job twice": {func(c *Commit) { c.Jobs = append(c.Jobs, c.Jobs[0]) }, ErrJobState},
		"job reopened":   {func(c *Commit) { c.JobState = JobAccepted }, ErrJobState},
		"unknown bot":    {func(c *Commit) { c.Bot = "other@relay.example" }, ErrRemoved},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, l := t.Context(), fresh(t)
			must(t, l.Install(ctx, Bot{Address: dice, Account: 5, Storage: 5, UIDNext: 6}))
			j := accept(t, l, 1)
			before := dump(t, l)
			commit := session(j, 5)
			c.change(&commit)
			want(t, l.Commit(ctx, commit), c.err)
			if after := dump(t, l); after != before {
				t.Errorf("it changed something:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

func TestCommitCannotTakeAnotherBotsJob(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	must(t, l.Install(ctx, Bot{Address: "other@relay.example"}))
	j := accept(t, l, 1)
	c := session(j, 1)
	c.Bot = "other@relay.example"
	want(t, l.Commit(ctx, c), ErrJobState)
	k, err := l.Accept(ctx, Job{Bot: "other@relay.example", Cursor: Cursor{7, 1}})
	must(t, err)
	want(t, l.Fail(ctx, []int64{j.ID, k.ID}, bot.RunRecord{}, true), ErrJobState)
	if err := l.Fail(ctx, nil, bot.RunRecord{}, true); err == nil {
		t.Error("a failure of nothing was recorded")
	}
}

// dump is all that the ledger says of the dice bot.
func dump(t *testing.T, l *Ledger) string {
	t.Helper()
	ctx := context.Background()
	b, err := l.Bot(ctx, dice)
	must(t, err)
	text := fmt.Sprintf("%+v\n", b)
	for _, s := range []JobState{JobAccepted, JobCommitted, JobCleared, JobFailed} {
		jobs, err := l.Jobs(ctx, dice, s)
		must(t, err)
		text += fmt.Sprintf("%s %+v\n", s, jobs)
	}
	out, err := l.Outbox(ctx, dice, 1000)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 1000)
	must(t, err)
	return text + fmt.Sprintf("%+v\n%+v\n", out, runs)
}

func TestFinishedKnowsReplays(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	long := strings.Repeat("x", 1<<20)
	j, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{7, 1}, Sender: "AB", MessageID: long})
	must(t, err)
	if len(j.MessageID) > maxMessageID {
		t.Errorf("%d bytes of a stranger's Message-ID are kept", len(j.MessageID))
	}
	check := func(expect bool, sender bot.Fingerprint, id string) {
		t.Helper()
		got, err := l.Finished(ctx, dice, sender, id)
		must(t, err)
		if got != expect {
			t.Errorf("Finished(%s, %.20s) = %v", sender, id, got)
		}
	}
	check(false, "AB", long)
	must(t, l.Commit(ctx, Commit{Bot: dice, Jobs: []int64{j.ID}, UIDNext: 1}))
	check(true, "AB", long)
	check(false, "CD", long)
	check(false, "AB", long+"x")
	must(t, l.Cleared(ctx, j.ID))
	check(true, "AB", long)

	aside := accept(t, l, 2)
	must(t, l.Fail(ctx, []int64{aside.ID}, bot.RunRecord{}, true))
	check(true, aside.Sender, aside.MessageID)

	unsigned, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{7, 3}})
	must(t, err)
	must(t, l.Commit(ctx, Commit{Bot: dice, Jobs: []int64{unsigned.ID}, UIDNext: 1}))
	check(false, "", "")
}

func TestRefusalsAreCountedOncePerMail(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	for range 3 {
		must(t, l.Refused(ctx, dice, Refusal{Cursor{7, 1}, "clear"}))
	}
	must(t, l.Refused(ctx, dice, Refusal{Cursor{7, 2}, "clear"}, Refusal{Cursor{7, 3}, "unsigned"}))
	must(t, l.Refused(ctx, dice, Refusal{Cursor{7, refusedSpan + 10}, "clear"}))
	must(t, l.Refused(ctx, dice, Refusal{Cursor{8, 1}, "clear"}))
	got, err := l.Refusals(ctx, dice)
	must(t, err)
	if !reflect.DeepEqual(got, map[string]int64{"clear": 4, "unsigned": 1}) {
		t.Errorf("%v", got)
	}
	var n int
	must(t, l.db.QueryRow("SELECT count(*) FROM refused").Scan(&n))
	if n != 1 {
		t.Errorf("%d cursors of deleted mail are kept", n)
	}
}

func TestClearedOnlyAfterTheCommit(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	want(t, l.Cleared(ctx, j.ID), ErrJobState)
	must(t, l.Commit(ctx, session(j, 1)))
	must(t, l.Cleared(ctx, j.ID))
	must(t, l.Cleared(ctx, j.ID))
	want(t, l.Cleared(ctx, 999), ErrJobState)
}

func TestOutgoingMailIsSentPutOffOrGivenUp(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	must(t, l.Commit(ctx, session(accept(t, l, 1), 1)))
	must(t, l.Commit(ctx, session(accept(t, l, 2), 2)))
	out, err := l.Outbox(ctx, dice, 3)
	must(t, err)
	if len(out) != 3 || out[2].Path != "2-a.eml" {
		t.Fatalf("not the first three in order: %+v", out)
	}
	until := time.UnixMicro(5e15).UTC()
	must(t, l.Sent(ctx, out[0].ID))
	must(t, l.Deferred(ctx, out[1].ID, until, "450 later"))
	must(t, l.Undeliverable(ctx, out[2].ID, "550 nobody"))
	left, err := l.Outbox(ctx, dice, 10)
	must(t, err)
	if len(left) != 2 || left[0].Attempts != 1 || left[0].NotBefore != until || left[0].LastError != "450 later" {
		t.Errorf("left %+v", left)
	}
	dead, err := l.Dead(ctx, dice, 10)
	must(t, err)
	if len(dead) != 1 || dead[0].LastError != "550 nobody" {
		t.Errorf("dead %+v", dead)
	}
	paths, err := l.OutboxPaths(ctx)
	must(t, err)
	if !reflect.DeepEqual(paths, []string{"1-b.eml", "2-b.eml"}) {
		t.Errorf("paths %v", paths)
	}
	want(t, l.Sent(ctx, out[0].ID), ErrNotFound)
	want(t, l.Undeliverable(ctx, out[2].ID, "again"), ErrNotFound)
}

// TestFailedRunsAndNotices: runs that failed and mails that were set aside are counted by kind, with the head of their message; that a
// contact was told is known for a day.
func TestFailedRunsAndNotices(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	n := Notice{Contact: "AB", About: "x"}
	at, err := l.Noticed(ctx, dice, n)
	if err != nil || !at.IsZero() {
		t.Errorf("before any: %v, %v", at, err)
	}
	first := time.UnixMicro(5e15).UTC()
	run := func(status bot.RunStatus, message string, ended time.Time, notice *Notice) {
		t.Helper()
		must(t, l.Commit(ctx, Commit{Bot: dice, UIDNext: 1, Run: &bot.RunRecord{Status: status, Message: message}, Ended: ended, Notice: notice}))
	}
	run(bot.RunOK, "", first, nil)
	run(bot.RunError, "\na\nb\nc", first, &n)
	run(bot.RunError, "a\nb\nd", first.Add(time.Hour), nil)
	if at, err := l.Noticed(ctx, dice, n); err != nil || at != first {
		t.Errorf("noticed %v, %v", at, err)
	}
	job, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{UIDValidity: 7, UID: 70}})
	must(t, err)
	must(t, l.Fail(ctx, []int64{job.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "once"}, false))
	must(t, l.Fail(ctx, []int64{job.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "set aside"}, true))
	failures, _, err := l.Failures(ctx, dice)
	must(t, err)
	if len(failures) != 2 || failures[0] != (Failure{FailedRun, "a\nb", 2, first, first.Add(time.Hour)}) ||
		failures[1].Kind != FailedHost || failures[1].Why != "set aside" || failures[1].Count != 1 {
		t.Errorf("%+v", failures)
	}
	must(t, l.FailuresTold(ctx, dice, first, Outgoing{To: []bot.Address{"a@relay.example"}, Path: "letter"}))
	out, err := l.Outbox(ctx, dice, 10)
	if err != nil || len(out) != 1 || out[0].Path != "letter" {
		t.Errorf("outbox %+v, %v", out, err)
	}
	other := Notice{Contact: "CD", About: "x"}
	run(bot.RunError, "e", first.Add(25*time.Hour), &other)
	if at, err := l.Noticed(ctx, dice, n); err != nil || !at.IsZero() {
		t.Errorf("a day later: noticed %v, %v", at, err)
	}
}

// TestFailuresAreCountedUntilTheAuthorIsTold has more reasons than are told by name.
func TestFailuresAreCountedUntilTheAuthorIsTold(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	c := Commit{Bot: dice, UIDNext: 1}
	for n := range failuresKept + 10 {
		c.Outgoing = append(c.Outgoing, Outgoing{To: []bot.Address{"u@relay.example"}, Path: fmt.Sprint(n)})
	}
	must(t, l.Commit(ctx, c))
	out, err := l.Outbox(ctx, dice, 1000)
	must(t, err)
	if failures, told, err := l.Failures(ctx, dice); err != nil || failures != nil || !told.IsZero() {
		t.Errorf("before any: %+v %v %v", failures, told, err)
	}
	for n, o := range out {
		switch {
		case n < 3:
			must(t, l.SentToSome(ctx, o.ID, "550 nobody"))
		case n < 5:
			must(t, l.Undeliverable(ctx, o.ID, strings.Repeat("é", maxFailure)))
		default:
			must(t, l.Undeliverable(ctx, o.ID, fmt.Sprintf("554 no %d", n)))
		}
	}
	want(t, l.SentToSome(ctx, out[0].ID, "again"), ErrNotFound)
	want(t, l.Undeliverable(ctx, out[9].ID, "again"), ErrNotFound)
	failures, _, err := l.Failures(ctx, dice)
	must(t, err)
	sum := 0
	for _, f := range failures {
		sum += f.Count
	}
	if len(failures) != failuresKept+1 || sum != failuresKept+10 || failures[0].Why != "" || failures[0].Count != 7 ||
		failures[1].Why != "550 nobody" || failures[1].Count != 3 || failures[2].Why != strings.Repeat("é", maxFailure/2) || failures[1].First.IsZero() {
		t.Errorf("%d reasons for %d mails: %+v", len(failures), sum, failures)
	}
	at := time.UnixMicro(5e15).UTC()
	must(t, l.FailuresTold(ctx, dice, at))
	if failures, _, err := l.Failures(ctx, dice); err != nil || failures != nil {
		t.Errorf("after they were told: %+v %v", failures, err)
	}
	c.Outgoing = c.Outgoing[:1]
	c.Outgoing[0].Path = "another"
	must(t, l.Commit(ctx, c))
	out, err = l.Outbox(ctx, dice, 1)
	must(t, err)
	must(t, l.Undeliverable(ctx, out[0].ID, "550 nobody"))
	if failures, told, err := l.Failures(ctx, dice); err != nil || len(failures) != 1 || failures[0].Count != 1 || told != at {
		t.Errorf("the next: %+v, told %v, %v", failures, told, err)
	}
	must(t, l.Remove(ctx, dice))
	want(t, l.FailuresTold(ctx, dice, at), ErrRemoved)
}

func TestWhoIsKnown(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{1, 1}, Kind: "message", Sender: "AB", From: "u@relay.example", MessageID: "1", Announces: "2"})
	must(t, err)
	known := func() (all []bool) {
		for _, ask := range []func() (bool, error){
			func() (bool, error) { return l.KnowsAddress(ctx, dice, "u@relay.example") },
			func() (bool, error) { return l.KnowsSender(ctx, dice, "AB") },
			func() (bool, error) { return l.Announced(ctx, dice, "2") },
			func() (bool, error) { return l.Announced(ctx, dice, "") },
			func() (bool, error) { return l.KnowsSender(ctx, "other@relay.example", "AB") },
		} {
			yes, err := ask()
			must(t, err)
			all = append(all, yes)
		}
		return all
	}
	if got := known(); slices.Contains(got, true) {
		t.Errorf("known before the commit: %v", got)
	}
	must(t, l.Commit(ctx, session(j, 1)))
	must(t, l.Commit(ctx, session(accept(t, l, 2), 2))) // announces nothing
	if got := known(); !slices.Equal(got, []bool{true, true, true, false, false}) {
		t.Errorf("known after the commit: %v", got)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	tx, err := l.db.Begin()
	must(t, err)
	long := bot.RunRecord{Log: strings.Repeat("é", maxLog) + "\xff the end"}
	for range runsKept + 5 {
		must(t, saveRun(ctx, tx, Run{Bot: dice, Record: long}))
		long.Log = "short"
	}
	must(t, saveRun(ctx, tx, Run{Bot: dice, Record: bot.RunRecord{Log: strings.Repeat("é", maxLog) + "\xff the end"}}))
	must(t, tx.Commit())
	runs, err := l.Runs(ctx, dice, 5000)
	must(t, err)
	logs := 0
	for _, r := range runs {
		if r.Record.Log != "" {
			logs++
		}
	}
	if len(runs) != runsKept || logs != logsKept {
		t.Errorf("%d runs, %d logs", len(runs), logs)
	}
	if log := runs[0].Record.Log; len(log) > maxLog+100 || !strings.HasPrefix(log, "[") || !strings.HasSuffix(log, "\uFFFD the end") {
		t.Errorf("log of %d bytes: %.30q", len(log), log)
	}

	var c Commit
	for n := range deadKept + 5 {
		c.Outgoing = append(c.Outgoing, Outgoing{To: []bot.Address{"u@relay.example"}, Path: fmt.Sprint(n)})
	}
	c.Bot, c.UIDNext = dice, 1
	must(t, l.Commit(ctx, c))
	out, err := l.Outbox(ctx, dice, 1000)
	must(t, err)
	for _, o := range out {
		must(t, l.Undeliverable(ctx, o.ID, "no"))
	}
	dead, err := l.Dead(ctx, dice, 1000)
	must(t, err)
	if len(dead) != deadKept || dead[0].Path != fmt.Sprint(deadKept+4) {
		t.Errorf("%d dead", len(dead))
	}
}

func TestConcurrentUse(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	var all sync.WaitGroup
	for n := range 8 {
		addr := bot.Address(fmt.Sprintf("bot%d@relay.example", n))
		all.Go(func() {
			err := l.Install(ctx, Bot{Address: addr})
			for uid := uint32(1); uid <= 10 && err == nil; uid++ {
				var j Job
				if j, err = l.Accept(ctx, Job{Bot: addr, Cursor: Cursor{1, uid}}); err != nil {
					break
				}
				err = errors.Join(l.Commit(ctx, Commit{Bot: addr, Jobs: []int64{j.ID}, UIDNext: uid, Account: bot.Generation(uid)}),
					l.Cleared(ctx, j.ID))
				if _, e := l.Bots(ctx); e != nil {
					err = e
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	g, err := l.Generations(ctx)
	must(t, err)
	for n := range 8 {
		if addr := bot.Address(fmt.Sprintf("bot%d@relay.example", n)); g[addr].Account != 10 {
			t.Errorf("%s: %v", addr, g[addr])
		}
	}
}

func TestDoubleCommitByTwoSessions(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	errs := make(chan error, 8)
	for n := range 8 {
		go func() { errs <- l.Commit(ctx, session(j, n+1)) }()
	}
	won := 0
	for range 8 {
		if err := <-errs; err == nil {
			won++
		} else if !errors.Is(err, ErrJobState) && !errors.Is(err, ErrStale) {
			t.Error(err)
		}
	}
	out, err := l.Outbox(ctx, dice, 100)
	must(t, err)
	if won != 1 || len(out) != 2 {
		t.Errorf("%d commits won, %d mails", won, len(out))
	}
}

func TestCancelledWorkChangesNothing(t *testing.T) {
	l := fresh(t)
	j := accept(t, l, 1)
	before := dump(t, l)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	want(t, l.Commit(ctx, session(j, 1)), context.Canceled)
	if after := dump(t, l); after != before {
		t.Error("it changed something")
	}
}

// version1 builds the database of the first release from its text.
func version1(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/version1.sql")
	must(t, err)
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := &Ledger{path: path}
	l.db = rawOpen(t, path)
	_, err = l.db.Exec(string(text))
	must(t, err)
	must(t, l.db.Close())
	return path
}

func TestVersion1IsRead(t *testing.T) {
	ctx, l := t.Context(), open(t, version1(t))
	b, err := l.Bot(ctx, dice)
	must(t, err)
	if b.Manifest.Name != "Dice" || b.Account != 4 || b.Storage != 2 || b.UIDNext != 12 || !b.State.Readable ||
		string(b.State.PublicKeys[0]) != "key" || b.Installed.Year() != 2026 {
		t.Errorf("bot %+v", b)
	}
	done, err := l.Finished(ctx, dice, "AB12", "<1@x>")
	must(t, err)
	out, err := l.Outbox(ctx, dice, 10)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 10)
	must(t, err)
	refusals, err := l.Refusals(ctx, dice)
	must(t, err)
	accounts, err := l.Accounts(ctx)
	must(t, err)
	if f, err := l.Folder(ctx, dice); err != nil || f != (Folder{Handled: Cursor{3, 9}}) {
		t.Errorf("folder %+v, %v", f, err)
	}
	if installs, err := l.Installs(ctx, time.Time{}); err != nil || len(installs) != 0 || b.Previous != "" || b.Request != (Cursor{}) {
		t.Errorf("installs %v, %v, previous %q, request %v: the first release knew of none", installs, err, b.Previous, b.Request)
	}
	if !done || len(out) != 1 || len(runs) != 1 || runs[0].Record.CPU != 5*time.Millisecond || refusals["clear"] != 3 || len(accounts) != 1 {
		t.Errorf("%v %+v %+v %v %v", done, out, runs, refusals, accounts)
	}
	must(t, l.Commit(ctx, Commit{Bot: dice, Jobs: []int64{2}, Account: 5, Storage: 2, UIDNext: 13}))
}

func TestMigrationsRunInOrderAndWhole(t *testing.T) {
	ctx := t.Context()
	l := &Ledger{db: rawOpen(t, version1(t))}
	t.Cleanup(func() { l.db.Close() })
	first, err := schema.ReadFile("schema/0001.sql")
	must(t, err)
	files := fstest.MapFS{
		"schema/0001.sql": {Data: first},
		"schema/0002.sql": {Data: []byte(`ALTER TABLE bots ADD COLUMN paused INTEGER NOT NULL DEFAULT 0`)},
		"schema/0003.sql": {Data: []byte(`UPDATE bots SET paused = 1; DROP TABLE jobs; CREATE TABLE nonsense (`)},
	}
	if err := migrate(ctx, l.db, files); err == nil || !strings.Contains(err.Error(), "version 3") {
		t.Fatalf("a broken migration gave %v", err)
	}
	var version, paused, jobs int
	must(t, l.db.QueryRow(`SELECT (SELECT user_version FROM pragma_user_version), (SELECT paused FROM bots),
		(SELECT count(*) FROM jobs)`).Scan(&version, &paused, &jobs))
	if version != 2 || paused != 0 || jobs != 2 {
		t.Fatalf("version %d, paused %d, jobs %d: the broken step left traces", version, paused, jobs)
	}
	files["schema/0003.sql"] = &fstest.MapFile{Data: []byte(`UPDATE bots SET paused = 1`)}
	must(t, migrate(ctx, l.db, files))
	must(t, migrate(ctx, l.db, files))
	must(t, l.db.QueryRow(`SELECT paused FROM bots`).Scan(&paused))
	if paused != 1 {
		t.Fatal("the mended step did not run")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, path string)
		err    error
		hint   string
	}{
		"a newer ledger":     {run(`PRAGMA user_version = 99`), ErrNewer, "install the newer mayfly again"},
		"another's database": {run(`PRAGMA application_id = 1`), ErrForeign, "choose another path"},
		"a text file":        {overwrite(0, strings.Repeat("no database at all. ", 500)), ErrCorrupt, "put back the newest backup"},
		"a damaged page":     {overwrite(2*4096, strings.Repeat("\xa5", 4096)), ErrCorrupt, "put back the newest backup"},
		"a truncated file":   {truncate, ErrCorrupt, "put back the newest backup"},
		"a missing folder":   {func(t *testing.T, path string) { must(t, os.RemoveAll(filepath.Dir(path))) }, os.ErrNotExist, "folder must exist"},
	} {
		t.Run(name, func(t *testing.T) {
			path := version1(t)
			c.damage(t, path)
			l, err := Open(t.Context(), path)
			if err == nil {
				l.Close()
			}
			want(t, err, c.err)
			if !strings.Contains(err.Error(), c.hint) {
				t.Errorf("no hint %q in: %v", c.hint, err)
			}
		})
	}
}

func run(query string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		db := rawOpen(t, path)
		_, err := db.Exec(query)
		must(t, errors.Join(err, db.Close()))
	}
}

func overwrite(at int64, text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = f.WriteAt([]byte(text), at)
		must(t, errors.Join(err, f.Close()))
	}
}

func truncate(t *testing.T, path string) { must(t, os.Truncate(path, 5*4096)) }

func TestDamageDuringWorkIsAnErrorWithTheMend(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	for uid := range uint32(50) {
		accept(t, l, uid+1)
	}
	_, err := l.db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	must(t, err)
	info, err := os.Stat(l.path)
	must(t, err)
	overwrite(4096, strings.Repeat("\xa5", int(info.Size())-4096))(t, l.path)
	_, err = l.db.Exec(`PRAGMA shrink_memory`)
	must(t, err)
	_, err = l.Jobs(ctx, dice, JobAccepted)
	want(t, err, ErrCorrupt)
	if !strings.Contains(err.Error(), "put back the newest backup of "+l.path) {
		t.Errorf("no mend in: %v", err)
	}
}

func TestFullDiskLosesNothing(t *testing.T) {
	ctx, dir := t.Context(), tmpfs(t, "1m")
	l, err := Open(ctx, filepath.Join(dir, "ledger.db"))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	must(t, l.Install(ctx, Bot{Address: dice}))
	j := accept(t, l, 1)
	before := dump(t, l)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	c := session(j, 1)
	c.State.PublicKeys = [][]byte{make([]byte, 200<<10)}
	err = l.Commit(ctx, c)
	want(t, err, ErrFull)
	if !strings.Contains(err.Error(), "free some space under "+dir) {
		t.Errorf("no hint in: %v", err)
	}
	if after := dump(t, l); after != before {
		t.Errorf("half a commit:\n%s\nwas\n%s", after, before)
	}
	must(t, os.Remove(ballast))
	must(t, l.Commit(ctx, c))
	must(t, l.Close())
	again, err := Open(ctx, filepath.Join(dir, "ledger.db"))
	must(t, err)
	defer again.Close()
	if b, err := again.Bot(ctx, dice); err != nil || b.Account != 1 {
		t.Errorf("%+v %v", b, err)
	}
}

func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s: this test runs as root", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}
