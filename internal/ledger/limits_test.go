package ledger

import (
	"testing"
	"time"

	"mayfly/internal/bot"
)

func TestAContactIsToldOnceAnHour(t *testing.T) {
	l, clock := fresh(t), time.Now()
	l.clock.now = func() time.Time { return clock }
	l.clock.ran = func() time.Duration { return clock.Sub(time.Unix(0, 0)) }
	l.clock.day, l.clock.was = clock, l.clock.ran()
	tell := func(path string, want bool, to ...Subject) {
		t.Helper()
		may, err := l.MayNoticeLimit(t.Context(), dice, to...)
		must(t, err)
		told, err := l.NoticeLimit(t.Context(), Answer{Bot: dice, At: clock, Outgoing: []Outgoing{{From: dice, To: []bot.Address{"a@x.example"}, Path: path}}}, to...)
		if must(t, err); told != want || may != want {
			t.Errorf("%s: told %v, may %v, want %v", path, told, may, want)
		}
	}
	tell("1", true, ByKey("AB"), ByAddress("a@x.example"))
	tell("2", false, ByKey("AB"), ByAddress("b@x.example"))
	tell("3", false, ByKey("CD"), ByAddress("a@x.example")) // a new key is free
	tell("4", true, ByKey("EF"))
	clock = clock.Add(time.Hour + time.Minute)
	tell("5", true, ByKey("AB"), ByAddress("a@x.example"))
	out, err := l.Outbox(t.Context(), dice, 10)
	if must(t, err); len(out) != 3 {
		t.Errorf("%d mails are in the outbox", len(out))
	}
}

func TestAnAuthorIsToldOnceADay(t *testing.T) {
	l, now := fresh(t), time.Now()
	overran := func(at time.Time, why string, want bool) {
		t.Helper()
		must(t, l.Overran(t.Context(), dice, why, at))
		o, there, err := l.Overrun(t.Context(), dice)
		if must(t, err); there != want || there && o.Why != why {
			t.Errorf("after %s: %v %+v, want %v", why, there, o, want)
		}
	}
	overran(now, "cpu", true)
	must(t, l.OverrunTold(t.Context(), dice, now))
	overran(now.Add(time.Hour), "again", false)
	overran(now.Add(25*time.Hour), "next day", true)
	must(t, l.OverrunTold(t.Context(), dice, now.Add(1e5*time.Hour))) // the clock was wrong
	overran(now.Add(26*time.Hour), "clock set back", true)
}
