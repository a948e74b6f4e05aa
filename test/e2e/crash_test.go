//go:build crash

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/crash"
)

// victims are who is killed at a step: what works on a mail then.
func victims(s crash.Step) []string {
	switch s {
	case crash.Up, crash.Presented, crash.Told, crash.Entered, "":
		return []string{"daemon", "broker", "stage", "core", "worker"}
	case crash.Answered:
		return []string{"daemon", "broker", "stage", "core"} // the worker of a bot that has answered is on its way out
	case crash.Drained, crash.Read:
		return []string{"daemon", "broker", "stage"}
	}
	return []string{"daemon", "broker"}
}

// kill is one to be carried out. A step that is empty is death at a random time.
type kill struct {
	step   crash.Step
	victim string
}

// crashCount is what became of the mails that were under way at kills. A kill that found nobody to kill is a miss.
type crashCount struct{ kills, missed, lost, doubled int }

// planned are so many kills: every victim at every step in turn, and as many at random times, if they are enough.
func planned(total int) []kill {
	var steps, times []kill
	for _, s := range crash.Steps() {
		for _, v := range victims(s) {
			steps = append(steps, kill{s, v})
		}
	}
	for _, v := range victims("") {
		times = append(times, kill{"", v})
	}
	var kills []kill
	for i := range total {
		if whole := i / len(steps); whole%2 == 0 {
			kills = append(kills, steps[i%len(steps)])
		} else {
			kills = append(kills, times[i%len(times)])
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	return kills
}

// TestCrash kills every process at every step and at random times, as often as CRASH_KILLS says; every message has one reply. It prints
// the table. That no process, control group, mount or file is left, TestMain and checkState see.
func TestCrash(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("CRASH_KILLS"))
	if err != nil {
		t.Fatalf("CRASH_KILLS is how many kills: %v", err)
	}
	buildToCrash(t)
	kills := planned(total)
	var mu sync.Mutex
	counts := map[kill]crashCount{}
	const worlds = 3
	t.Run("worlds", func(t *testing.T) {
		for i := range worlds {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				crashWorld(t, i, kills[len(kills)*i/worlds:len(kills)*(i+1)/worlds], func(k kill, c crashCount) {
					mu.Lock()
					defer mu.Unlock()
					sum := counts[k]
					counts[k] = crashCount{sum.kills + c.kills, sum.missed + c.missed, sum.lost + c.lost, sum.doubled + c.doubled}
				})
			})
		}
	})
	printCrashes(t, counts)
}

// buildToCrash builds the binaries in which processes can be killed at steps.
func buildToCrash(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-tags", "crash", "-o", dir+"/", "mayfly/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	before := binaries
	t.Cleanup(func() { binaries = before })
	binaries = dir
}

func printCrashes(t *testing.T, counts map[kill]crashCount) {
	var passed, failed int
	var all crashCount
	fmt.Printf("%-12s %-8s %6s %6s %6s %8s\n", "step", "killed", "kills", "missed", "lost", "doubled")
	for _, s := range append(crash.Steps(), "") {
		for _, v := range victims(s) {
			c := counts[kill{s, v}]
			name := string(s)
			if s == "" {
				name = "any time"
			}
			if c.kills == 0 {
				continue
			}
			all = crashCount{all.kills + c.kills, all.missed + c.missed, all.lost + c.lost, all.doubled + c.doubled}
			fmt.Printf("%-12s %-8s %6d %6d %6d %8d\n", name, v, c.kills, c.missed, c.lost, c.doubled)
			if c.lost+c.doubled > 0 {
				failed++
				t.Errorf("killed %s at %s: %d lost, %d doubled", v, name, c.lost, c.doubled)
			} else {
				passed++
			}
		}
	}
	fmt.Printf("%-12s %-8s %6d %6d %6d %8d\n%d passed, %d failed\n", "", "all", all.kills, all.missed, all.lost, all.doubled, passed, failed)
}

