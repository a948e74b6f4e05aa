//go:build linux && (amd64 || arm64)

// Package faults makes every system call fail by which Mayfly's state gets onto the disk, and holds what is left against its promise:
// the old state or the new one, whole; an error that says what happened and what to do; and that the same again works when the fault
// is over. The calls are not listed anywhere: each operation is done until it has made no more calls that could fail.
package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mayfly/test/inject"
)

// operation is something that changes a state folder. dir is its folder, in which prepare has been.
type operation struct {
	part, name string
	prepare    func(t *testing.T, dir string)
	open       func(t *testing.T, dir string) work
	state      func(t *testing.T, dir string) string // what the disk holds, as a start of the daemon finds it
	readOnly   bool                                  // the state is the same after it
	stepwise   bool                                  // it has states in between, from which the same again goes on
	slow       bool                                  // a third of the calls is enough where not all are wanted
	unsynced   func(name string) bool                // a file whose sync may fail, for nothing depends on it
}

func op(part, name string, prepare func(*testing.T, string), open func(*testing.T, string) work, state func(*testing.T, string) string) operation {
	return operation{part: part, name: name, prepare: prepare, open: open, state: state}
}

// looking is an operation that leaves the state as it was.
func looking(o operation) operation {
	o.readOnly = true
	return o
}

// work is an operation on open files.
type work struct {
	do    func() error
	close func() // may be nil
}

// fault is a way to fail.
type fault struct {
	name   string
	hits   func(inject.Call) bool
	answer inject.Answer
	then   func(inject.Call) inject.Answer // of the calls after it; nil: they happen
	passes bool                            // it is no failure: the operation has to succeed
}

func needsSpace(c inject.Call) bool { return c.Effect == inject.Space || c.Effect == inject.Write }
func isWrite(c inject.Call) bool    { return c.Effect == inject.Write }
func isSync(c inject.Call) bool     { return c.Effect == inject.Sync }
func changes(c inject.Call) bool    { return c.Effect != inject.Read }
func reads(c inject.Call) bool      { return c.Effect == inject.Read }

func full(c inject.Call) inject.Answer {
	if needsSpace(c) {
		return inject.Answer{Errno: syscall.ENOSPC}
	}
	return inject.Answer{}
}

func broken(c inject.Call) inject.Answer {
	if changes(c) {
		return inject.Answer{Errno: syscall.EIO}
	}
	return inject.Answer{}
}

func faults() []fault {
	eio, enospc, half := inject.Answer{Errno: syscall.EIO}, inject.Answer{Errno: syscall.ENOSPC}, inject.Answer{Half: true}
	return []fault{
		{"the disk is full", needsSpace, enospc, full, false},
		{"EIO", changes, eio, nil, false},
		{"half a write, then the disk is full", isWrite, half, full, false},
		{"EIO from then on", changes, eio, broken, false},
		{"half a write", isWrite, half, nil, true},
		{"EIO at a read", reads, eio, nil, false},
	}
}

// row counts what was injected into one kind of call of one operation.
type row struct{ part, name, call string }

type tally struct{ injected, failed int }

// table is what is printed at the end.
type table struct {
	rows   []row
	counts map[row]*tally
}

func (tb *table) of(r row) *tally {
	if tb.counts[r] == nil {
		tb.counts[r] = &tally{}
		tb.rows = append(tb.rows, r)
	}
	return tb.counts[r]
}

func (tb *table) print() {
	passed, failed := 0, 0
	fmt.Printf("%-9s %-34s %-16s %8s %8s\n", "part", "operation", "call", "injected", "failed")
	for _, r := range tb.rows {
		c := tb.counts[r]
		fmt.Printf("%-9s %-34s %-16s %8d %8d\n", r.part, r.name, r.call, c.injected, c.failed)
		passed, failed = passed+c.injected-c.failed, failed+c.failed
	}
	fmt.Printf("%d faults passed, %d failed\n", passed, failed)
}

// TestEveryCall fails each call of each operation, in each way. Of equal calls on one file it takes one, another one for each way; with
// MAYFLY_FAULTS=20, up to 20 of them.
func TestEveryCall(t *testing.T) {
	most := 1
	if text := os.Getenv("MAYFLY_FAULTS"); text != "" {
		var err error
		most, err = strconv.Atoi(text)
		must(t, err)
	}
	disk := memory(t)
	tb := &table{counts: map[row]*tally{}}
	for _, o := range slices.Concat(keystoreOperations(), storageOperations(), ledgerOperations(), outboxOperations(), installOperations(), backupOperations()) {
		t.Run(o.part+"/"+o.name, func(t *testing.T) { o.run(t, tb, disk, most) })
	}
	tb.print()
}

