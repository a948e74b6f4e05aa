package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mountinfo = `22 1 0:21 / /proc rw,relatime shared:5 - proc proc rw
30 23 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
31 23 0:27 /docker/abc /sys/fs/cgroup/memory rw,nosuid shared:10 - cgroup cgroup rw,memory
32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 - cgroup cgroup rw,cpu,cpuacct
33 23 0:29 / /sys/fs/cgroup/pids rw,nosuid shared:12 - cgroup cgroup rw,pids
`

const ownCgroup = `8:pids:/user.slice
4:memory:/docker/abc/inner
2:cpu,cpuacct:/elsewhere
0::/user.slice/session
`

func TestHierarchiesAreFound(t *testing.T) {
	mounts, paths := parseMounts(mountinfo), parseOwn(ownCgroup)
	v1 := basesV1(mounts, paths)
	want := map[string]string{
		"memory":  "/sys/fs/cgroup/memory/inner",
		"pids":    "/sys/fs/cgroup/pids/user.slice",
		"cpuacct": "/sys/fs/cgroup/cpu,cpuacct/elsewhere",
	}
	for c, dir := range want {
		if v1[c] != dir {
			t.Errorf("%s: got %s, want %s", c, v1[c], dir)
		}
	}
	outside := mount{root: "/docker/abc", point: "/mnt"}
	if got := outside.dir("/docker/other"); got != "/mnt" {
		t.Errorf("a path outside of the mount: got %s", got)
	}
}

// fakeV2 lays out a directory as cgroup v2 does, as far as files are written there.
func fakeV2(t *testing.T, controllers string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"cgroup.controllers": controllers, "cgroup.subtree_control": "memory pids\n", "memory.max": "max\n",
		"pids.max": "max\n", "memory.oom.group": "0\n", "cpu.stat": "usage_usec 1500\nuser_usec 1000\n", "memory.events": "low 0\noom 3\noom_kill 2\n",
		"pids.events": "max 7\n", "memory.peak": "4096\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestV2NeedsControllersAndOurRight(t *testing.T) {
	good, bare := fakeV2(t, "cpu memory pids\n"), fakeV2(t, "hugetlb\n")
	paths := map[string]string{"": "/"}
	if got := baseV2([]mount{{root: "/", point: bare, v2: true}}, paths); got != "" {
		t.Errorf("took %s, which has no memory controller", got)
	}
	if os.Geteuid() == 0 {
		if got := baseV2([]mount{{root: "/", point: good, v2: true}}, paths); got != good {
			t.Errorf("root without delegation: got %q, want the hierarchy's root", got)
		}
	}
	if got := baseV2([]mount{{root: "/", point: good, v2: false}}, paths); got != "" {
		t.Errorf("took a v1 mount for v2: %s", got)
	}
}

