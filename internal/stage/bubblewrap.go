package stage

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

// bubblewrap is where the system root has it, from Debian's package of that name.
const bubblewrap = wire.SystemRoot + "/bin/bwrap"

// execBubblewrap becomes bubblewrap, which makes one more set of namespaces within ours, without the stage in them, loads the
// seccomp filter on everything in it, and runs this program's Enter. It returns only on failure.
func execBubblewrap(o order, filter []unix.SockFilter, env []string) error {
	self, err := unix.Open("/proc/self/exe", unix.O_RDONLY, 0) // without O_CLOEXEC: bubblewrap hands it on
	if err != nil {
		return fmt.Errorf("open ourselves: %w", err)
	}
	pipe, err := filterPipe(filter)
	if err != nil {
		return err
	}
	args, err := bubblewrapArgs(o, pipe, self)
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s (install Debian's bubblewrap on the host): %w", bubblewrap, syscall.Exec(bubblewrap, args, env))
}

// filterPipe gives a pipe that holds the filter, in the kernel's form.
func filterPipe(filter []unix.SockFilter) (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], 0); err != nil {
		return -1, fmt.Errorf("pipe: %w", err)
	}
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), len(filter)*int(unsafe.Sizeof(filter[0])))
	if _, err := unix.Write(ends[1], raw); err != nil { // a few kB: the pipe has room
		return -1, fmt.Errorf("hand over the seccomp filter: %w", err)
	}
	return ends[0], unix.Close(ends[1])
}

func bubblewrapArgs(o order, filter, self int) ([]string, error) {
	uid := strconv.Itoa(UID)
	args := []string{"bwrap",
		"--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
		"--uid", uid, "--gid", uid, "--cap-drop", "ALL", "--die-with-parent", "--new-session",
		"--ro-bind", wire.SystemRoot, wire.SystemRoot, "--ro-bind", "/etc", "/etc", "--proc", "/proc", "--dev-bind", "/dev", "/dev"}
	for _, name := range []string{"kallsyms", "kcore", "keys", "modules", "timer_list"} { // the kernel's own matters
		if _, err := os.Lstat("/proc/" + name); err == nil {
			args = append(args, "--ro-bind", "/dev/null", "/proc/"+name)
		}
	}
	for _, name := range systemLinks() {
		if target, err := os.Readlink("/" + name); err == nil {
			args = append(args, "--symlink", target, "/"+name)
		}
	}
	for _, d := range o.Spec.Dirs {
		bind := "--ro-bind"
		if d.Writable {
			bind = "--bind"
		}
		args = append(args, bind, d.Path, d.Path)
		if d.Path == "/tmp" {
			args = append(args, "--bind", d.Path, "/dev/shm")
		}
	}
	inner, err := encodeOrder(o)
	if err != nil {
		return nil, err
	}
	return append(args, "--remount-ro", "/", "--chdir", path.Join("/", o.Program.Dir), "--seccomp", strconv.Itoa(filter), "--",
		"/proc/self/fd/"+strconv.Itoa(self), "enter", inner), nil
}

// Enter is `mayfly-sandbox enter`, which bubblewrap runs: it fences itself in with Landlock, which would have kept bubblewrap from
// mounting, and becomes the program.
func Enter(args []string, stderr *os.File) int {
	runtime.LockOSThread()
	fmt.Fprintln(stderr, "enter:", enter(args))
	return ExitNotRun
}

func enter(args []string) error {
	o, err := readOrder(args)
	if err != nil {
		return err
	}
	if err := closeOnExec(3); err != nil {
		return err
	}
	if err := o.landlock(false); err != nil {
		return err
	}
	p := o.Program
	return fmt.Errorf("run %s: %w", p.Path, syscall.Exec(p.Path, append([]string{p.Path}, p.Args...), os.Environ()))
}
