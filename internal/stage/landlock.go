package stage

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// Landlock is a second wall within the sandbox, landlock(7). A program may read what is sealed, change what is writable, execute
// only what is for that, and reach neither signals, nor memory, nor abstract sockets of processes outside of its fence. It may connect
// only to the Spec's ports and listen at none; for native programs, whose network is the sandbox's loopback alone, this is left open.

// fence is a directory or file of the sandbox, and what may be done beneath it.
type fence struct {
	path   string
	file   int // instead of a path: an open descriptor
	rights uint64
}

const (
	landlockRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	landlockWrite = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_REFER
	landlockMore = unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK
	landlockExec = unix.LANDLOCK_ACCESS_FS_EXECUTE
	landlockAll  = landlockRead | landlockWrite | landlockMore | landlockExec | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// errNoLandlock says that the kernel has none.
var errNoLandlock = errors.New("the kernel has no Landlock, or it is not in its list of security modules")

// landlockVersion is the kernel's, 0 without Landlock.
func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// fences are those of a program.
func fences(spec wire.Spec, p wire.Program) []fence {
	native := p.Path != ""
	fs := []fence{{path: "/", rights: unix.LANDLOCK_ACCESS_FS_READ_DIR}}
	for _, d := range spec.Dirs {
		rights := uint64(landlockRead)
		switch {
		case d.Writable && native:
			rights |= landlockWrite | landlockMore
		case d.Writable:
			rights |= landlockWrite
		case d.Exec:
			rights |= landlockExec
		}
		fs = append(fs, fence{path: d.Path, rights: rights})
	}
	if p.Binary {
		fs = append(fs, fence{file: binaryFD, rights: unix.LANDLOCK_ACCESS_FS_READ_FILE | landlockExec})
	}
	if !native {
		return fs
	}
	return append(fs, fence{path: wire.SystemRoot, rights: landlockRead | landlockExec},
		fence{path: "/etc", rights: landlockRead}, fence{path: "/proc", rights: landlockRead},
		fence{path: "/dev", rights: landlockRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
		fence{path: "/dev/shm", rights: landlockRead | landlockWrite})
}

// landlock fences the calling thread, or with all every thread of this process, in what the program may do. Without Landlock in
// the kernel it returns errNoLandlock.
func landlock(spec wire.Spec, p wire.Program, all bool) error {
	if takedown.Down(takedown.Landlock) {
		return nil
	}
	version := landlockVersion()
	if version == 0 {
		return errNoLandlock
	}
	ruleset, err := newRuleset(version, p.Path != "")
	if err != nil {
		return err
	}
	defer unix.Close(ruleset)
	for _, f := range fences(spec, p) {
		if err := addFence(ruleset, f, fsRights(version)); err != nil {
			return fmt.Errorf("landlock: %s: %w", f.path, err)
		}
	}
	for _, port := range spec.Listen {
		if version < 4 || p.Path != "" {
			break
		}
		if err := addPort(ruleset, port); err != nil {
			return fmt.Errorf("landlock: port %d: %w", port, err)
		}
	}
	return restrictSelf(ruleset, all)
}

// fsRights are those that the kernel's version knows.
func fsRights(version int) uint64 {
	rights := uint64(landlockAll)
	for _, since := range []struct {
		version int
		right   uint64
	}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
		if version < since.version {
			rights &^= since.right
		}
	}
	return rights
}

// newRuleset makes one that forbids all that the kernel's version knows. The attributes are struct landlock_ruleset_attr, which grew
// with the versions.
func newRuleset(version int, native bool) (int, error) {
	attr := []uint64{fsRights(version)}
	if version >= 4 {
		attr = append(attr, unix.LANDLOCK_ACCESS_NET_CONNECT_TCP|unix.LANDLOCK_ACCESS_NET_BIND_TCP)
		if native {
			attr[1] = 0
		}
	}
	if version >= 6 {
		attr = append(attr, unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET|unix.LANDLOCK_SCOPE_SIGNAL)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr[0])), uintptr(8*len(attr)), 0)
	if errno != 0 {
		return -1, fmt.Errorf("landlock: make a ruleset: %w", errno)
	}
	return int(fd), nil
}

// addFence adds a rule for a path or file. A path that is not there needs none.
func addFence(ruleset int, f fence, known uint64) error {
	fd := f.file
	if f.path != "" {
		var err error
		fd, err = unix.Open(f.path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: f.rights & known, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	return asError(errno)
}

// addPort allows to connect to a port: struct landlock_net_port_attr.
func addPort(ruleset int, port uint16) error {
	attr := [2]uint64{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(port)}
	const ruleNetPort = 2 // LANDLOCK_RULE_NET_PORT
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), ruleNetPort, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	return asError(errno)
}

func restrictSelf(ruleset int, all bool) error {
	call := func() syscall.Errno {
		_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
		return errno
	}
	if all {
		call = func() syscall.Errno {
			_, _, errno := syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0)
			return errno
		}
	}
	if errno := call(); errno != 0 {
		return fmt.Errorf("landlock: restrict: %w", errno)
	}
	return nil
}