// TestV2Files checks what is written and read where. The kernel's side of v2 is tested on machines that have it.
func TestV2Files(t *testing.T) {
	dir := fakeV2(t, "memory pids\n")
	tree := t.TempDir()
	if err := os.Symlink(filepath.Dir(dir), filepath.Join(tree, "runs")); err != nil {
		t.Fatal(err)
	}
	g := &Group{tree: &Tree{V2: tree}, name: filepath.Base(dir)}
	if err := g.limitV2(Limits{Memory: 1 << 20, Pids: 33}); err != nil {
		t.Fatal(err)
	}
	g.dir.Close()
	for file, want := range map[string]string{"memory.max": "1048576", "pids.max": "33", "memory.oom.group": "1"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: got %q, %v; want %s", file, b, err, want)
		}
	}
	cpu, err1 := g.CPU()
	peak, err2 := g.Peak()
	ooms, err3 := g.OOMKills()
	refused, err4 := g.PidsRefused()
	if err := errors.Join(err1, err2, err3, err4); err != nil || cpu.Microseconds() != 1500 || peak != 4096 || ooms != 2 || refused != 7 {
		t.Errorf("cpu %s, peak %d, ooms %d, refused %d, %v", cpu, peak, ooms, refused, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{"", "{}", `{"v1":{"memory":"/x"}}`} {
		if _, err := Decode(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	tree := Tree{V1: map[string]string{"memory": "/a", "pids": "/b", "cpuacct": "/c"}}
	if got, err := Decode(tree.Encode()); err != nil || got.V1["pids"] != "/b" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestGroupHoldsAProcess uses this machine's real cgroups: a process is born in its group, and removing kills it.
func TestGroupHoldsAProcess(t *testing.T) {
	tree, err := Prepare(os.Geteuid(), os.Getegid(), Ceilings{})
	if err != nil {
		t.Fatal(err)
	}
	group, err := tree.NewGroup("test", Limits{Memory: 32 << 20, Pids: 20})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	runtime.LockOSThread()
	err = group.Start(cmd.SysProcAttr, cmd.Start)
	for _, dir := range tree.V1 { // this thread is in the tree now, as a broker would be: it must not stay there
		err = errors.Join(err, write(filepath.Dir(dir), "tasks", "0"))
	}
	runtime.UnlockOSThread()
	if err != nil {
		t.Fatal(err)
	}
	if memory, pids, err := LimitsOf(cmd.Process.Pid); err != nil || memory != 32<<20 || pids != 20 {
		t.Errorf("the process has %d bytes and %d pids, %v", memory, pids, err)
	}
	if err := tree.Remove(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("the process ended with %v, want SIGKILL", cmd.ProcessState)
	}
	for _, dir := range tree.dirs() {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// TestPrepareSweeps: trees of dead processes go, those of living ones stay.
func TestPrepareSweeps(t *testing.T) {
	b, err := findBase()
	if err != nil {
		t.Fatal(err)
	}
	base := b.v2
	if base == "" {
		base = b.v1["pids"]
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(base, prefix+strconv.Itoa(gone.Process.Pid)+"-x")
	alive := filepath.Join(base, prefix+strconv.Itoa(os.Getppid())+"-x")
	again := filepath.Join(base, prefix+strconv.Itoa(os.Getppid())+"-1-x") // of a process whose id came again
	still := filepath.Join(base, prefix+strconv.Itoa(os.Getppid())+"-"+startOf(os.Getppid())+"-x")
	for _, dir := range []string{dead, filepath.Join(dead, "run"), alive, again, still} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Remove(alive)
	defer os.Remove(still)
	tree, err := Prepare(os.Geteuid(), os.Getegid(), Ceilings{})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Remove()
	for _, dir := range []string{dead, again} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
	for _, dir := range []string{alive, still} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

// started starts a command in a group of its own.
func started(t *testing.T, tree *Tree, name string, out *os.File, args ...string) (*Group, *exec.Cmd) {
	t.Helper()
	group, err := tree.NewGroup(name, Limits{Memory: 512 << 20, Pids: 20})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr, cmd.Stdout = &syscall.SysProcAttr{}, out
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = group.Start(cmd.SysProcAttr, cmd.Start)
	for _, dir := range tree.V1 { // as above
		err = errors.Join(err, write(filepath.Dir(dir), "tasks", "0"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return group, cmd
}

func prepared(t *testing.T, most Ceilings) *Tree {
	t.Helper()
	tree, err := Prepare(os.Geteuid(), os.Getegid(), most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Remove(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

// TestCoresBoundAllRuns: however many runs spin, together they get what was set.
func TestCoresBoundAllRuns(t *testing.T) {
	const cores = 0.2
	tree := prepared(t, Ceilings{Cores: cores})
	began := time.Now()
	var groups []*Group
	for _, name := range []string{"a", "b", "c"} {
		group, cmd := started(t, tree, name, nil, "sh", "-c", "while :; do :; done")
		defer cmd.Wait()
		defer cmd.Process.Kill()
		groups = append(groups, group)
	}
	time.Sleep(2 * time.Second)
	var used time.Duration
	for _, g := range groups {
		cpu, err := g.CPU()
		if err != nil {
			t.Fatal(err)
		}
		used += cpu
	}
	most := time.Duration(cores*float64(time.Since(began))) + 300*time.Millisecond // the kernel counts in periods, for each core
	if used > most || used == 0 {
		t.Errorf("three runs took %v of CPU time, want at most %v", used, most)
	}
}

// holdVariable makes this program hold that many bytes, and say so.
const holdVariable = "MAYFLY_TEST_HOLD"

func TestMain(m *testing.M) {
	n, err := strconv.Atoi(os.Getenv(holdVariable))
	if err != nil {
		os.Exit(m.Run())
	}
	held := bytes.Repeat([]byte{1}, n)
	fmt.Println("holding", len(held))
	time.Sleep(time.Minute)
	runtime.KeepAlive(held)
}

// TestMemoryBoundsAllRuns: a run within its own limit lives, and a second one beside it is too much.
func TestMemoryBoundsAllRuns(t *testing.T) {
	t.Setenv(holdVariable, "60000000")
	tree := prepared(t, Ceilings{Memory: 100 << 20})
	ended := make(chan *exec.Cmd, 2)
	for _, name := range []string{"a", "b"} {
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_, cmd := started(t, tree, name, in, "/proc/self/exe")
		in.Close()
		defer cmd.Process.Kill()
		said, _ := bufio.NewReader(out).ReadString('\n') // that of the second may be cut off
		out.Close()
		if name == "a" && said != "holding 60000000\n" {
			t.Fatalf("one alone says %q", said)
		}
		go func() {
			_ = cmd.Wait() // its state says it
			ended <- cmd
		}()
	}
	select {
	case cmd := <-ended:
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != unix.SIGKILL {
			t.Errorf("it ended with %v, want SIGKILL", cmd.ProcessState)
		}
	case <-time.After(30 * time.Second):
		t.Error("both live")
	}
}

// TestCeilingsAreNotTheBrokers: whoever gets the Tree cannot raise them.
func TestCeilingsAreNotTheBrokers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run these tests as root")
	}
	tree, err := Prepare(65533, 65533, Ceilings{Memory: 1 << 30, Cores: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Remove()
	files := map[string]uint32{"v2 memory.max": 0, "v2 cpu.max": 0, "v2 cgroup.procs": 65533}
	if tree.V2 == "" {
		files = map[string]uint32{"memory memory.limit_in_bytes": 0, "cpu cpu.cfs_quota_us": 0, "cpu cgroup.procs": 0, "memory .": 65533}
	}
	for name, want := range files {
		controller, file, _ := strings.Cut(name, " ")
		dir := tree.V1[controller]
		if controller == "v2" {
			dir = tree.V2
		}
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, runsName, file), &stat); err != nil || stat.Uid != want {
			t.Errorf("%s is of uid %d, want %d, %v", name, stat.Uid, want, err)
		}
	}
}

// TestCeilingsFailClosed: what the kernel has not got for us is no ceiling that is passed over.
func TestCeilingsFailClosed(t *testing.T) {
	v2 := fakeV2(t, "memory pids\n")
	if _, err := prepareV2(v2, "x", os.Geteuid(), os.Getegid(), Ceilings{Cores: 1}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "it is given no cpu") {
		t.Errorf("v2: %v", err)
	}
	bases := map[string]string{"memory": t.TempDir(), "pids": t.TempDir(), "cpuacct": t.TempDir()}
	if _, err := prepareV1(bases, "x", os.Geteuid(), os.Getegid(), Ceilings{Cores: 1}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no cpu") {
		t.Errorf("v1: %v", err)
	}
	for c, dir := range bases {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("v1 %s: left %v, %v", c, left, err)
		}
	}
}

// TestV2Ceilings checks what is written where.
func TestV2Ceilings(t *testing.T) {
	tree := &Tree{V2: t.TempDir()}
	runs := filepath.Join(tree.V2, "runs")
	if err := os.Mkdir(runs, 0o755); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"memory.max": "1048576", "cpu.max": "50000 100000"}
	for file := range want {
		if err := os.WriteFile(filepath.Join(runs, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.boundV2(Ceilings{Memory: 1 << 20, Cores: 0.5}); err != nil {
		t.Fatal(err)
	}
	for file, want := range want {
		if got, err := os.ReadFile(filepath.Join(runs, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", file, got, err, want)
		}
	}
}