func (o operation) run(t *testing.T, tb *table, disk string, most int) {
	template := o.folder(t, disk)
	if o.prepare != nil {
		o.prepare(t, template)
	}
	before := o.state(t, copied(t, template))
	whole := copied(t, template)
	w := o.open(t, whole)
	places := make([][]place, len(faults()))
	must(t, inject.Run(whole, func(c inject.Call) inject.Answer {
		for i, f := range faults() {
			if f.hits(c) {
				places[i] = append(places[i], placeOf(whole, c))
			}
		}
		return inject.Answer{}
	}, func() { must(t, w.do()) }))
	w.end()
	after := o.state(t, whole)
	if (before == after) != o.readOnly {
		t.Fatalf("the state before and after it:\n%s\n%s", before, after)
	}
	for i, f := range faults() {
		for j, n := range chosen(places[i], i, most) {
			if o.slow && most == 1 && (i+j)%3 > 0 {
				continue
			}
			r := trial{o, f, n, before, after}
			call, failures := r.run(t, template)
			c := tb.of(row{o.part, o.name, call})
			c.injected++
			if len(failures) > 0 {
				c.failed++
				t.Errorf("%s at call %d, %s:\n  %s", f.name, n, call, strings.Join(failures, "\n  "))
			}
		}
	}
}

