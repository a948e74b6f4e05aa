package hostile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mayfly/internal/storage"
)

// TestHostile runs every program on every path of its own.
func TestHostile(t *testing.T) {
	for _, at := range paths() {
		if at.spec == nil {
			continue
		}
		t.Run(at.name, func(t *testing.T) {
			for _, p := range shared.corpus {
				if p.benign || !p.on(at.name) {
					continue
				}
				t.Run(p.id(), func(t *testing.T) { tryProgram(t, at, p) })
			}
		})
	}
}

func tryProgram(t *testing.T, at path, p program) {
	before := look(shared.home().pid)
	for _, v := range p.variants(at.name) {
		for _, f := range shared.try(shared.home(), at, p, v, at.rules, before) {
			t.Errorf("%s: %s", v, f)
		}
	}
	for _, f := range shared.next(shared.home(), at) {
		t.Errorf("the next run: %s", f)
	}
	select {
	case <-shared.victim.Dead():
		t.Fatal("another bot has died of it")
	default:
	}
}

// try runs a variant and gives everything that is not as it must be.
func (w *world) try(b broker, at path, p program, variant string, rules storage.Rules, before []string) []string {
	w.host.came()
	stop, locked := make(chan struct{}), make(chan []string)
	go func() { locked <- watchLocks(stop) }()
	o := w.run(b.client, at, p, variant, rules)
	close(stop)
	found := o.faults(at, p, variant)
	for _, name := range <-locked {
		found = append(found, "from outside: it has locked "+name)
	}
	for _, visitor := range w.host.came() {
		found = append(found, "from outside: "+visitor)
	}
	for _, change := range changes(b.pid, before) {
		found = append(found, "from outside: "+change)
	}
	if len(found) > 0 {
		found = append(found, fmt.Sprintf("it ended with %q, %q; kept %v, refused %v; %+v; log:\n%.3000s", o.ended, o.message, o.kept, o.refused, o.result, o.log))
	}
	return found
}

// faults compares a run with its manifest.
func (o *outcome) faults(at path, p program, variant string) []string {
	var found []string
	fault := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if o.err != nil {
		fault("it did not run: %v", o.err)
		return found
	}
	said := o.log + "\n" + o.message
	if !strings.Contains(said, "trying: ") && p.manifest["quiet"] == "" && o.ended != "killed memory" && o.ended != "signal SYS" {
		fault("it has tried nothing")
	}
	for line := range strings.Lines(said) {
		if strings.Contains(line, "BROKE: ") {
			fault("%s", strings.TrimSpace(line))
		}
	}
	if strings.Contains(said, canary) {
		fault("it gave back a secret")
	}
	if want := strings.Split(p.get("ends", at.name, variant), " or "); !slices.Contains(want, o.ended) {
		fault("its author reads %q, want %q", o.ended, want)
	}
	if says := p.get("says", at.name, variant); says != "" && !regexp.MustCompile(says).MatchString(o.message) {
		fault("its author reads %q, want %q", o.message, says)
	}
	if l, _ := p.limits(at.name, variant); o.took > 3*l.within { // others may be at work on the machine
		fault("it took %s, want at most %s", o.took, l.within)
	}
	found = append(found, o.folderFaults(p.get("folder", at.name, variant))...)
	return append(found, o.resourceFaults(at, p, variant)...)
}

// folderFaults compares what became of the folder: "kept", "refused regexp", or both with an "or".
func (o *outcome) folderFaults(want string) []string {
	var found []string
	for name, mode := range o.kept {
		if !strings.HasPrefix(mode, "-rw-------") && !strings.HasPrefix(mode, "-r--------") {
			found = append(found, fmt.Sprintf("%q is kept with mode %s", name, mode))
		}
		if strings.HasSuffix(name, "/core") || strings.ContainsAny(name, "\n\x1b") {
			found = append(found, fmt.Sprintf("%q is kept", name))
		}
	}
	if want == "" {
		return found
	}
	for _, w := range strings.Split(want, " or ") {
		pattern, refused := strings.CutPrefix(w, "refused ")
		if !refused && o.refused == nil || refused && o.refused != nil && regexp.MustCompile(pattern).MatchString(o.refused.Error()) {
			return found
		}
	}
	return append(found, fmt.Sprintf("its folder: refused %v, want %q", o.refused, want))
}

// resourceFaults holds what the run has used against what it may.
func (o *outcome) resourceFaults(at path, p program, variant string) []string {
	spec, err := at.spec(shared, p, variant)
	if err != nil {
		return []string{err.Error()}
	}
	for _, program := range spec.Programs {
		if program.Binary != nil {
			program.Binary.Close()
		}
	}
	l, _ := p.limits(at.name, variant)
	l.apply(&spec, p)
	most := spec.Memory + 8<<20
	for _, d := range spec.Dirs {
		most += d.Size
	}
	var found []string
	if o.result.Memory > most {
		found = append(found, fmt.Sprintf("it took %d MB of memory, limit %d MB", o.result.Memory>>20, most>>20))
	}
	if grace := time.Duration(3) * time.Second; spec.CPU > 0 && o.result.CPU > spec.CPU+grace {
		found = append(found, fmt.Sprintf("it took %s of CPU time, limit %s", o.result.CPU, spec.CPU))
	}
	if o.result.UID != brokerUID {
		found = append(found, fmt.Sprintf("it ran as uid %d, want %d", o.result.UID, brokerUID))
	}
	return found
}

// next runs a program that means no harm: the run after a hostile one is as quick as any.
func (w *world) next(b broker, at path) []string {
	p, ok := w.benign(at)
	if !ok {
		return []string{"no benign program for " + at.name}
	}
	o := w.run(b.client, at, p, "", at.rules)
	var found []string
	if o.err != nil || o.ended != "exit 0" && o.ended != "done OK" {
		found = append(found, fmt.Sprintf("%v, %q, %q %s", o.err, o.ended, o.message, o.log))
	}
	if o.took > 3*time.Second {
		found = append(found, fmt.Sprintf("it took %s", o.took))
	}
	return found
}

// benign finds the harmless program of a path.
func (w *world) benign(at path) (program, bool) {
	for _, p := range w.corpus {
		if p.benign && p.name == "hello" && p.on(at.name) {
			return p, true
		}
	}
	return program{}, false
}
