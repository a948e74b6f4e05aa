package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
	g := &Group{tree: &Tree{V2: filepath.Dir(dir)}, name: filepath.Base(dir)}
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
	tree, err := Prepare(os.Geteuid(), os.Getegid())
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
	for _, dir := range []string{dead, filepath.Join(dead, "run"), alive} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	defer os.Remove(alive)
	tree, err := Prepare(os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Remove()
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dead, err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Error(err)
	}
}
