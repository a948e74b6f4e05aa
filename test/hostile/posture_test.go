package hostile

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mayfly/internal/sandbox"
	"mayfly/internal/sandbox/cgroup"
)

// TestPosture looks at a live program of each path from outside, in the sandbox that production gives it. (TestPosture of
// internal/sandbox looks at the stage, and at programs that have not been started.)
func TestPosture(t *testing.T) {
	for _, at := range paths() {
		if at.spec == nil {
			continue
		}
		t.Run(at.name, func(t *testing.T) {
			found, err := shared.posture(shared.home(), at)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				t.Error(f)
			}
		})
	}
}

// posture starts a program that waits, and gives everything that is not as it must be.
func (w *world) posture(b broker, at path) ([]string, error) {
	p := w.waiting(at)
	spec, err := at.spec(w, p, "")
	if err != nil {
		return nil, err
	}
	others := childrenOf(b.pid)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	box, err := b.client.Open(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer box.Close()
	if at.fill != nil {
		if err := at.fill(w, box, p); err != nil {
			return nil, err
		}
	}
	if err := box.Start(spec.Programs[0].Name); err != nil {
		return nil, err
	}
	stages := slices.DeleteFunc(childrenOf(b.pid), func(pid int) bool { return slices.Contains(others, pid) })
	if len(stages) != 1 {
		return nil, fmt.Errorf("the broker has %d new children, want a stage", len(stages))
	}
	pid, err := awaitProgram(at, box, spec.Programs[0].Name, p, stages[0])
	if err != nil {
		return nil, err
	}
	l := looker{pid: pid, spec: spec, at: at}
	l.identity()
	l.namespaces()
	l.mounts()
	l.descriptors()
	l.environment()
	l.limits()
	return l.found, nil
}

// waiting is the program of a path that stays.
func (w *world) waiting(at path) program {
	name := "wait"
	if at.name == "script" {
		name = "hello" // waits for its job
	}
	for _, p := range w.corpus {
		if p.benign && p.name == name && p.on(at.name) {
			return p
		}
	}
	return program{name: name}
}

// awaitProgram returns the process of the program when it runs the program's own code.
func awaitProgram(at path, box *sandbox.Sandbox, name string, p program, stage int) (int, error) {
	stdio := box.Program(name)
	if at.name == "core" || at.name == "wasm" {
		fmt.Fprintf(stdio.Stdin, "%s\n", p.name)
	}
	sign := stdio.Stderr // "trying: nothing"
	if at.name == "script" {
		sign = stdio.Stdout // ready
	}
	if err := sign.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, err
	}
	if line, err := bufio.NewReader(sign).ReadString('\n'); err != nil {
		return 0, fmt.Errorf("the program does not say that it is there: %q, %w", line, err)
	}
	programs := childrenOf(stage)
	if len(programs) == 0 {
		return 0, fmt.Errorf("the stage has no children")
	}
	pid := slices.Min(programs) // the first of the Spec
	for {                       // bubblewrap's processes stand between
		below := childrenOf(pid)
		if len(below) == 0 {
			return pid, nil
		}
		pid = below[0]
	}
}

func childrenOf(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		for _, f := range strings.Fields(strings.Join(lines(task), " ")) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	slices.Sort(pids)
	return pids
}

// looker collects what is wrong with one process.
type looker struct {
	pid   int
	spec  sandbox.Spec
	at    path
	found []string
}

func (l *looker) fault(format string, args ...any) {
	l.found = append(l.found, fmt.Sprintf(format, args...))
}

func (l *looker) proc(file string) string { return fmt.Sprintf("/proc/%d/%s", l.pid, file) }

func (l *looker) native() bool { return l.spec.Programs[0].Path != "" }

// identity: one uid that is not root's, inside and outside; no capabilities and no way to any; a filter, on every thread.
func (l *looker) identity() {
	tasks, _ := filepath.Glob(l.proc("task/*"))
	for _, task := range append(tasks, l.proc("")) {
		st := statusOf(strings.TrimPrefix(strings.TrimSuffix(task, "/"), "/proc/"))
		for _, key := range []string{"Uid", "Gid"} {
			for _, id := range strings.Fields(st[key]) {
				if id != strconv.Itoa(brokerUID) {
					l.fault("%s of %s: %s, want %d", key, task, st[key], brokerUID)
					break
				}
			}
		}
		for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if st[key] != "0000000000000000" {
				l.fault("%s of %s: %s, want none", key, task, st[key])
			}
		}
		filters, _ := strconv.Atoi(st["Seccomp_filters"])
		if st["NoNewPrivs"] != "1" {
			l.fault("no_new_privs of %s: %s, want 1", task, st["NoNewPrivs"])
		}
		if st["Seccomp"] != "2" || filters < 1 {
			l.fault("seccomp of %s: mode %s, %d filters", task, st["Seccomp"], filters)
		}
	}
	for _, m := range []string{"uid_map", "gid_map"} {
		f := strings.Fields(strings.Join(lines(l.proc(m)), " "))
		if len(f) != 3 || f[0] != "65534" || f[1] != strconv.Itoa(brokerUID) || f[2] != "1" {
			l.fault("%s: %v, want 65534 %d 1", m, f, brokerUID)
		}
	}
	if info, err := os.Stat(l.proc("mem")); l.spec.Programs[0].Builtin != "" && (err != nil || ownerOf(info) != 0) {
		l.fault("it is dumpable: others of its user can read its memory")
	}
}

