package ledger

import (
	"testing"
	"time"

	"mayfly/internal/bot"
)

func TestPauseAndResume(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	paused := func() (string, bool) {
		p, there, err := l.Paused(ctx, dice)
		must(t, err)
		return p.Why, there
	}
	if why, there := paused(); there {
		t.Errorf("a new bot is paused: %q", why)
	}
	must(t, l.Pause(ctx, dice, "junk"))
	must(t, l.Pause(ctx, dice, "much junk"))
	if why, there := paused(); !there || why != "much junk" {
		t.Errorf("paused %v: %q", there, why)
	}
	must(t, l.Resume(ctx, dice))
	must(t, l.Resume(ctx, dice))
	if _, there := paused(); there {
		t.Error("still paused")
	}
	want(t, l.Pause(ctx, "nobody@relay.example", ""), ErrRemoved)
	must(t, l.Pause(ctx, dice, ""))
	must(t, l.Remove(ctx, dice))
	if _, there := paused(); there {
		t.Error("the pause outlived the bot")
	}
}

func TestReplay(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	j := accept(t, l, 1)
	for range 3 {
		_, err := l.Attempt(ctx, j.ID)
		must(t, err)
	}
	_, err := l.Replay(ctx, j.ID)
	want(t, err, ErrJobState)
	must(t, l.Fail(ctx, []int64{j.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "core died"}, false))
	must(t, l.Fail(ctx, []int64{j.ID}, bot.RunRecord{Status: bot.RunInternal, Message: "set aside after 3 attempts"}, true))
	why, err := l.WhyFailed(ctx, dice, j.ID)
	must(t, err)
	addr, err := l.Replay(ctx, j.ID)
	must(t, err)
	again, err := l.JobAt(ctx, dice, j.Cursor)
	must(t, err)
	if why != "core died" || addr != dice || again.State != JobAccepted || again.Attempts != 0 {
		t.Errorf("%q failed: %s has %+v", why, addr, again)
	}
	_, err = l.Replay(ctx, 99)
	want(t, err, ErrNotFound)
	why, err = l.WhyFailed(ctx, dice, 99)
	must(t, err)
	if why != "" {
		t.Errorf("an unknown job failed: %q", why)
	}
}

func TestSummaryAndRunsAfter(t *testing.T) {
	ctx, l := t.Context(), fresh(t)
	for i, status := range []bot.RunStatus{bot.RunOK, bot.RunTimeout, bot.RunOK} {
		j := accept(t, l, uint32(i+1))
		must(t, l.Commit(ctx, Commit{Bot: dice, Jobs: []int64{j.ID}, UIDNext: 9, Started: time.Now(), Ended: time.Now(),
			Outgoing: []Outgoing{{To: []bot.Address{"a@b"}, Path: string(status) + string(rune('a'+i))}},
			Run:      &bot.RunRecord{Status: status, CPU: time.Second, CoreCPU: 2 * time.Second}}))
	}
	aside := accept(t, l, 9)
	must(t, l.Fail(ctx, []int64{aside.ID}, bot.RunRecord{Status: bot.RunInternal}, true))
	s, err := l.Summary(ctx, dice, time.Now().Add(-time.Hour))
	must(t, err)
	if time.Since(s.LastRun) > time.Minute {
		t.Errorf("the last run was %v", s.LastRun)
	}
	s.LastRun = time.Time{}
	if want := (Summary{Mails: 4, Runs: 4, Failed: 2, CPU: 3 * time.Second, CoreCPU: 6 * time.Second, SetAside: 1, Unsent: 3}); s != want {
		t.Errorf("got %+v, want %+v", s, want)
	}
	s, err = l.Summary(ctx, dice, time.Now().Add(time.Hour))
	must(t, err)
	if s.Runs != 0 || s.Mails != 0 || s.CPU != 0 || s.LastRun.IsZero() || s.SetAside != 1 {
		t.Errorf("of the future: %+v", s)
	}
	for _, test := range []struct {
		f    RunFilter
		want []int64
	}{
		{RunFilter{Limit: 9}, []int64{4, 3, 2, 1}},
		{RunFilter{Limit: 2}, []int64{4, 3}},
		{RunFilter{After: 2, Bot: dice, Limit: 9}, []int64{4, 3}},
		{RunFilter{Failed: true, Limit: 9}, []int64{4, 2}},
		{RunFilter{Bot: "nobody@relay.example", Limit: 9}, nil},
	} {
		runs, err := l.RunsAfter(ctx, test.f)
		must(t, err)
		var got []int64
		for _, r := range runs {
			got = append(got, r.ID)
		}
		if len(got) != len(test.want) || len(got) > 0 && (got[0] != test.want[0] || got[len(got)-1] != test.want[len(got)-1]) {
			t.Errorf("%+v: runs %v, want %v", test.f, got, test.want)
		}
	}
}
