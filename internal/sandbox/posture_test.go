package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"mayfly/internal/sandbox/cgroup"
)

// TestPosture looks at a live run from the outside, as root: at the stage, and at a program of each profile.
func TestPosture(t *testing.T) {
	spec := testSpec("wait")
	spec.Programs = append(spec.Programs, Program{Name: "core", Builtin: "probe", Profile: ProfileCore, Args: []string{"wait"}})
	s := open(t, spec)
	for _, program := range []string{"probe", "core"} {
		if err := s.Start(program); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutFile("/data/x", 1, strings.NewReader("x")); err != nil { // a round trip, so that the programs have come to wait
		t.Fatal(err)
	}
	run := findRun(t)
	waitConfined(t, run.programs)
	for _, pid := range append([]int{run.stage}, run.programs...) {
		t.Run(fmt.Sprintf("process %s", strings.Join(strings.Fields(readProc(t, pid, "cmdline"))[:1], "")), func(t *testing.T) {
			checkIdentity(t, pid)
			checkNamespaces(t, pid)
			checkMounts(t, pid)
			checkCgroups(t, pid, spec)
		})
	}
	for _, pid := range run.programs {
		checkProgram(t, pid)
	}
	st := status(t, run.stage)
	if st["CapEff"] != "0000000000200000" || st["CapPrm"] != "0000000000200000" || st["CapInh"] != "0000000000000000" {
		t.Errorf("stage: capabilities %s, %s, %s; want CAP_SYS_ADMIN alone", st["CapEff"], st["CapPrm"], st["CapInh"])
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", run.stage)); err != nil || !ownedByRoot(info) {
		t.Errorf("stage: /proc/pid/mem is not root's: it is dumpable")
	}
}

// TestBrokerPosture looks at the broker: no thread of it, from any of which a stage may be forked, can gain anything.
func TestBrokerPosture(t *testing.T) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", broker.PID()))
	if err != nil || len(tasks) < 2 {
		t.Fatal("no threads", tasks, err)
	}
	uid := fmt.Sprintf("\t%d\t%[1]d\t%[1]d\t%[1]d\n", DefaultUID)
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Uid:" + uid, "Gid:" + uid, "Groups:\t \n", "NoNewPrivs:\t1", "CapInh:\t0000000000000000",
			"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %q:\n%s", task, want, b)
			}
		}
	}
}

type liveRun struct {
	stage    int
	programs []int
}

// findRun finds the only run of the broker: its stage is the broker's child.
func findRun(t *testing.T) liveRun {
	t.Helper()
	stages := childrenOf(t, broker.PID())
	if len(stages) != 1 {
		t.Fatalf("the broker has the children %v, want one", stages)
	}
	programs := childrenOf(t, stages[0])
	if len(programs) != 2 {
		t.Fatalf("the stage has the children %v, want two", programs)
	}
	return liveRun{stages[0], programs}
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("no children of %d to be read (CONFIG_PROC_CHILDREN): %v", pid, err)
	}
	var pids []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for f := range strings.FieldsSeq(string(b)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}

// waitConfined waits until the launchers have loaded their profiles: nothing but their own code has run before.
func waitConfined(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d has no seccomp filter", pid), func() bool { return status(t, pid)["Seccomp"] == "2" })
	}
}

func readProc(t *testing.T, pid int, file string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\x00", " ")
}

func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	m := make(map[string]string)
	for line := range strings.SplitSeq(readProc(t, pid, "status"), "\n") {
		k, v, _ := strings.Cut(line, ":")
		m[k] = strings.TrimSpace(v)
	}
	return m
}

