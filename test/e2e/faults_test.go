//go:build linux && amd64

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/backup"
	"mayfly/test/inject"
)

// verified requires that mayfly verify has nothing to say of a host that has ended.
func (w *world) verified() {
	w.t.Helper()
	problems, err := backup.Of(filepath.Join(w.dir, "state")).Check(context.Background())
	if err != nil || len(problems) > 0 {
		w.t.Errorf("mayfly verify: %v, %v", problems, err)
	}
}

// TestFullDisk fills the disk of the state folder, but for some space, while a mail comes. The host says so and goes on when the disk has
// space again; each mail has one reply.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	w.ctx = t.Context()
	state := filepath.Join(w.dir, "state")
	if err := errors.Join(os.Mkdir(state, 0o700), unix.Mount("mayfly-full", state, "tmpfs", 0, "size=64m,mode=0700")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(state, 0); err != nil {
			t.Error(err)
		}
	})
	_, invite := w.start("fulldisk1", script("Full", echo))
	ada := w.person("ada000901")
	chat := ada.join(invite)
	for _, left := range []int64{0, 4 << 10, 32 << 10, 100 << 10, 200 << 10, 400 << 10} {
		text := fmt.Sprintf("with %d left", left)
		after := w.log.offset()
		w.fill(left)
		ada.say(chat, text)
		heard := w.fullOrHeard(ada, after, "you said: "+text)
		if err := os.Remove(filepath.Join(state, "filler")); err != nil {
			t.Fatal(err)
		}
		if left == 0 && heard {
			t.Errorf("%q was answered: the disk was not full", text)
		}
		if !heard {
			ada.expect("you said: " + text)
		}
	}
	ada.say(chat, "over")
	ada.expect("you said: over") // and no second reply to anything
	w.kill()
	w.fill(0)
	w.serve() // it starts all the same
	w.fill(0) // also what the end of the one before has left
	after := w.log.offset()
	ada.say(chat, "started again")
	heard := w.fullOrHeard(ada, after, "you said: started again")
	if err := os.Remove(filepath.Join(state, "filler")); err != nil {
		t.Fatal(err)
	}
	if !heard {
		ada.expect("you said: started again")
	}
	w.stop()
	w.verified()
}

// fill leaves some bytes of the state folder's disk.
func (w *world) fill(left int64) {
	w.t.Helper()
	f, err := os.OpenFile(filepath.Join(w.dir, "state", "filler"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4<<10)
	for err == nil {
		_, err = f.Write(page)
	}
	info, err2 := f.Stat()
	if !errors.Is(err, syscall.ENOSPC) || err2 != nil {
		w.t.Fatalf("filling the disk: %v, %v", err, err2)
	}
	if err := f.Truncate(info.Size() - left); err != nil {
		w.t.Fatal(err)
	}
}

// fullOrHeard waits until the host says that the disk is full, or somebody hears the reply all the same.
func (w *world) fullOrHeard(p *person, after int, text string) (heard bool) {
	w.t.Helper()
	full := func() bool {
		log := w.log.String()[after:]
		return strings.Contains(log, "space under") || strings.Contains(log, "is full") || strings.Contains(log, "free some space")
	}
	for start := time.Now(); time.Since(start) < 2*time.Minute; {
		ctx, cancel := context.WithTimeout(w.ctx, 50*time.Millisecond)
		m, err := p.Next(ctx)
		cancel()
		if err == nil && m.Text != text {
			w.t.Fatalf("heard %q, want %q\n%s", m.Text, text, w.log)
		}
		if err == nil {
			return true
		}
		if full() {
			return false
		}
	}
	w.t.Fatalf("neither %q nor a word of the host's\n%s", text, w.log)
	return false
}

// injector fails the n-th call that changes the state folder, once.
type injector struct {
	mu     sync.Mutex
	armed  int
	answer inject.Answer
	seen   []string
	hit    string
}

func (i *injector) decide(c inject.Call) inject.Answer {
	i.mu.Lock()
	defer i.mu.Unlock()
	if c.Effect == inject.Read || i.answer.Errno == syscall.ENOSPC && c.Effect != inject.Space && c.Effect != inject.Write {
		return inject.Answer{}
	}
	what := c.Name + " " + kindOf(c.Path)
	i.seen = append(i.seen, what)
	if i.armed--; i.armed != 0 {
		return inject.Answer{}
	}
	i.hit = what
	return i.answer
}

// kindOf says which part of the state folder a path is in.
func kindOf(path string) string {
	_, rest, _ := strings.Cut(path, "/state")
	parts := strings.Split(strings.Trim(rest, "/"), "/")
	if parts[0] == "bots" && len(parts) > 2 {
		return parts[2]
	}
	return parts[0]
}

func (i *injector) arm(n int, a inject.Answer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.armed, i.answer, i.seen, i.hit = n, a, nil, ""
}

func (i *injector) result() (seen int, hit string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.seen), i.hit
}

// TestFaultsInAMail fails calls of the host on its files, one in each mail: of all calls that a mail makes, spread over its life. Each mail
// has one reply. It prints what it failed.
func TestFaultsInAMail(t *testing.T) {
	w := newWorld(t)
	w.ctx = t.Context()
	in := &injector{}
	w.inject = in.decide
	w.settings = strings.NewReplacer("[log]\n", "[limits]\nmails_per_hour = 100000\n[limits.per_user]\nmails_per_hour = 100000\nmails_per_day = 100000\nseconds_per_hour = 3600\nbytes_per_hour = \"1GB\"\n[log]\n")
	address, invite := w.start("faults001", script("Faults", `export default { async message(msg, env) {
		const n = Number(await env.storage.get("n") ?? 0) + 1
		await env.storage.put("n", String(n))
		return n + ": " + msg.text
	} }`))
	ada := w.person("ada000902")
	chat := ada.join(invite)
	said := 0
	say := func(n int, a inject.Answer) (calls int, hit string) {
		said++
		in.arm(n, a)
		ada.say(chat, "hello")
		m := ada.hearWithin(3 * time.Minute)
		if m.Text != fmt.Sprintf("%d: hello", said) {
			t.Fatalf("heard %q, want the %d. reply: %s", m.Text, said, w.log)
		}
		w.awaitJobs(address, said+2)
		return in.result()
	}
	calls, _ := say(0, inject.Answer{})
	steps := 16
	if os.Getenv("MAYFLY_FAULTS") != "" {
		steps = calls
	}
	hits := map[string]int{}
	for i := range steps {
		a := inject.Answer{Errno: syscall.EIO}
		if i%2 == 1 {
			a.Errno = syscall.ENOSPC
		}
		_, hit := say(1+i*(calls-1)/max(1, steps-1), a)
		if hit == "" { // this mail took fewer calls
			hit = "not reached"
		}
		hits[hit]++
	}
	say(0, inject.Answer{})
	for _, what := range slices.Sorted(maps.Keys(hits)) {
		fmt.Printf("%-40s %d\n", what, hits[what])
	}
	fmt.Printf("%d calls of one mail; %d mails with a fault, 0 lost, 0 doubled\n", calls, steps)
	if err := w.poll(func() bool { return len(glob(filepath.Join(w.dir, "state", "outbox", "*"))) == 0 }); err != nil {
		t.Errorf("commits that failed have left %q", glob(filepath.Join(w.dir, "state", "outbox", "*")))
	}
	w.kill() // what a failed deletion left is deleted at the next start
	w.inject = nil
	w.serve()
	say(0, inject.Answer{})
	w.stop()
	w.verified()
}
