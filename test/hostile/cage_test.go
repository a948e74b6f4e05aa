package hostile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/cgroup"
)

// What everything together may take, should a wall fail.
const (
	cageMemory = 8 << 30
	cagePids   = 3000
	cageTime   = 9 * time.Minute
)

const cagedVariable = "MAYFLY_HOSTILE_CAGED"

// TestMain runs the tests once more in a cage: a cgroup that bounds them all, and network, IPC
// and mount namespaces that are theirs alone.
func TestMain(m *testing.M) {
	if os.Getenv(cagedVariable) == "" {
		os.Exit(caged())
	}
	os.Exit(inCage(m))
}

// caged starts the tests in the cage, and removes it and whatever is left in it.
func caged() int {
	code, err := cage()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		return 1
	}
	return code
}

func cage() (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("run these tests as root: they make namespaces and cgroups, and look at processes of another user")
	}
	runtime.LockOSThread() // the child is killed with the thread that started it
	tree, err := cgroup.Prepare(0, 0, cgroup.Ceilings{})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, tree.Remove()) }()
	group, err := tree.NewGroup("hostile", cgroup.Limits{Memory: cageMemory, Pids: cagePids})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, group.Remove()) }()
	if tree.V2 != "" { // so that the brokers' trees are made in it, and not at the hierarchy's root
		if err := unix.Setxattr(filepath.Join(tree.V2, "runs", "hostile"), "trusted.delegate", []byte("1"), 0); err != nil {
			return 1, fmt.Errorf("mark our cgroup as delegated: %w", err)
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), cagedVariable+"=1", "MAYFLY_SECRET="+canary)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := errors.Join(group.Start(cmd.SysProcAttr, cmd.Start), goHome(tree)); err != nil {
		return 1, err
	}
	timer := time.AfterFunc(cageTime, func() { cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait() // its exit code says it
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		return 1, fmt.Errorf("the tests ended by %s", cmd.ProcessState)
	}
	return code, nil
}

// goHome moves this thread, which on v1 has entered the tree in order to fork, back to where the tree has been made.
func goHome(tree *cgroup.Tree) error {
	for _, dir := range tree.V1 {
		if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "tasks"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

// The addresses that the cage's loopback has, and with them a relay, a private network and a cloud, to be attacked.
func cageAddresses() [][4]byte {
	return [][4]byte{{10, 0, 0, 1}, {192, 168, 1, 1}, {100, 64, 0, 1}, {169, 254, 169, 254}}
}

// detach makes the mounts of the cage those that there are now: what others mount meanwhile is not seen.
func detach() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// network brings the loopback of the cage up, and gives it the addresses.
func network() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	for i, a := range cageAddresses() {
		alias, err := unix.NewIfreq(fmt.Sprintf("lo:%d", i+1))
		if err != nil {
			return err
		}
		if err := alias.SetInet4Addr(a[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
			return fmt.Errorf("add the address %v: %w", a, err)
		}
	}
	// A stage that is let into this network, when that wall is down, has no right to ports below 1024.
	return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
}