// checkIdentity: the host's uid is the broker's and never 0, inside there is one uid, and nothing can be gained.
func checkIdentity(t *testing.T, pid int) {
	st := status(t, pid)
	want := fmt.Sprint(DefaultUID)
	for _, key := range []string{"Uid", "Gid"} {
		for _, id := range strings.Fields(st[key]) {
			if id != want {
				t.Errorf("%s: %s, want %s", key, st[key], want)
			}
		}
	}
	if st["Groups"] != "" && st["Groups"] != want {
		t.Errorf("supplementary groups: %s", st["Groups"])
	}
	for _, key := range []string{"CapBnd", "CapAmb", "CapInh"} {
		if key == "CapBnd" && len(childrenOf(t, pid)) > 0 {
			continue // the stage's other threads; what it forks has none
		}
		if st[key] != "0000000000000000" {
			t.Errorf("%s: %s, want none", key, st[key])
		}
	}
	for _, m := range []string{"uid_map", "gid_map"} {
		if got := strings.Fields(readProc(t, pid, m)); len(got) != 3 || got[0] != "65534" || got[1] != want || got[2] != "1" {
			t.Errorf("%s: %v, want 65534 %s 1", m, got, want)
		}
	}
}

func checkNamespaces(t *testing.T, pid int) {
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, ns))
		ours, err2 := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || err2 != nil || theirs == ours {
			t.Errorf("namespace %s: %s, ours is %s (%v, %v)", ns, theirs, ours, err, err2)
		}
	}
}

// checkMounts: the root and the Spec's directories are all there is, and none can hold a program or a device.
func checkMounts(t *testing.T, pid int) {
	want := map[string]string{"/": "ro", "/data": "rw", "/fixed": "ro"}
	lines := strings.Split(strings.TrimSpace(readProc(t, pid, "mounts")), "\n")
	for _, line := range lines {
		f := strings.Fields(line)
		options := "," + f[3] + ","
		for _, o := range []string{want[f[1]], "noexec", "nosuid", "nodev", "nr_inodes"} {
			if f[2] != "tmpfs" || o == "" || !strings.Contains(options, ","+o) {
				t.Errorf("mount %q: want a tmpfs with %q", line, o)
			}
		}
	}
	if len(lines) != len(want) {
		t.Errorf("%d mounts, want %d: %q", len(lines), len(want), lines)
	}
	for _, link := range []string{"root", "cwd"} {
		if at, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); err != nil || at != "/" {
			t.Errorf("%s is %s, %v", link, at, err)
		}
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
	if err != nil || len(entries) != 2 {
		t.Errorf("the root has %v, %v; want data and fixed", entries, err)
	}
}

func checkCgroups(t *testing.T, pid int, spec Spec) {
	memory, pids, err := cgroup.LimitsOf(pid)
	if want := spec.Memory + 2<<20; err != nil || memory != want || pids != int64(spec.Pids) {
		t.Errorf("cgroup limits: %d bytes, %d pids, %v; want %d and %d", memory, pids, err, want, spec.Pids)
	}
}

// checkProgram: no capabilities, a filter on every thread, no file but its own, limits on resources.
func checkProgram(t *testing.T, pid int) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatal("no threads", err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, want := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
			"CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s has no %q", task, want)
			}
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if !strings.HasPrefix(target, "pipe:") && !strings.HasPrefix(target, "anon_inode:[event") {
			t.Errorf("program %d holds %s: %s", pid, fd.Name(), target)
		}
	}
	limits := strings.Join(strings.Fields(readProc(t, pid, "limits")), " ")
	for _, want := range []string{"Max open files 256 256", "Max core file size 1 1", "Max locked memory 0 0"} {
		if !strings.Contains(limits, want) {
			t.Errorf("program %d: want %q in %s", pid, want, limits)
		}
	}
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid)); err != nil || !ownedByRoot(info) {
		t.Errorf("program %d: /proc/pid/mem is not root's: it is dumpable", pid)
	}
	if adj := strings.TrimSpace(readProc(t, pid, "oom_score_adj")); adj != "1000" {
		t.Errorf("program %d: oom_score_adj %s, want 1000: it shall die before the stage", pid, adj)
	}
}