// memory has the test's temporary files in memory where it can, since each sync of a disk takes its time, and returns a folder on the
// disk all the same.
func memory(t *testing.T) (disk string) {
	t.Helper()
	disk = t.TempDir()
	const shared = "/dev/shm"
	if unix.Access(shared, unix.W_OK) != nil {
		return disk
	}
	dir, err := os.MkdirTemp(shared, "mayfly-faults-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return disk
}

// folder is on the disk where its nature counts: what many files are synced with.
func (o operation) folder(t *testing.T, disk string) string {
	t.Helper()
	if o.part != "storage" {
		disk = t.TempDir()
	}
	dir := filepath.Join(disk, o.part, o.name)
	must(t, os.MkdirAll(dir, 0o700))
	return dir
}

// place is a call and what kind of file it is about.
type place struct{ call, file string }

var chance = regexp.MustCompile(`\.tmp-\w+|[0-9a-f]{32}|many-\d+|-\d+$`)

func placeOf(dir string, c inject.Call) place {
	return place{c.Name, chance.ReplaceAllString(rel(dir, c.Path), "*")}
}

// chosen are the calls, counted from 1, that are to fail: of the same place at most so many, from the first to the last. Where it is one,
// the way of the fault says which.
func chosen(places []place, way, most int) (numbers []int) {
	byPlace := map[place][]int{}
	for i, p := range places {
		byPlace[p] = append(byPlace[p], i+1)
	}
	for _, all := range byPlace {
		if most == 1 {
			numbers = append(numbers, all[way*(len(all)-1)/(len(faults())-1)])
			continue
		}
		n := min(most, len(all))
		for i := range n {
			numbers = append(numbers, all[i*(len(all)-1)/max(1, n-1)])
		}
	}
	slices.Sort(numbers)
	return numbers
}

// trial is an operation with a fault at the n-th call that the fault can hit.
type trial struct {
	operation
	fault
	n             int
	before, after string
}

func (r trial) run(t *testing.T, template string) (call string, failures []string) {
	fails := func(format string, args ...any) { failures = append(failures, fmt.Sprintf(format, args...)) }
	dir := copied(t, template)
	defer os.RemoveAll(dir)
	w := r.open(t, dir)
	defer func() { w.end() }()
	hit, err := r.inject(t, dir, w)
	call = hit.Name
	if call == "" {
		call = "not reached"
	}
	left := copied(t, dir) // as a crash would leave it now
	defer os.RemoveAll(left)
	found := r.state(t, left)
	switch {
	case err != nil && r.passes:
		fails("it failed: %v", err)
	case err == nil && found != r.after:
		fails("it says that it was done, and the disk has %s", r.difference(found))
	case err != nil && !r.stepwise && found != r.before && found != r.after:
		fails("the disk has neither the old state nor the new: %s\n  after %v", r.difference(found), err)
	}
	if err == nil && hit.Effect == inject.Sync && !r.readOnly && !r.mayBeUnsynced(dir, hit) {
		fails("%s of %s failed, and it says that it was done", hit.Name, hit.Path)
	}
	if err != nil {
		for _, f := range clear(dir, r.fault, err) {
			fails("%s", f)
		}
	}
	if err == nil {
		return call, failures
	}
	synced, err := r.again(t, dir, w)
	if err != nil {
		fails("the fault is over, and it still fails: %v", err)
	}
	if hit.Effect == inject.Sync && err == nil && !synced[hit.Path] && !r.readOnly && !r.mayBeUnsynced(dir, hit) {
		if _, gone := os.Lstat(hit.Path); gone == nil && !strings.Contains(hit.Path, "/.tmp-") {
			fails("%s of %s failed, and was not made good the second time", hit.Name, rel(dir, hit.Path))
		}
	}
	w.end()
	w = work{}
	if found := r.state(t, dir); found != r.after {
		fails("after a second try the disk has %s", r.difference(found))
	}
	// And so it is when the daemon died in between.
	w2 := r.open(t, left)
	if err := w2.do(); err != nil && (found == r.before || r.stepwise) {
		fails("after a restart it fails: %v", err)
	}
	w2.end()
	if found := r.state(t, left); found != r.after {
		fails("after a restart and a second try the disk has %s", r.difference(found))
	}
	return call, failures
}

// difference is what of a state is neither in the old nor in the new, and what it lacks of the new.
func (r trial) difference(found string) string {
	var text strings.Builder
	was, wanted, is := strings.Split(r.before, "\n"), strings.Split(r.after, "\n"), strings.Split(found, "\n")
	for _, line := range is {
		if !slices.Contains(wanted, line) {
			fmt.Fprintf(&text, "\n    +%s (was there before: %v)", line, slices.Contains(was, line))
		}
	}
	for _, line := range wanted {
		if !slices.Contains(is, line) {
			fmt.Fprintf(&text, "\n    -%s", line)
		}
	}
	return text.String()
}

// inject does the operation with the fault, and returns the call that it hit.
func (r trial) inject(t *testing.T, dir string, w work) (hit inject.Call, err error) {
	n := 0
	must(t, inject.Run(dir, func(c inject.Call) inject.Answer {
		if n >= r.n {
			if r.then != nil {
				return r.then(c)
			}
			return inject.Answer{}
		}
		if r.hits(c) {
			n++
		}
		if n < r.n {
			return inject.Answer{}
		}
		hit = c
		return r.answer
	}, func() { err = w.do() }))
	return hit, err
}

// again does the operation once more, without a fault, and returns what was made durable.
func (r trial) again(t *testing.T, dir string, w work) (synced map[string]bool, err error) {
	synced = map[string]bool{}
	must(t, inject.Run(dir, func(c inject.Call) inject.Answer {
		if isSync(c) {
			synced[c.Path] = true
		}
		return inject.Answer{}
	}, func() { err = w.do() }))
	return synced, err
}

func (o operation) mayBeUnsynced(dir string, c inject.Call) bool {
	return o.unsynced != nil && o.unsynced(rel(dir, c.Path))
}

func (w work) end() {
	if w.close != nil {
		w.close()
	}
}

// clear says what an error lacks: it names what could not be written, and what to do.
func clear(dir string, f fault, err error) (lacks []string) {
	text := err.Error()
	if !strings.Contains(text, string(dice)) && !strings.Contains(text, dir) {
		lacks = append(lacks, fmt.Sprintf("the error names neither bot nor file: %q", text))
	}
	if f.answer.Errno == syscall.ENOSPC || f.answer.Half {
		if !strings.Contains(text, "space") && !strings.Contains(text, "full") {
			lacks = append(lacks, fmt.Sprintf("the error does not say that space is needed: %q", text))
		}
	} else if !strings.Contains(text, "disk") && !strings.Contains(text, "delete all that is in") {
		lacks = append(lacks, fmt.Sprintf("the error does not say to look at the disk: %q", text))
	}
	return lacks
}

func rel(dir, path string) string {
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return path
	}
	return name
}

func copied(t *testing.T, dir string) string {
	t.Helper()
	to, err := os.MkdirTemp(filepath.Dir(dir), "copy")
	must(t, err)
	must(t, copyTree(dir, to))
	return to
}

// copyTree copies regular files and folders, and keeps hard links apart: what is compared are contents.
func copyTree(from, to string) error {
	entries, err := os.ReadDir(from)
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			err = errors.Join(err, os.Mkdir(b, 0o700), copyTree(a, b))
			continue
		}
		data, readErr := os.ReadFile(a)
		err = errors.Join(err, readErr, os.WriteFile(b, data, 0o600))
	}
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
