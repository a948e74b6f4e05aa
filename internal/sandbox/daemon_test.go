package sandbox

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// daemonMain is a daemon with a broker of its own and a run in it, started by TestKilledDaemonLeavesNothing.
func daemonMain() int {
	b, err := StartBroker(context.Background(), StartOptions{Binary: os.Getenv("MAYFLY_TEST_DAEMON")})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := b.Client().Open(context.Background(), testSpec("wait"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := s.Start("probe"); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready", b.PID())
	select {}
}

func TestKilledDaemonLeavesNothing(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "MAYFLY_TEST_DAEMON="+binary)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(out, "ready %d\n", &pid); err != nil {
		rest, _ := io.ReadAll(out)
		t.Fatalf("the daemon did not come up: %v %s", err, rest)
	}
	procs := append([]int{pid}, childrenOf(t, pid)...)
	procs = append(procs, childrenOf(t, procs[1])...)
	if len(procs) != 3 {
		t.Fatalf("processes %v: want a broker, a stage and a program", procs)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range procs {
		eventually(t, fmt.Sprintf("process %d outlives its daemon", pid), func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
			return os.IsNotExist(err)
		})
	}
	if left := cgroupsOf(t, fmt.Sprintf("mayfly-%d-*/*-*", cmd.Process.Pid)); len(left) > 0 {
		t.Errorf("cgroups of runs are left: %v", left)
	}
	next, err := StartBroker(t.Context(), StartOptions{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	if left := cgroupsOf(t, fmt.Sprintf("mayfly-%d-*", cmd.Process.Pid)); len(left) > 0 {
		t.Errorf("the next start has not removed %v", left)
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
}

// cgroupsOf finds cgroups by a pattern below any hierarchy.
func cgroupsOf(t *testing.T, pattern string) []string {
	t.Helper()
	var found []string
	for depth := range 5 {
		dirs, err := filepath.Glob("/sys/fs/cgroup/" + strings.Repeat("*/", depth) + pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, dirs...)
	}
	return found
}

// TestKilledBrokerLeavesNothing: the kernel ends what the broker had started, and the run's owner learns of it.
func TestKilledBrokerLeavesNothing(t *testing.T) {
	b, err := StartBroker(t.Context(), StartOptions{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s, err := b.Client().Open(t.Context(), testSpec("wait"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Start("probe"); err != nil {
		t.Fatal(err)
	}
	procs := childrenOf(t, b.PID())
	procs = append(procs, childrenOf(t, procs[0])...)
	if len(procs) != 2 {
		t.Fatalf("processes %v: want a stage and a program", procs)
	}
	b.cmd.Process.Kill()
	select {
	case <-s.Dead():
	case <-time.After(5 * time.Second):
		t.Error("the run is still taken to live")
	}
	for _, pid := range procs {
		eventually(t, fmt.Sprintf("process %d outlives its broker", pid), func() bool {
			_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
			return os.IsNotExist(err)
		})
	}
	if _, err := b.Client().Open(t.Context(), testSpec()); err == nil {
		t.Error("a sandbox was opened at a dead broker")
	}
	b.Close()
	if left := cgroupsOf(t, filepath.Base(b.tree.V1["pids"]+b.tree.V2)); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

func TestManyRunsLeaveNothing(t *testing.T) {
	one := func() {
		spec := testSpec("whoami")
		spec.Listen = []uint16{143}
		s := open(t, spec)
		if reports, _ := probe(t, s, "probe"); len(reports) != 1 {
			t.Fatalf("got %d reports", len(reports))
		}
		if _, err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	one()
	ours, theirs, mounts := openFiles(t, os.Getpid()), openFiles(t, broker.PID()), mountsOf(t)
	for range 50 {
		one()
	}
	eventually(t, "files are left open", func() bool {
		return openFiles(t, os.Getpid()) <= ours && openFiles(t, broker.PID()) <= theirs
	})
	if pids := childrenOf(t, broker.PID()); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
	if left := cgroupsOf(t, fmt.Sprintf("mayfly-%d-*/*-*", os.Getpid())); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	if now := mountsOf(t); now != mounts {
		t.Errorf("mounts have changed:\n%s", now)
	}
}

// mountsOf leaves out what tests of other packages mount at the same time, which they do in their own folders.
func mountsOf(t *testing.T) string {
	t.Helper()
	var ours []string
	for line := range strings.Lines(readProc(t, os.Getpid(), "mounts")) {
		if !strings.Contains(line, " "+filepath.Join(os.TempDir(), "Test")) {
			ours = append(ours, line)
		}
	}
	return strings.Join(ours, "")
}

func openFiles(t *testing.T, pid int) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func ownedByRoot(info os.FileInfo) bool { return ownerOf(info) == 0 }

func ownerOf(info os.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }
