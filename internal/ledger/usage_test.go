package ledger

import (
	"database/sql"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"mayfly/internal/bot"
)

// handClock is set by hand: the time of day, and the time that nobody can set.
type handClock struct {
	day time.Time
	ran time.Duration
}

func (h *handClock) pass(d time.Duration) { h.day, h.ran = h.day.Add(d), h.ran+d }
func (h *handClock) set(by time.Duration) { h.day = h.day.Add(by) }

func withClock(l *Ledger) *handClock {
	h := &handClock{day: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	l.clock = &clock{now: func() time.Time { return h.day }, ran: func() time.Duration { return h.ran }, day: h.day}
	return h
}

func (l *Ledger) use(t *testing.T, uses ...use) {
	t.Helper()
	must(t, l.write(t.Context(), "use", func(tx *sql.Tx) error { return l.charge(t.Context(), tx, dice, uses...) }))
}

func (l *Ledger) used(t *testing.T, s Subject, r Resource, span time.Duration) int64 {
	t.Helper()
	n, err := l.Used(t.Context(), dice, s, r, span)
	must(t, err)
	return n
}

func TestMailsAndSessionsAreCharged(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	accept(t, l, 1) // known: charged once
	c := session(j, 1)
	c.Run.Wall, c.Run.CoreCPU = 2*time.Second, 40*time.Millisecond
	must(t, l.Commit(ctx, c))
	failed := accept(t, l, 2)
	must(t, l.Fail(ctx, []int64{failed.ID}, bot.RunRecord{Wall: time.Second, CPU: time.Millisecond}, false))
	want(t, l.Commit(ctx, c), ErrJobState) // what is not committed costs nothing
	for _, row := range []struct {
		subject  Subject
		resource Resource
		want     int64
	}{
		{ByKey("AB12"), Mails, 2}, {ByAddress("user@relay.example"), Mails, 2}, {WholeBot, Mails, 2},
		{ByKey("AB12"), Bytes, 6010}, {ByAddress("user@relay.example"), Bytes, 6010}, {WholeBot, Bytes, 6010},
		{ByKey("AB12"), Wall, 3e6}, {WholeBot, CPU, 6000}, {WholeBot, CoreCPU, 40_000},
		{ByRecipient("user@relay.example"), Sent, 2}, {ByRecipient("b@relay.example"), Sent, 1}, {WholeBot, Sent, 3},
		{ByRecipient("user@relay.example"), SentBytes, 10}, {WholeBot, SentBytes, 10},
		{ByKey("CD34"), Mails, 0},
	} {
		if got := l.used(t, row.subject, row.resource, time.Hour); got != row.want {
			t.Errorf("%s of %q: %d, want %d", row.resource, row.subject, got, row.want)
		}
	}
	must(t, l.Remove(ctx, dice))
	must(t, l.Install(ctx, Bot{Address: dice}))
	if l.used(t, WholeBot, CPU, time.Hour) != 6000 {
		t.Error("to install a bot again frees what it has used")
	}
}

// TestSaidAtOnce: a mail that is said before its session is committed is charged as the commit would, and not with that again.
func TestSaidAtOnce(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j, err := l.Accept(ctx, Job{Bot: dice, Cursor: Cursor{UIDValidity: 1, UID: 1}, Sender: "AB", From: "ada@chat.test", Size: 100})
	must(t, err)
	said := Outgoing{From: dice, To: []bot.Address{"ada@chat.test", "bob@chat.test"}, MessageID: "m@x", Path: "a.eml", Size: 10}
	must(t, l.Say(ctx, dice, []int64{j.ID}, said))
	must(t, l.Commit(ctx, Commit{Bot: dice, Jobs: []int64{j.ID}, UIDNext: 2}))
	want(t, l.Say(ctx, dice, []int64{j.ID}, said), ErrJobState)
	want(t, l.Say(ctx, "gone@chat.test", nil, said), ErrRemoved)
	out, err := l.Outbox(ctx, dice, 10)
	must(t, err)
	if len(out) != 1 || out[0].Path != "a.eml" || out[0].Exempt {
		t.Errorf("in the outbox: %+v", out)
	}
	for _, u := range []use{
		{WholeBot, Sent, 2}, {WholeBot, SentBytes, 20}, {WholeBot, Bytes, 120}, {ByRecipient("bob@chat.test"), Sent, 1}, {ByKey("AB"), Bytes, 120},
	} {
		if got := l.used(t, u.subject, u.resource, time.Hour); got != u.amount {
			t.Errorf("%s %s: %d, want %d", u.subject, u.resource, got, u.amount)
		}
	}
}

func TestExceeds(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	h := withClock(l)
	limit := Limit{WholeBot, Mails, time.Hour, 3, 1}
	until := func(limits ...Limit) time.Duration {
		t.Helper()
		e, err := l.Exceeds(ctx, dice, limits...)
		must(t, err)
		if e == nil {
			return 0
		}
		return e.Until.Sub(h.day)
	}
	for i := range 3 {
		if d := until(limit); d != 0 {
			t.Fatalf("no room for %v after %d of 3", d, i)
		}
		l.use(t, use{WholeBot, Mails, 1})
		h.pass(10 * time.Minute)
	}
	if d := until(limit); d != 30*time.Minute {
		t.Errorf("room in %v, want 30m, when the first is an hour old", d)
	}
	if d := until(Limit{WholeBot, Mails, time.Hour, 3, 2}); d != 40*time.Minute {
		t.Errorf("room for two in %v, want 40m", d)
	}
	if d := until(Limit{WholeBot, Mails, time.Hour, 3, 10}); d != 50*time.Minute {
		t.Errorf("room for more than there ever is in %v, want 50m, when there is nothing else", d)
	}
	if d := until(limit, Limit{WholeBot, Mails, 24 * time.Hour, 3, 1}); d != 23*time.Hour+30*time.Minute {
		t.Errorf("the longer of two limits has room in %v", d)
	}
	h.pass(30 * time.Minute)
	if d := until(limit); d != 0 {
		t.Errorf("still no room, for %v", d)
	}
	h.pass(25 * time.Hour)
	l.use(t, use{WholeBot, Sent, 1})
	var rows int
	must(t, l.db.QueryRow(`SELECT count(*) FROM usage`).Scan(&rows))
	if rows != 1 {
		t.Errorf("%d rows, want 1: what is older than a day is forgotten", rows)
	}
	if _, err := l.Exceeds(ctx, dice, Limit{WholeBot, Sent, 48 * time.Hour, 3, 1}); err == nil {
		t.Error("a span of more than is kept was taken")
	}
}

// TestClockJumps: a clock that is set neither frees nor locks for long what was used.
func TestClockJumps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	must(t, l.Install(t.Context(), Bot{Address: dice, Digest: "d1"}))
	h := withClock(l)
	for _, by := range []time.Duration{-30 * 24 * time.Hour, 90 * 24 * time.Hour, -time.Hour, 61 * time.Minute} {
		l.use(t, use{WholeBot, Mails, 1}, use{WholeBot, CPU, 5})
		h.pass(20 * time.Minute)
		h.set(by)
		if n := l.used(t, WholeBot, Mails, time.Hour); n != 1 {
			t.Errorf("set by %v: %d used, want 1", by, n)
		}
		h.pass(39 * time.Minute)
		if n := l.used(t, WholeBot, CPU, time.Hour); n != 5 {
			t.Errorf("set by %v: %d used before the hour is over, want 5", by, n)
		}
		h.pass(2 * time.Minute)
		if n := l.used(t, WholeBot, Mails, time.Hour); n != 0 {
			t.Errorf("set by %v: %d used after the hour, want 0", by, n)
		}
	}
	// A clock that was ahead before the program was started again.
	l.use(t, use{WholeBot, Mails, 1})
	must(t, l.Close())
	l = open(t, path)
	again := withClock(l)
	again.day = h.day.Add(-48 * time.Hour)
	l.clock.day = again.day
	l.use(t, use{WholeBot, Mails, 1})
	if n := l.used(t, WholeBot, Mails, time.Hour); n != 2 {
		t.Errorf("%d used, want 2: what seems to be of the future is of now", n)
	}
	again.pass(61 * time.Minute)
	if n := l.used(t, WholeBot, Mails, time.Hour); n != 0 {
		t.Errorf("%d used an hour later: the bot is locked by a clock that was wrong once", n)
	}
}

// TestUsageAgainstAModel does random things to the ledger and to a list, and compares what they say.
func TestUsageAgainstAModel(t *testing.T) {
	type event struct {
		at int64
		use
	}
	random := rand.New(rand.NewPCG(1, 2))
	l := fresh(t)
	h := withClock(l)
	subjects, resources := []Subject{WholeBot, ByKey("A"), ByAddress("a@b")}, []Resource{Mails, Bytes}
	var model []event
	sum := func(limit Limit, now int64) (n int64) {
		for _, e := range model {
			if e.subject == limit.Subject && e.resource == limit.Resource && e.at > now-int64(limit.Span/time.Minute) {
				n += e.amount
			}
		}
		return n
	}
	for range 600 {
		h.pass(time.Duration(random.IntN(20)) * time.Minute)
		now := minutes(h.day)
		u := use{subjects[random.IntN(3)], resources[random.IntN(2)], 1 + random.Int64N(5)}
		l.use(t, u)
		model = append(model, event{now, u})
		limit := Limit{subjects[random.IntN(3)], resources[random.IntN(2)], []time.Duration{time.Hour, 24 * time.Hour}[random.IntN(2)],
			1 + random.Int64N(60), random.Int64N(10)}
		e, err := l.Exceeds(t.Context(), dice, limit)
		must(t, err)
		need := min(max(limit.Need, 1), limit.Most)
		var until int64
		for m := now; sum(limit, m)+need > limit.Most; m++ {
			until = m + 1
		}
		if e == nil && until != 0 || e != nil && (minutes(e.Until) != until || e.Used != sum(limit, now)) {
			t.Fatalf("%+v: %+v, the model says minute %d, %d used", limit, e, until, sum(limit, now))
		}
	}
}

// How much of a limit is used, and when the last of it is free again.
func TestStandings(t *testing.T) {
	l := fresh(t)
	clock := withClock(l)
	start := clock.day
	limits := []Limit{{Subject: ByKey("A"), Resource: Mails, Span: time.Hour, Most: 9}, {Subject: ByKey("A"), Resource: Bytes, Span: 24 * time.Hour, Most: 9}}
	l.use(t, use{ByKey("A"), Mails, 2})
	clock.pass(20 * time.Minute)
	l.use(t, use{ByKey("A"), Mails, 1}, use{ByKey("B"), Mails, 5})
	got, err := l.Standings(t.Context(), dice, limits...)
	must(t, err)
	if len(got) != 2 || got[0].Used != 3 || !got[0].Free.Equal(start.Add(80*time.Minute)) || got[1].Used != 0 || !got[1].Free.IsZero() || got[1].Limit != limits[1] {
		t.Errorf("%+v", got)
	}
	clock.pass(time.Hour)
	if got, err = l.Standings(t.Context(), dice, limits...); err != nil || got[0].Used != 0 {
		t.Errorf("after an hour %+v, %v", got, err)
	}
}
