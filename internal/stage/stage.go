// Package stage is the process 1 of a run's namespaces: it furnishes the sandbox, starts the programs and moves files.
//
// The broker starts it (`mayfly-sandbox stage`) in new user, mount, pid, network, ipc, uts and cgroup namespaces, with the
// Spec on stdin, the control socket as file descriptor 3 and the programs' files after it. In this order it
//
//  1. brings the loopback up and opens the listening sockets of the Spec,
//  2. gives up, on the thread that forks, every way to capabilities: bounding and ambient set, securebits, no_new_privs,
//  3. starts one launcher for each program, while /proc/self/exe can still be reached; a launcher prepares itself (see Launch)
//     and waits,
//  4. builds the root: a tmpfs with the Spec's directories, each a tmpfs of its own, all of them nosuid and nodev, and noexec
//     where the Spec does not say otherwise; for a System Spec also the host's /usr and a little of /etc, /dev and /proc (see
//     buildSystem); pivots into it, lets the host's tree go, and makes the root read-only,
//  5. makes itself undumpable, keeps no capability but the one for sealing directories, and says hello,
//  6. answers requests until the control socket closes, the wall clock is over, or it is killed. Its death is that of every
//     process in the pid namespace.
//
// Programs cannot reach it: it holds a capability that they lack, is undumpable, and their seccomp profiles know neither
// ptrace nor signals to others.
package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// UID is the only uid and gid that exists in a sandbox: nobody.
const UID = 65534

// The exit codes of the stage.
const (
	ExitOK     = 0
	ExitFailed = 1 // its stderr has a wire.Missing as JSON, or plain text
	ExitPanic  = 2 // Go's own
	ExitWall   = 3 // the wall clock was over
)

const (
	controlFD = 3
	firstFD   = 4 // the programs' files
)

// Main is `mayfly-sandbox stage`.
func Main(stdin io.Reader, stderr io.Writer) int {
	begun := time.Now()
	runtime.LockOSThread()
	err := run(begun, stdin)
	if err == nil {
		return ExitOK
	}
	var missing *wire.Missing
	if errors.As(err, &missing) {
		_ = json.NewEncoder(stderr).Encode(missing)
	} else {
		fmt.Fprintln(stderr, err)
	}
	return ExitFailed
}

func run(begun time.Time, stdin io.Reader) error {
	unix.Umask(0o077)
	if err := closeOnExec(controlFD); err != nil {
		return err
	}
	if os.Getpid() != 1 && !takedown.Down(takedown.PIDNamespace) || os.Getuid() != UID {
		return errors.New("the stage is started by the broker, in namespaces of its own")
	}
	var spec wire.Spec
	if err := json.NewDecoder(stdin).Decode(&spec); err != nil {
		return fmt.Errorf("read the specification: %w", err)
	}
	if !takedown.Down(takedown.WallClock) {
		time.AfterFunc(time.Until(begun.Add(spec.Wall)), func() { os.Exit(ExitWall) })
	}
	control, err := openControl()
	if err != nil {
		return err
	}
	sockets, err := openListeners(spec)
	if err != nil {
		return missing("network namespace", err, "the kernel needs CONFIG_NET_NS, and the broker no RestrictAddressFamilies without AF_INET")
	}
	if err := renounce(); err != nil {
		return missing("dropped capabilities", err, "kernel 4.3 or newer")
	}
	launchers, err := startLaunchers(spec)
	if err != nil {
		return fmt.Errorf("start the launchers: %w", err)
	}
	if err := buildRoot(spec); err != nil {
		return missing("read-only root", err, "allow mounts to the broker's user namespaces (AppArmor, SystemCallFilter=@mount; for programs "+
			"of the system also a /proc that nothing hides: no ProtectKernelTunables, no ProcSubset)")
	}
	if err := shrink(); err != nil {
		return missing("dropped capabilities", err, "build mayfly-sandbox with CGO_ENABLED=0, as make does: with cgo, Go cannot drop them on every thread")
	}
	s := &server{spec: spec, control: control, launchers: launchers}
	if err := s.hello(sockets); err != nil {
		return err
	}
	return s.serve()
}

func missing(name string, err error, mend string) error {
	return &wire.Missing{Name: name, Why: err.Error(), Mend: mend}
}

func openControl() (*wire.Conn, error) {
	return wire.FileConn(os.NewFile(controlFD, "control"))
}

// openListeners brings the loopback of our network namespace up and listens on its ports.
func openListeners(spec wire.Spec) ([]*os.File, error) {
	if err := loopbackUp(); err != nil && !takedown.Down(takedown.NetNamespace) {
		return nil, fmt.Errorf("bring the loopback up: %w", err)
	}
	var files []*os.File
	for _, port := range spec.Listen {
		f, err := listen([4]byte{127, 0, 0, 1}, port)
		if err != nil {
			return nil, fmt.Errorf("listen at port %d: %w", port, err)
		}
		files = append(files, f)
	}
	for i, o := range spec.Origins {
		f, err := listen(wire.OriginAddr(i), o.Port)
		if err != nil {
			return nil, fmt.Errorf("listen for %s at port %d: %w", o.Name, o.Port, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// The bounds of a listening socket: how many connections may wait to be accepted, and the bytes that each may have received. Until
// then they are in no cgroup's memory, and all of them together could take what the kernel has for TCP on the whole host.
const (
	backlog       = 16
	receiveBuffer = 128 << 10
)

func listen(addr [4]byte, port uint16) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "listener")
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // what is accepted inherits it
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: addr})
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
