package ledger

import (
	"slices"
	"testing"
	"time"

	"mayfly/internal/bot"
)

func TestConsentComesWithTheCommit(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	consents := func() bool {
		t.Helper()
		yes, err := l.Consents(ctx, dice, "F1")
		must(t, err)
		return yes
	}
	c := session(accept(t, l, 1), 1)
	c.Consent = "F1"
	c.Jobs = append(c.Jobs, 999) // refused
	want(t, l.Commit(ctx, c), ErrJobState)
	if consents() {
		t.Error("a refused commit noted a consent")
	}
	c.Jobs = c.Jobs[:1]
	must(t, l.Commit(ctx, c))
	if !consents() {
		t.Error("the consent was not noted")
	}
	must(t, l.Remove(ctx, dice))
	must(t, l.Install(ctx, Bot{Address: dice}))
	if consents() {
		t.Error("a consent outlived its bot")
	}
}

func TestAnswerIsOneTransaction(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	a := Answer{
		Bot: dice, Jobs: []int64{j.ID, 999}, Word: &Word{Contact: "F1", Address: "a@x", Stop: true}, At: time.Now(),
		Outgoing: []Outgoing{{From: dice, To: []bot.Address{"a@x"}, MessageID: "1@x", Path: "1.eml", Size: 1}},
	}
	before := dump(t, l)
	want(t, l.Answer(ctx, a), ErrJobState)
	if after := dump(t, l); after != before {
		t.Error("a refused answer changed something")
	}
	a.Jobs = a.Jobs[:1]
	must(t, l.Answer(ctx, a))
	out, err := l.Outbox(ctx, dice, 10)
	must(t, err)
	stopped, err := l.Stopped(ctx, dice, "F1", "a@x")
	must(t, err)
	if len(out) != 1 || !out[0].Exempt || !stopped {
		t.Errorf("outgoing %+v, stopped %v", out, stopped)
	}
	want(t, l.Answer(ctx, a), ErrJobState) // a job is answered once
	a.Jobs, a.Word, a.Outgoing[0].Path = nil, nil, "2.eml"
	must(t, l.Answer(ctx, a)) // without a job
	a.Bot = "gone@x"
	want(t, l.Answer(ctx, a), ErrRemoved)
}

// The last word from an address holds, whoever's key it was.
func TestStoppedAddresses(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	now := time.Now()
	uid := uint32(0)
	word := func(contact bot.Fingerprint, address bot.Address, stop bool) {
		t.Helper()
		now = now.Add(time.Second)
		must(t, l.Answer(ctx, Answer{Bot: dice, Word: &Word{contact, address, stop}, At: now}))
	}
	wrote := func(contact bot.Fingerprint, address bot.Address) {
		t.Helper()
		now = now.Add(time.Second)
		uid++
		c := session(accept(t, l, uid), 1)
		c.Outgoing, c.Consent, c.ConsentFrom, c.Ended = nil, contact, address, now
		must(t, l.Commit(ctx, c))
	}
	check := func(what string, wanted ...bot.Address) {
		t.Helper()
		got, err := l.StoppedAddresses(ctx, dice, []bot.Address{"a@x", "b@x", "c@x"})
		must(t, err)
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: stopped %v, want %v", what, got, wanted)
		}
	}
	check("nobody wrote")
	wrote("F1", "a@x")
	check("F1 wrote")
	word("F1", "a@x", true)
	check("F1 stopped", "a@x")
	wrote("F1", "a@x")
	check("who has stopped has to resume by word", "a@x")
	if moved, err := l.Stopped(ctx, dice, "F1", "b@x"); err != nil || !moved {
		t.Fatal(moved, err)
	}
	check("F1 writes from another address", "b@x")
	wrote("F2", "b@x")
	check("another key writes from there")
	word("F1", "b@x", true)
	check("F1 stops again", "b@x")
	word("F1", "b@x", false)
	check("F1 goes on")
	word("F3", "c@x", true)
	word("F2", "b@x", true)
	check("F2 and one that never wrote stop", "b@x", "c@x")
	if yes, err := l.Consents(ctx, dice, "F3"); err != nil || yes {
		t.Errorf("consents %v, %v", yes, err)
	}
}

// A word that came with a session holds over the consent that the same message gives.
func TestAWordComesWithTheCommit(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	c := session(accept(t, l, 1), 1)
	c.Consent, c.ConsentFrom, c.Word = "F1", "a@x", &Word{Contact: "F1", Address: "a@x", Stop: true}
	must(t, l.Commit(ctx, c))
	stopped, err := l.Stopped(ctx, dice, "F1", "a@x")
	if err != nil || !stopped {
		t.Errorf("stopped %v, %v", stopped, err)
	}
}

// A job that is abandoned is over, and its record says why. It cannot be abandoned twice.
func TestAbandon(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	must(t, l.Abandon(ctx, j.ID, "stopped"))
	jobs, err := l.Jobs(ctx, dice, JobCommitted)
	must(t, err)
	runs, err := l.RunsAfter(ctx, RunFilter{Bot: dice, Failed: true, Limit: 10})
	must(t, err)
	failures, _, err := l.Failures(ctx, dice)
	must(t, err)
	if len(jobs) != 1 || len(runs) != 1 || runs[0].Record.Message != "stopped" || len(failures) != 0 {
		t.Errorf("jobs %+v, runs %+v, failures %+v", jobs, runs, failures)
	}
	want(t, l.Abandon(ctx, j.ID, "stopped"), ErrJobState)
}

// What was not sent for a limit is counted by that limit, and in the record of the run.
func TestUnsentIsCounted(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	for i := range uint32(2) {
		c := session(accept(t, l, i+1), int(i+1))
		c.Unsent = map[string]int{"2 an hour": 3, "5 an hour": 1}
		c.Run.Unsent = c.Unsent
		must(t, l.Commit(ctx, c))
	}
	failures, _, err := l.Failures(ctx, dice)
	must(t, err)
	runs, err := l.Runs(ctx, dice, 1)
	must(t, err)
	if len(failures) != 2 || failures[0].Kind != FailedLimit || failures[0].Why != "2 an hour" || failures[0].Count != 6 || failures[1].Count != 2 ||
		runs[0].Record.Unsent["2 an hour"] != 3 || runs[0].Record.Missing() != "3 not sent: 2 an hour; 1 not sent: 5 an hour" {
		t.Errorf("failures %+v, runs %+v", failures, runs)
	}
}
