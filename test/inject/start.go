//go:build linux && (amd64 || arm64)

package inject

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

const launched = "MAYFLY_INJECT_PROGRAM"

// Launch is what the program of a test does first: where Start has started it, it becomes the program that Start was given.
func Launch() {
	program := os.Getenv(launched)
	if program == "" {
		return
	}
	runtime.LockOSThread()
	fmt.Fprintln(os.Stderr, launch(program)) // it returns only where it fails
	os.Exit(1)
}

// launch hands over the supervisor's end at file 3. What a thread executes keeps its filter, and so does all that it starts.
func launch(program string) error {
	if err := os.Unsetenv(launched); err != nil {
		return err
	}
	fd, err := filter(nil)
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("inject: hand over: %w", err)
	}
	unix.CloseOnExec(3)
	return fmt.Errorf("inject: %s: %w", program, unix.Exec(program, os.Args, os.Environ()))
}

// Start starts a command with decide for the calls on files in dir of all its processes. The program of the test calls Launch.
func Start(c *exec.Cmd, dir string, decide func(Call) Answer) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "inject")
	ours := os.NewFile(uintptr(pair[0]), "inject")
	defer ours.Close()
	defer theirs.Close()
	if c.Env == nil {
		c.Env = os.Environ()
	}
	c.Env = append(c.Env, launched+"="+c.Path)
	c.ExtraFiles = []*os.File{theirs}
	c.Path = "/proc/self/exe"
	if err := c.Start(); err != nil {
		return err
	}
	theirs.Close()
	listener, err := receive(ours)
	if err != nil {
		return errors.Join(fmt.Errorf("inject: %s: %w", c.Args[0], err), c.Process.Kill(), c.Wait())
	}
	go func() {
		defer unix.Close(listener)
		_ = Supervise(listener, dir, decide) // when it fails, the program cannot go on, and the test sees that
	}()
	return nil
}

func receive(from *os.File) (fd int, err error) {
	conn, err := net.FileConn(from)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("the filter did not come: %w", errors.Join(err, os.ErrInvalid))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return 0, fmt.Errorf("the filter did not come: %w", errors.Join(err, os.ErrInvalid))
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}
