package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Report is what the probe found out, as JSON on its stdout, one line for one attempt.
type Report struct {
	Attempt string `json:"attempt"`
	Done    bool   `json:"done"`            // it succeeded: for most attempts, a hole in the wall
	Errno   int    `json:"errno,omitempty"` // why not, when the kernel said so
	Text    string `json:"text,omitempty"`
}

// Probe is the builtin that tries the walls from the inside: for `mayfly check`, and for the tests. Each argument is one
// attempt, with its own argument after a "=". An attempt may end the process or the run; what it can tell, it reports.
func Probe(stdin, stdout, _ *os.File, args []string) int {
	enc := json.NewEncoder(stdout)
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		text, err := attempt(name, value, stdin, stdout)
		r := Report{Attempt: arg, Done: err == nil, Text: text}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			r.Errno = int(errno)
		}
		if err != nil {
			r.Text = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return 1
		}
	}
	return 0
}

func attempt(name, value string, stdin, stdout *os.File) (string, error) {
	switch name {
	case "whoami":
		host, err := os.Hostname()
		return fmt.Sprintf("uid %d gid %d pid %d ppid %d host %s", os.Getuid(), os.Getgid(), os.Getpid(), os.Getppid(), host), err
	case "list":
		return list(value)
	case "read":
		b, err := os.ReadFile(value)
		return string(b), err
	case "write":
		return "", os.WriteFile(value, []byte("probe"), 0o600)
	case "fill":
		return fill(value)
	case "files":
		return "", rename(value)
	case "link":
		return "", os.Symlink("/etc/shadow", value)
	case "connect":
		return connect(value)
	case "flood":
		return flood(value)
	case "memory":
		return eat(value)
	case "threads":
		return threads()
	case "wait":
		_, err := io.ReadAll(stdin)
		return "", err
	case "output":
		_, err := io.CopyN(stdout, zeros{}, 64<<20)
		return "", err
	case "sleep":
		d, err := time.ParseDuration(value)
		time.Sleep(d)
		return "", err
	case "spin":
		return spin()
	}
	return forbidden(name, value)
}

// forbidden are the calls that no program may make.
func forbidden(name, value string) (string, error) {
	switch name {
	case "execve":
		return "", syscall.Exec(value, []string{value}, nil)
	case "fork":
		return fork(value)
	case "clone3":
		_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0)
		return "", asError(errno)
	case "unshare":
		return "", unix.Unshare(unix.CLONE_NEWUSER)
	case "mount":
		return "", unix.Mount("tmpfs", "/", "tmpfs", 0, "")
	case "ptrace":
		return "", unix.PtraceAttach(1)
	case "kill":
		return "", unix.Kill(1, unix.SIGKILL)
	case "tgkill":
		return "", unix.Tgkill(1, 1, unix.SIGTERM)
	case "socket":
		_, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		return "", err
	case "memfd":
		_, err := unix.MemfdCreate("x", 0)
		return "", err
	case "wx":
		return makeExecutable()
	case "foreign":
		return foreign()
	case "call":
		return call(value)
	}
	return "", fmt.Errorf("no such attempt %q", name)
}

// call makes a system call: its number and its arguments, separated by commas. An argument is a number; or a text after "s:", or
// that many zeros after "b:", whose address is passed. That is what a script could do whose engine has been taken over.
func call(value string) (string, error) {
	var args [7]uintptr
	var held [][]byte
	for i, text := range strings.SplitN(value, ",", len(args)) {
		var buf []byte
		s, isText := strings.CutPrefix(text, "s:")
		size, isBuffer := strings.CutPrefix(text, "b:")
		n, err := strconv.ParseInt(size, 0, 64)
		switch {
		case isText:
			buf = append([]byte(s), 0)
		case err != nil:
			return "", err
		case isBuffer:
			buf = make([]byte, n)
		default:
			args[i] = uintptr(n)
			continue
		}
		held = append(held, buf)
		args[i] = uintptr(unsafe.Pointer(&buf[0]))
	}
	r, _, errno := syscall.Syscall6(args[0], args[1], args[2], args[3], args[4], args[5], args[6])
	runtime.KeepAlive(held)
	return fmt.Sprint(r), asError(errno)
}

