//go:build linux && (amd64 || arm64)

// Package inject makes system calls on files fail, one at a time, in the real program on the real kernel.
//
// A seccomp filter of a thread hands its calls on files to a supervisor (seccomp_unotify(2)), before they happen. The supervisor finds
// out which file a call is about, and asks a function what becomes of it: it happens, it fails with an error of the function's choice, or
// only half of a write happens. Calls on files outside of a folder happen. So all calls are seen, whoever makes them: Go's os, SQLite, or
// what either of them will do tomorrow. Stores into mapped memory are no calls, and are not seen.
package inject

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Effect is what a call does to a disk.
type Effect int

// The effects, of which the first that fits is a call's.
const (
	Read   Effect = iota // nothing, but that it may fail
	Change               // it changes what is there, or takes something away
	Space                // it needs space
	Write                // it needs space, and may do half of what it was asked to
	Sync                 // it makes something durable
)

// Call is a system call that is about to happen.
type Call struct {
	Name   string // as in the manual
	Path   string // the file; of two names, the new one
	Effect Effect
}

// Answer is what becomes of a call. The zero value lets it happen.
type Answer struct {
	Errno syscall.Errno
	Half  bool // only the first half is written; of a call that is a Write
}

// Run calls f on a thread of its own, and decide for each call of that thread on a file in dir. What f starts on other threads is not
// seen. decide is called by one goroutine at a time.
func Run(dir string, decide func(Call) Answer, f func()) error {
	listener := make(chan int, 1)
	failed := make(chan error, 1)
	ended, end, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	defer ended.Close()
	go func() {
		defer end.Close()      // the thread may live on: Go never ends its first one
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine, and so does its filter
		fd, err := filter(ownEvents())
		if err != nil {
			failed <- err
			return
		}
		listener <- fd
		f()
	}()
	select {
	case err := <-failed:
		return err
	case fd := <-listener:
		defer unix.Close(fd)
		return supervise(fd, int(ended.Fd()), dir, decide)
	}
}

// ownEvents are the files by which the Go runtime wakes itself. It writes to them while it lets nobody else run.
func ownEvents() []uint32 {
	var fds []uint32
	for fd := range uint32(64) {
		if name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && strings.HasPrefix(name, "anon_inode:") {
			fds = append(fds, fd)
		}
	}
	return fds
}

// filter puts the filter on this thread and returns the supervisor's end.
func filter(except []uint32) (int, error) {
	const numberAt, argumentAt = 0, 16
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	skipUnless := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	program := []unix.SockFilter{load(argumentAt)}
	for _, fd := range except {
		program = append(program, skipUnless(fd, 3), load(numberAt), skipUnless(unix.SYS_WRITE, 1), ret(unix.SECCOMP_RET_ALLOW), load(argumentAt))
	}
	program = append(program, load(numberAt))
	for nr := range calls {
		program = append(program, skipUnless(uint32(nr), 1), ret(unix.SECCOMP_RET_USER_NOTIF))
	}
	program = append(program, ret(unix.SECCOMP_RET_ALLOW))
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("inject: %w", err)
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("inject: seccomp: %w: it needs Linux 5.19", errno)
	}
	return int(fd), nil
}

// notice and reply are seccomp_notif and seccomp_notif_resp.
type notice struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type reply struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// Supervise answers the calls of all that live under a filter, until there are none.
func Supervise(listener int, dir string, decide func(Call) Answer) error {
	return supervise(listener, -1, dir, decide)
}

// supervise ends when the other end of a pipe is closed, too.
func supervise(listener, ended int, dir string, decide func(Call) Answer) error {
	for {
		polled := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}, {Fd: int32(ended)}}
		if _, err := unix.Poll(polled, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("inject: poll: %w", err)
		}
		if polled[0].Revents&unix.POLLIN == 0 {
			if (polled[0].Revents|polled[1].Revents)&unix.POLLHUP != 0 {
				return nil
			}
			continue
		}
		var n notice
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); err != nil {
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) { // whoever made the call has died
				continue
			}
			return fmt.Errorf("inject: receive: %w", err)
		}
		r := n.answer(dir, decide)
		if err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("inject: send: %w", err)
		}
	}
}

