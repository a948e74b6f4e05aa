package relay

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const stopTime = 30 * time.Second

// server is a running master process. Its children end with it.
type server struct {
	name    string
	command *exec.Cmd
	output  string // path of a file; a pipe would stay open as long as a child lives
	ended   chan struct{}
}

func startServer(dir, name string, command ...string) (*server, error) {
	s := &server{name: name, command: exec.Command(command[0], command[1:]...), ended: make(chan struct{})}
	output, err := os.CreateTemp(dir, "output-")
	if err != nil {
		return nil, err
	}
	defer output.Close()
	s.output = output.Name()
	s.command.Stdout, s.command.Stderr = output, output
	// A process group of its own, since Postfix ends all of its group.
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.command.Wait() // how a server ends when it is told to says nothing
		close(s.ended)
	}()
	return s, nil
}

// startGuard starts a shell that ends the servers and deletes the folder if this process dies before it has stopped the relay: a
// test that runs out of time dies so. (PR_SET_PDEATHSIG is not enough: a process that changes its user loses it.)
func startGuard(dir string, servers []*server) (*exec.Cmd, error) {
	guard := exec.Command("sh", "-c", `read line || true; dir=$1; shift; kill "$@"; sleep 2; rm -rf "$dir"`, "guard", dir)
	for _, s := range servers {
		guard.Args = append(guard.Args, strconv.Itoa(s.command.Process.Pid))
	}
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := guard.StdinPipe(); err != nil { // held by guard, closed by our end
		return nil, err
	}
	return guard, guard.Start()
}

func (s *server) said() string {
	text, err := os.ReadFile(s.output)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (s *server) hasEnded() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

func (s *server) stop() error {
	if s.hasEnded() {
		return fmt.Errorf("%s had ended by itself: %s", s.name, s.said())
	}
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(stopTime):
		return fmt.Errorf("%s did not end within %v: %w", s.name, stopTime, s.command.Process.Kill())
	}
}

// awaitNobody ends what the masters have left of their children, such as Dovecot's login process while a client is still
// connected, and waits until no process works below a folder.
func awaitNobody(dir string) error {
	left := processesIn(dir)
	for _, p := range left {
		_ = syscall.Kill(p.id, syscall.SIGTERM) // it may have ended meanwhile
	}
	for start := time.Now(); len(left) > 0; left = processesIn(dir) {
		if time.Since(start) > stopTime {
			return fmt.Errorf("left behind: %v", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// process is a running one.
type process struct {
	id      int
	command string
}

// processesIn lists those whose working directory is below a folder, which it is for all processes of Dovecot and Postfix.
func processesIn(dir string) []process {
	var found []process
	folders, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, folder := range folders {
		cwd, _ := os.Readlink(folder + "/cwd") // empty when the process has ended meanwhile
		id, err := strconv.Atoi(filepath.Base(folder))
		if err == nil && strings.HasPrefix(cwd, dir+"/") {
			line, _ := os.ReadFile(folder + "/cmdline")
			found = append(found, process{id, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))})
		}
	}
	return found
}