// fork starts a process, which exits at once. Its flags are no more than the signal that is to tell of its end, and may be any
// number: also that of a system call that is allowed.
func fork(signal string) (string, error) {
	flags := uint64(unix.SIGCHLD)
	if signal != "" {
		var err error
		if flags, err = strconv.ParseUint(signal, 10, 64); err != nil {
			return "", err
		}
	}
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(flags), 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return "", asError(errno)
}

// makeExecutable asks for memory to write and execute, with every number in the bits of its protection that mean nothing, and
// every system call's first argument as its address.
func makeExecutable() (string, error) {
	for _, addr := range []uintptr{0, unix.PR_SET_NAME, 0x1002, 7} {
		for prot := uintptr(0); prot < 512; prot++ {
			if prot&(unix.PROT_WRITE|unix.PROT_EXEC) != unix.PROT_WRITE|unix.PROT_EXEC {
				continue
			}
			_, _, errno := unix.RawSyscall6(unix.SYS_MMAP, addr, 4096, prot, unix.MAP_ANON|unix.MAP_PRIVATE, ^uintptr(0), 0)
			if errno != unix.EPERM {
				return fmt.Sprintf("mmap(%#x, 4096, %#x)", addr, prot), asError(errno)
			}
		}
	}
	return "", unix.EPERM
}

func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func list(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

// spin computes for ever: an odd number stays odd.
func spin() (string, error) {
	n := uint64(1)
	for n != 0 {
		n *= 3
	}
	return fmt.Sprint(n), nil
}

// fill writes zeros until the file system is full, and tells how many bytes that took.
func fill(path string) (string, error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	n, err := io.CopyN(f, zeros{}, 1<<40)
	if err != nil {
		err = fmt.Errorf("after %d bytes: %w", n, err)
	}
	return "", err
}

// rename does with files below dir what programs do: make, write, rename, list, read, remove.
func rename(dir string) error {
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/a/b/one", []byte("1"), 0o644); err != nil {
		return err
	}
	if err := os.Rename(dir+"/a/b/one", dir+"/a/two"); err != nil {
		return err
	}
	if b, err := os.ReadFile(dir + "/a/two"); err != nil || string(b) != "1" {
		return fmt.Errorf("read back %q: %w", b, err)
	}
	if names, err := list(dir + "/a"); err != nil || names != "b two" {
		return fmt.Errorf("listed %q: %w", names, err)
	}
	return os.RemoveAll(dir + "/a")
}

func connect(addr string) (string, error) {
	c, err := net.DialTimeout("tcp4", addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// flood fills the kernel's buffers: it writes to 200 connections what nobody reads, and tells how many bytes that took.
func flood(addr string) (string, error) {
	var sum int64
	for range 200 {
		c, err := net.DialTimeout("tcp4", addr, 200*time.Millisecond)
		if err != nil {
			break // the queue is full
		}
		defer c.Close()
		if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			return "", err
		}
		n, _ := io.Copy(c, zeros{}) // until the deadline
		sum += n
	}
	return fmt.Sprint(sum), nil
}

// eat takes memory, and touches it, until it is stopped.
func eat(limit string) (string, error) {
	var most int
	if _, err := fmt.Sscan(limit, &most); err != nil {
		return "", err
	}
	var held [][]byte
	for n := 0; n < most; n += 1 << 20 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		held = append(held, b)
	}
	return fmt.Sprint(len(held)), nil
}

// threads blocks one kernel thread after another. At the pids limit the Go runtime cannot make the next one and gives up.
func threads() (string, error) {
	const most = 4096
	started := make(chan struct{})
	for range most {
		go func() {
			started <- struct{}{}
			ts := unix.Timespec{Sec: 3600}
			_, _, _ = syscall.Syscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
		}()
		<-started
	}
	return fmt.Sprint(most), nil
}

type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