func (l *looker) namespaces() {
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		theirs, err := os.Readlink(l.proc("ns/" + ns))
		ours, _ := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || theirs == ours {
			l.fault("namespace %s: %q is the host's", ns, theirs)
		}
	}
}

// mounts: a program of ours sees the Spec's directories and an empty root; a native one, the system besides, none of it to be written.
func (l *looker) mounts() {
	writable := make(map[string]bool)
	known := map[string]bool{"/": true}
	for _, d := range l.spec.Dirs {
		known[d.Path], writable[d.Path] = true, d.Writable
		writable["/dev/shm"] = writable["/dev/shm"] || d.Path == "/tmp"
	}
	for _, line := range lines(l.proc("mounts")) {
		f := strings.Fields(line)
		at, kind, options := f[1], f[2], strings.Split(f[3], ",")
		system := l.native() && (at == "/usr" || at == "/proc" || strings.HasPrefix(at, "/etc") || strings.HasPrefix(at, "/dev") ||
			strings.HasPrefix(at, "/usr/") || strings.HasPrefix(at, "/proc/"))
		if !known[at] && !system {
			l.fault("mount %q: it is no part of the sandbox", line)
		}
		if slices.Contains(options, "rw") && !writable[at] && at != "/proc" && !strings.HasPrefix(at, "/dev/") {
			l.fault("mount %q: it can be written", line)
		}
		want := []string{"nosuid"}
		if !strings.HasPrefix(at, "/dev/") {
			want = append(want, "nodev")
		}
		if known[at] && !l.native() || writable[at] {
			want = append(want, "noexec")
		}
		for _, o := range want {
			if !slices.Contains(options, o) {
				l.fault("mount %q: want %s", line, o)
			}
		}
		if known[at] && at != "/" && (kind != "tmpfs" || !strings.Contains(f[3], "size=") || strings.Contains(f[3], "size=0k") || !strings.Contains(f[3], "nr_inodes=")) {
			l.fault("mount %q: want a tmpfs with a size", line)
		}
	}
}

// descriptors: three pipes, and what a runtime polls with.
func (l *looker) descriptors() {
	fds, err := os.ReadDir(l.proc("fd"))
	if err != nil || len(fds) < 3 {
		l.fault("descriptors: %d, %v", len(fds), err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink(l.proc("fd/" + fd.Name()))
		n, _ := strconv.Atoi(fd.Name())
		if n < 3 && strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "anon_inode:[event") {
			continue
		}
		if l.spec.Programs[0].Builtin != "" && strings.HasPrefix(target, "pipe:") { // Go's own, to wake its poller
			continue
		}
		if l.at.name == "wasm" && slices.ContainsFunc(l.spec.Dirs, func(d sandbox.Dir) bool { return d.Path == target }) {
			continue // what the module may open beneath
		}
		l.fault("descriptor %s: %s", fd.Name(), target)
	}
}

// environment: what the Spec says, and nothing of the daemon's.
func (l *looker) environment() {
	text, err := os.ReadFile(l.proc("environ"))
	if err != nil {
		l.fault("environment: %v", err)
	}
	for v := range strings.SplitSeq(strings.TrimRight(string(text), "\x00"), "\x00") {
		// bubblewrap sets PWD, and so does it after it has changed the directory.
		if v != "" && !slices.Contains(l.spec.Programs[0].Env, v) && !strings.HasPrefix(v, "PWD=") {
			l.fault("environment: %q is not the program's", v)
		}
	}
}

// limits: the cgroup's and the process's own.
func (l *looker) limits() {
	memory := l.spec.Memory
	for _, d := range l.spec.Dirs {
		memory += d.Size
	}
	memory -= memory % int64(os.Getpagesize()) // as the kernel keeps it
	gotMemory, gotPids, err := cgroup.LimitsOf(l.pid)
	if err != nil || gotMemory != memory || gotPids != int64(l.spec.Pids) {
		l.fault("cgroup limits: %d bytes, %d pids, %v; want %d and %d", gotMemory, gotPids, err, memory, l.spec.Pids)
	}
	for name, most := range map[string]int64{"open files": 256, "core file size": 1, "locked memory": 0, "msgqueue size": 0, "file size": memory + 4096} {
		if got := l.rlimit("Max " + name); got < 0 || got > most {
			l.fault("rlimit of %s: %d, want %d", name, got, most)
		}
	}
	if adj := strings.Join(lines(l.proc("oom_score_adj")), ""); adj != "1000" {
		l.fault("oom_score_adj: %s, want 1000: it shall die before the stage", adj)
	}
}

// rlimit is the hard limit of a line of /proc/pid/limits, -1 when there is none.
func (l *looker) rlimit(name string) int64 {
	for _, line := range lines(l.proc("limits")) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			f := strings.Fields(rest)
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}