func ioctl(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

func (n *notice) answer(dir string, decide func(Call) Answer) reply {
	happens := reply{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	c, err := n.call()
	if err != nil || c.Path != dir && !strings.HasPrefix(c.Path, dir+"/") {
		return happens
	}
	switch a := decide(c); {
	case a.Errno != 0:
		return reply{id: n.id, errno: -int32(a.Errno)}
	case a.Half && c.Effect == Write && n.args[2] > 1:
		written, err := n.writeHalf()
		if err != nil {
			return reply{id: n.id, errno: -int32(unix.EIO)}
		}
		return reply{id: n.id, value: int64(written)}
	}
	return happens
}

// writeHalf does in the caller's place half of what it was asked to.
func (n *notice) writeHalf() (int, error) {
	data := make([]byte, n.args[2]/2)
	if err := n.memory(data, n.args[1]); err != nil {
		return 0, err
	}
	process, err := unix.PidfdOpen(n.process(), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, int(n.args[0]), 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if n.nr == unix.SYS_PWRITE64 {
		return unix.Pwrite(fd, data, int64(n.args[3]))
	}
	return unix.Write(fd, data)
}

// process is the process of the calling thread.
func (n *notice) process() int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.pid))
	_, rest, _ := strings.Cut(string(text), "\nTgid:")
	var pid int
	fmt.Sscan(rest, &pid)
	return pid
}

func (n *notice) memory(into []byte, at uint64) error {
	local := []unix.Iovec{{Base: &into[0], Len: uint64(len(into))}}
	got, err := unix.ProcessVMReadv(int(n.pid), local, []unix.RemoteIovec{{Base: uintptr(at), Len: len(into)}}, 0)
	if err == nil && got != len(into) {
		err = unix.EFAULT
	}
	return err
}

func (n *notice) text(at uint64) (string, error) {
	const page = 4096
	var all []byte
	for len(all) < page {
		part := make([]byte, page-(at+uint64(len(all)))%page)
		if err := n.memory(part, at+uint64(len(all))); err != nil {
			return "", err
		}
		if text, _, ended := strings.Cut(string(part), "\x00"); ended {
			return string(all) + text, nil
		}
		all = append(all, part...)
	}
	return "", unix.ENAMETOOLONG
}

// file is the path of an open file of the caller's.
func (n *notice) file(fd uint64) (string, error) {
	if int32(fd) == unix.AT_FDCWD {
		return os.Readlink(fmt.Sprintf("/proc/%d/cwd", n.pid))
	}
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", n.pid, int32(fd)))
	return strings.TrimSuffix(name, " (deleted)"), err
}

// named is the path of a name that the caller has given beside an open folder.
func (n *notice) named(folder, at uint64) (string, error) {
	name, err := n.text(at)
	if err != nil || filepath.IsAbs(name) {
		return filepath.Clean(name), err
	}
	dir, err := n.file(folder)
	return filepath.Join(dir, name), err
}

// call says what a call is about.
func (n *notice) call() (Call, error) {
	k := calls[int(n.nr)]
	c := Call{Name: k.name, Effect: k.effect}
	var err error
	switch k.where {
	case byFile:
		c.Path, err = n.file(n.args[0])
	case byName:
		cwd := int64(unix.AT_FDCWD)
		c.Path, err = n.named(uint64(cwd), n.args[k.at])
	case byFolder:
		c.Path, err = n.named(n.args[k.at], n.args[k.at+1])
	}
	if k.flags > 0 && err == nil {
		c.Effect, err = n.opens(c.Path, k)
	}
	return c, err
}

// opens is the effect of an open. It is a call that needs space only where it makes the file.
func (n *notice) opens(name string, k kind) (Effect, error) {
	flags := n.args[k.flags]
	if k.name == "openat2" {
		var how [8]byte
		if err := n.memory(how[:], flags); err != nil {
			return 0, err
		}
		flags = *(*uint64)(unsafe.Pointer(&how))
	}
	if _, err := os.Lstat(name); err != nil && flags&unix.O_CREAT != 0 {
		return Space, nil
	}
	if flags&unix.O_TRUNC != 0 {
		return Change, nil
	}
	return Read, nil
}
