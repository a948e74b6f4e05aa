package hostile

import (
	"os"
	"testing"
)

// TestManyRuns makes 200 runs in a row, half of them hostile, on every path in turn. Nothing is left of them, and neither the daemon's
// side nor the broker has grown.
func TestManyRuns(t *testing.T) {
	var at []path
	for _, p := range paths() {
		if p.spec != nil {
			at = append(at, p)
		}
	}
	quick := shared.quick(at)
	one := func(i int) {
		where := at[i%len(at)]
		if found := shared.next(shared.home(), where); len(found) > 0 {
			t.Error(i, found)
		}
		programs := quick[where.name]
		p := programs[i/len(at)%len(programs)]
		if o := shared.run(shared.home().client, where, p, p.variants(where.name)[0], where.rules); o.err != nil {
			t.Error(i, p.id(), o.err)
		}
	}
	for i := range 2 * len(at) {
		one(i)
	}
	self, brokerPID := os.Getpid(), shared.home().pid
	before, ours, theirs := look(brokerPID), openFiles(self), openFiles(brokerPID)
	ourMemory, theirMemory := residentMemory(self), residentMemory(brokerPID)
	for i := range 100 {
		one(i)
	}
	for _, c := range changes(brokerPID, before) {
		t.Error(c)
	}
	if now := openFiles(brokerPID); now > theirs {
		t.Errorf("the broker holds %d files, %d before", now, theirs)
	}
	if now := openFiles(self); now > ours {
		t.Errorf("the daemon's side holds %d files, %d before", now, ours)
	}
	const growth = 24 << 20 // what a garbage collector may not have come to
	if now := residentMemory(brokerPID); now > theirMemory+growth {
		t.Errorf("the broker has grown from %d to %d MB", theirMemory>>20, now>>20)
	}
	if now := residentMemory(self); now > ourMemory+2*growth {
		t.Errorf("the daemon's side has grown from %d to %d MB", ourMemory>>20, now>>20)
	}
}

// quick are the hostile programs that take no time of their own, by path.
func (w *world) quick(at []path) map[string][]program {
	programs := make(map[string][]program)
	for _, where := range at {
		for _, p := range w.corpus {
			slow := p.wall == "cpu" || p.wall == "time" || p.wall == "output" || p.wall == "storage" || p.wall == "inodes" || p.wall == "disk" || p.manifest["within"] != ""
			if !p.benign && p.on(where.name) && !slow {
				programs[where.name] = append(programs[where.name], p)
			}
		}
	}
	return programs
}
