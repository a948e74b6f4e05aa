// Package sandbox is the daemon's side of mayfly-sandbox: it starts the broker, opens sandboxes, moves files in and out, and
// tells how a run ended.
//
// A sandbox is a fresh set of user, mount, pid, network, ipc, uts and cgroup namespaces made by the broker, under the broker's
// uid, in a cgroup of its own. That uid is never 0, and another one than the daemon's when root or systemd starts the broker;
// a daemon that is not root can start it only as itself, and Check says so. Its root is a small read-only tmpfs that holds nothing but the
// Spec's directories, each a tmpfs with a size of its own: no /proc, no /dev, no host file. Its network is an empty loopback
// whose listening sockets belong to the daemon. Its programs have no capabilities and a seccomp allow-list.
//
// What the daemon gets back is not trusted: sizes, names and counts are bounded, and Collect's stream is for
// internal/storage's reader, which assumes the worst of it.
//
// The protocol is in package wire, the cgroups in package cgroup.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"mayfly/internal/sandbox/wire"
)

// The errors that callers tell apart. All but ErrSpec and ErrProtocol come from the sandbox's inside or its end.
var (
	ErrDead       = errors.New("sandbox is dead")
	ErrNotFound   = errors.New("no such file in the sandbox")
	ErrTooLarge   = errors.New("file in the sandbox is too large")
	ErrNotRegular = errors.New("not a regular file in the sandbox")
	ErrSpec       = wire.ErrSpec
	ErrProtocol   = wire.ErrProtocol
)

// Spec describes a run. The broker has ceilings of its own for every field, in package wire.
type Spec struct {
	Name     string        // for logs and the cgroup: [a-z0-9-]{1,40}
	Memory   int64         // bytes; the cgroup's limit is this plus the size of all Dirs
	Pids     int           // processes and threads; the stage and waiting programs take about 16
	Wall     time.Duration // wall clock from Open to the kill
	CPU      time.Duration // CPU time of all its processes together; 0: no bound
	Dirs     []Dir
	Listen   []uint16 // TCP ports on 127.0.0.1 inside; accepted by us through Listener
	Origins  []Origin // names inside, accepted by us through Origin; only with System
	Programs []Program
	System   bool // the root also has the host's /usr, read-only: for programs with a Path
	Landlock bool // refuse to run where the kernel has no Landlock; without it, Landlock is used where there is one
}

// Origin is a name that resolves inside, to an address of its own on the sandbox's loopback, and a port that is listened at there.
type Origin = wire.Origin

// Dir is a tmpfs of its own in the sandbox's root: Path is absolute and of one component, such as /account; Size is in bytes;
// Inodes counts its files and directories. A directory that is not Writable is sealed before the first program starts, and may be
// one whose files can be executed.
type Dir = wire.Dir

// The seccomp profiles of Program.Profile.
const (
	ProfileWorker = wire.ProfileWorker
	ProfileCore   = wire.ProfileCore
	ProfileWASM   = wire.ProfileWASM
	ProfileNative = wire.ProfileNative
)

// Program is one that the run can start, once. It waits in the sandbox, already confined, from Open on.
type Program struct {
	Name    string
	Builtin string   // a program of mayfly-sandbox itself, such as "worker" or "account-reader"; or
	Binary  *os.File // a static executable, run by file descriptor; stays the caller's; or
	Path    string   // an executable of the sandbox itself, below /usr or in a Dir with Exec, run under bubblewrap
	Profile string   // seccomp profile: ProfileWorker, ProfileCore or ProfileWASM, and ProfileNative with a Path
	Args    []string // without the program's own name
	Env     []string // the environment; Start may add to it
	Dir     string   // working directory, in one of Dirs; empty: /
}

// Stdio holds our ends of a program's standard streams. They are pipes: deadlines work, and reads end when the program has
// exited. They are closed by Sandbox.Close.
type Stdio struct {
	Stdin  *os.File
	Stdout *os.File
	Stderr *os.File
}

// Exit is how a program ended: by exit code, or by a signal, which is 0 otherwise. A program that could not be confined or
// run at all exits with ExitNotRun and says why on its stderr.
type Exit struct {
	Code   int
	Signal syscall.Signal
}

// ExitNotRun is the exit code of a program that its launcher did not come to run.
const ExitNotRun = 126

// Result is the record of a run.
type Result struct {
	UID       int           // of its processes on the host: the broker's
	CPU       time.Duration // of all its processes, the stage's included
	Wall      time.Duration
	Memory    int64  // peak of the whole cgroup, bytes
	OOMKilled bool   // the kernel killed for want of memory
	Killed    string // which limit ended the run: "wall", "cpu", "memory", or empty
	Message   string // what else the broker has to say
}

// Wall is one wall of the sandbox, as found by Check.
type Wall struct {
	Name     string
	InForce  bool
	Required bool
	Why      string // what was tried, or why it is not in force
	Mend     string // what the operator can do
}

// MissingError says that a run was refused because a required wall could not be put up.
type MissingError struct{ Wall Wall }

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("no %s: %s (%s)", e.Wall.Name, e.Wall.Why, e.Wall.Mend)
}

// wireSpec is the Spec as it is sent, and the files that go with the programs' binaries.
func (s *Spec) wireSpec() wire.Spec {
	w := wire.Spec{Name: s.Name, Memory: s.Memory, Pids: s.Pids, Wall: s.Wall, CPU: s.CPU, Dirs: s.Dirs,
		Listen: s.Listen, Origins: s.Origins, System: s.System, Landlock: s.Landlock}
	for _, p := range s.Programs {
		w.Programs = append(w.Programs, wire.Program{Name: p.Name, Builtin: p.Builtin, Binary: p.Binary != nil, Path: p.Path,
			Profile: p.Profile, Args: p.Args, Env: p.Env, Dir: p.Dir})
	}
	return w
}

// deadError is why a sandbox that ended on its own did so.
func deadError(r wire.Result) error {
	switch {
	case r.Missing != nil:
		return fmt.Errorf("%w: %w", ErrDead, &MissingError{Wall{Name: r.Missing.Name, Required: true, Why: r.Missing.Why, Mend: r.Missing.Mend}})
	case r.Killed == wire.KilledWall:
		return fmt.Errorf("%w: killed: wall clock %s", ErrDead, r.Wall.Round(10*time.Millisecond))
	case r.Killed == wire.KilledCPU:
		return fmt.Errorf("%w: killed: cpu time %s", ErrDead, r.CPU.Round(time.Millisecond))
	case r.Killed == wire.KilledMemory:
		return fmt.Errorf("%w: killed: out of memory at %d MB", ErrDead, r.Memory>>20)
	case r.Message != "":
		return fmt.Errorf("%w: %s", ErrDead, wire.Clip(r.Message))
	}
	return fmt.Errorf("%w: ended", ErrDead)
}

// answerError turns a stage's answer into an error, or nil.
func answerError(a wire.Answer) error {
	text := wire.Clip(a.Message)
	switch a.Code {
	case wire.CodeOK:
		return nil
	case wire.CodeNotFound:
		return fmt.Errorf("%w: %s", ErrNotFound, text)
	case wire.CodeTooLarge:
		return fmt.Errorf("%w: %s", ErrTooLarge, text)
	case wire.CodeNotRegular:
		return fmt.Errorf("%w: %s", ErrNotRegular, text)
	}
	return fmt.Errorf("sandbox: %s", text)
}
