//go:build crash

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"mayfly/internal/bot"
	"mayfly/internal/crash"
	"mayfly/internal/ledger"
)

// TestCrashScheduled kills every process at every step that a scheduled run has, once; every instant has one message. It prints the table.
func TestCrashScheduled(t *testing.T) {
	buildToCrash(t)
	var kills []kill
	for _, s := range crash.Steps() {
		switch s {
		case crash.Fetched, crash.Passed, crash.Accepted, crash.Presented, crash.Told, crash.Deleted, crash.Cleared: // of mails alone
			continue
		}
		for _, v := range victims(s) {
			kills = append(kills, kill{s, v})
		}
	}
	var mu sync.Mutex
	counts := map[kill]crashCount{}
	const worlds = 3
	t.Run("worlds", func(t *testing.T) {
		for i := range worlds {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				crashSchedules(t, i, kills[len(kills)*i/worlds:len(kills)*(i+1)/worlds], func(k kill, c crashCount) {
					mu.Lock()
					defer mu.Unlock()
					counts[k] = c
				})
			})
		}
	})
	fmt.Println("scheduled runs:")
	printCrashes(t, counts)
}

// ticking says which instant it is run for.
const ticking = `export default {
  async message(msg, env) {
    await env.storage.put("chat", String(msg.chat.id))
    return "noted"
  },
  async scheduled(event, env) { await env.send(Number(await env.storage.get("chat")), "tick " + event.scheduledTime) },
}`

func crashSchedules(t *testing.T, n int, kills []kill, count func(kill, crashCount)) {
	w := newWorld(t)
	w.ctx = t.Context()
	w.crash = filepath.Join(w.dir, "crash")
	address, invite := w.start(fmt.Sprintf("ticks%04d", n), onNewYear(script("Ticks", ticking)))
	ada := w.person(fmt.Sprintf("ada%06d", 50+n))
	chat := ada.join(invite)
	ada.say(chat, "hello")
	ada.expect("noted")
	w.awaitJobs(address, 3)
	for i, k := range kills {
		at := time.Now().Add(-time.Hour - time.Duration(i)*time.Minute).Truncate(time.Minute)
		w.arm(k)
		w.comes(address, at)
		w.carryOut(k)
		c := crashCount{kills: 1}
		switch ticks := ada.ticks(at); {
		case ticks == 0:
			c.lost = 1
		case ticks > 1:
			c.doubled = 1
		}
		count(k, c)
		if c.lost+c.doubled > 0 {
			t.Errorf("killed %s at %q: lost %d, doubled %d\n%s", k.victim, k.step, c.lost, c.doubled, w.log)
			return
		}
	}
	w.stop() // and nothing is left, as checkState says
}

// comes has the bot's schedule come, and the host look at it.
func (w *world) comes(address bot.Address, at time.Time) {
	w.t.Helper()
	var i ledger.Instant
	err := w.poll(func() bool {
		rows, err := w.ledger().Schedules(w.ctx, address)
		if err != nil {
			w.t.Fatal(err)
		}
		i = ledger.Instant{Cron: newYear, At: rows[0].Next, Then: at}
		return i.At.After(time.Now())
	})
	if err == nil {
		err = w.ledger().PlanSchedule(w.ctx, address, i)
	}
	if err != nil {
		w.t.Fatalf("the schedule is not to come: %v\n%s", err, w.log)
	}
	_ = w.mayfly("resume", string(address)) // which has the host look; it may die before it has answered
}

// ticks waits for the message of an instant, and a moment for a second one.
func (p *person) ticks(at time.Time) int {
	p.w.t.Helper()
	n := 0
	for wait := time.Minute; ; wait = 300 * time.Millisecond {
		ctx, cancel := context.WithTimeout(p.w.ctx, wait)
		m, err := p.Next(ctx)
		cancel()
		if err != nil {
			return n
		}
		if m.Text != fmt.Sprintf("tick %d", at.UnixMilli()) {
			p.w.t.Fatalf("heard %q at %v", m.Text, at)
		}
		n++
	}
}