const much = `
mails_per_hour = 100000
mails_per_day = 100000
seconds_per_hour = 3600
bytes_per_hour = "10GB"
`

func crashWorld(t *testing.T, n int, kills []kill, count func(kill, crashCount)) {
	w := newWorld(t)
	w.ctx = t.Context()
	w.crash = filepath.Join(w.dir, "crash")
	w.settings = strings.NewReplacer("[log]\n", "[limits]\nmails_per_hour = 100000\n[limits.per_user]\n"+much+"[limits.sending]\nmails_per_hour = 100000\nmails_per_hour_and_contact = 100000\n[log]\n")
	_, invite := w.start(fmt.Sprintf("crash%04d", n), script("Echo", echo))
	ada := w.person(fmt.Sprintf("ada%06d", n))
	chat := ada.join(invite)
	for i, k := range kills {
		text := strconv.Itoa(i)
		w.arm(k)
		ada.say(chat, text)
		c := crashCount{kills: 1, missed: w.carryOut(k)}
		replies := ada.repliesTo(text)
		switch {
		case replies == 0:
			c.lost = 1
		case replies > 1:
			c.doubled = 1
		}
		count(k, c)
		if c.lost+c.doubled > 0 {
			t.Errorf("killed %s at %q: %q has %d replies\n%s", k.victim, k.step, text, replies, w.log)
			return
		}
	}
	w.stop() // and nothing is left, as checkState says
}

// arm says what is to be killed at the next mail.
func (w *world) arm(k kill) {
	w.t.Helper()
	_ = os.Remove(w.crash + ".done")
	_ = os.Remove(w.crash + ".killed")
	if k.step == "" {
		return
	}
	if err := os.WriteFile(w.crash, []byte(string(k.step)+" "+k.victim), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// carryOut returns when the kill has happened, and the host runs again where it died of it. It returns 1 where nobody was there to be
// killed, which for a step that the victim has a part in is an error.
func (w *world) carryOut(k kill) (missed int) {
	w.t.Helper()
	if k.step == "" {
		return w.strike(k.victim)
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(w.crash + ".done"); err == nil {
			break
		}
		if time.Since(start) > 3*time.Minute {
			w.t.Fatalf("the step %q was not reached\n%s", k.step, w.log)
		}
	}
	if k.victim == "daemon" || k.victim == "broker" {
		w.end(false)
		w.serve()
		return 0
	}
	err := w.poll(func() bool { _, err := os.Stat(w.crash + ".killed"); return err == nil })
	text, err2 := os.ReadFile(w.crash + ".killed")
	if err != nil || err2 != nil {
		w.t.Fatalf("nobody says whom the kill at %q met: %v, %v", k.step, err, err2)
	}
	if string(text) != "0" {
		return 0
	}
	if k != (kill{crash.Entered, "worker"}) { // which may have answered and ended
		w.t.Errorf("there was no %s to be killed at %q", k.victim, k.step)
	}
	return 1
}

// strike kills at a random time from when a message was said.
func (w *world) strike(victim string) (missed int) {
	w.t.Helper()
	time.Sleep(rand.N(600 * time.Millisecond))
	if victim == "daemon" {
		w.kill()
		w.serve()
		return 0
	}
	if crash.Kill(w.command.Process.Pid, victim) == 0 {
		missed = 1
	}
	if victim == "broker" {
		w.end(false)
		w.serve()
	}
	return missed
}

// repliesTo waits for a reply, and a moment for a second one.
func (p *person) repliesTo(text string) int {
	p.w.t.Helper()
	n := 0
	for wait := 3 * time.Minute; ; wait = 100 * time.Millisecond {
		ctx, cancel := context.WithTimeout(p.w.ctx, wait)
		m, err := p.Next(ctx)
		cancel()
		if err != nil {
			return n
		}
		if m.Text != "you said: "+text {
			p.w.t.Fatalf("heard %q after %q", m.Text, text)
		}
		n++
	}
}
