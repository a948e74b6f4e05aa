package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// server answers the daemon's requests, one after the other.
type server struct {
	spec      wire.Spec
	control   *wire.Conn
	launchers []*launcher
	sealed    bool // the directories that are not for programs to write have been sealed
}

// hello tells the daemon that the stage is ready, hands over the listening sockets, and begins to watch the launchers.
func (s *server) hello(sockets []*os.File) error {
	err := s.control.SendJSON(wire.KindHello, wire.Hello{Listeners: len(sockets)}, sockets...)
	wire.Frame{Files: sockets}.CloseFiles()
	if err != nil {
		return err
	}
	for _, l := range s.launchers {
		go s.await(l)
	}
	return nil
}

// await reaps a program and reports its end.
func (s *server) await(l *launcher) {
	defer close(l.done)
	_ = l.cmd.Wait() // the state has all that the error says
	x := wire.Exited{Program: l.program.Name, Code: l.cmd.ProcessState.ExitCode()}
	if ws, ok := l.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		x.Code, x.Signal = 0, int(ws.Signal())
	}
	if ru, ok := l.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		x.MaxRSS = ru.Maxrss << 10
	}
	_ = s.control.SendJSON(wire.KindExited, x) // a daemon that has gone ends serve
}

// serve returns nil when the daemon has closed the control socket.
func (s *server) serve() error {
	for {
		f, err := s.control.Read()
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		f.CloseFiles()
		var q wire.Request
		if f.Kind != wire.KindRequest {
			return fmt.Errorf("%w: frame %q where a request was due", wire.ErrProtocol, f.Kind)
		}
		if err := f.Decode(&q); err != nil {
			return err
		}
		if err := s.request(q); err != nil {
			return err
		}
	}
}

// request does one request. Its error is a broken control socket; everything else goes into the answer.
func (s *server) request(q wire.Request) error {
	switch q.Op {
	case wire.OpPut, wire.OpPutFile:
		return s.take(q)
	case wire.OpGet:
		return s.get(q)
	case wire.OpCollect:
		return s.collect(q)
	case wire.OpSeal:
		return s.answer(s.seal(q.Path))
	case wire.OpStart:
		return s.answer(s.start(q.Program, q.Env))
	case wire.OpTerm:
		return s.answer(s.terminate())
	case wire.OpKill:
		return s.answer(s.killAll())
	}
	return s.answer(fmt.Errorf("unknown request %q", q.Op))
}

func (s *server) answer(err error) error {
	var a wire.Answer
	if err != nil {
		a = wire.Answer{Code: codeOf(err), Message: wire.Clip(err.Error())}
	}
	return s.control.SendJSON(wire.KindAnswer, a)
}

func codeOf(err error) wire.Code {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return wire.CodeNotFound
	case errors.Is(err, errTooLarge):
		return wire.CodeTooLarge
	case errors.Is(err, errNotRegular):
		return wire.CodeNotRegular
	}
	return wire.CodeFailed
}

// take receives a stream and always reads it to its end.
func (s *server) take(q wire.Request) error {
	stream := s.control.Stream()
	err := s.inside(q.Path)
	if err == nil && q.Op == wire.OpPut {
		err = unpack(q.Path, s.fileMode(q.Path), stream)
	} else if err == nil {
		err = putFile(q.Path, q.Size, s.fileMode(q.Path), stream)
	}
	if err := stream.Drain(); err != nil {
		return err
	}
	return s.answer(err)
}

// fileMode is what a file gets that is put at path.
func (s *server) fileMode(path string) os.FileMode {
	dir, _ := wire.Split(path)
	if d, err := s.dir(dir); err == nil && d.Exec {
		return 0o700
	}
	return 0o600
}

func (s *server) get(q wire.Request) error {
	err := s.inside(q.Path)
	var f *os.File
	if err == nil {
		f, err = openRegular(q.Path, q.Size)
	}
	if err := s.answer(err); err != nil || f == nil {
		return err
	}
	defer f.Close()
	return s.sendStream(io.LimitReader(f, q.Size))
}

func (s *server) collect(q wire.Request) error {
	d, err := s.dir(q.Path)
	if err == nil {
		err = s.killAll()
	}
	if err := s.answer(err); err != nil || d == nil {
		return err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(pack(w, *d)) }()
	return s.sendStream(r)
}

// sendStream sends r. That r failed has been told to the daemon by the stream's end.
func (s *server) sendStream(r io.Reader) error {
	err := s.control.SendStream(r)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil
}

func (s *server) inside(path string) error {
	if !s.spec.Inside(path) {
		return fmt.Errorf("%s lies in none of the sandbox's directories", path)
	}
	return nil
}

func (s *server) dir(path string) (*wire.Dir, error) {
	for i := range s.spec.Dirs {
		if s.spec.Dirs[i].Path == path {
			return &s.spec.Dirs[i], nil
		}
	}
	return nil, fmt.Errorf("%s is none of the sandbox's directories", path)
}

func (s *server) seal(path string) error {
	d, err := s.dir(path)
	if err != nil {
		return err
	}
	return readOnly(path, dirFlags(*d))
}

// start gives a launcher the word, with what is to be added to its environment. Before the first one, what programs may not write
// is sealed.
func (s *server) start(name string, env []string) error {
	if err := s.sealOnce(); err != nil {
		return err
	}
	for _, l := range s.launchers {
		if l.program.Name != name {
			continue
		}
		if l.goPipe == nil {
			return errors.New("it has been started before")
		}
		err := json.NewEncoder(l.goPipe).Encode(env)
		err = errors.Join(err, l.goPipe.Close())
		l.goPipe = nil
		return err
	}
	return errors.New("no such program")
}

func (s *server) sealOnce() error {
	if s.sealed {
		return nil
	}
	for _, d := range s.spec.Dirs {
		if d.Writable || takedown.Down(takedown.Sealed) {
			continue
		}
		if err := readOnly(d.Path, dirFlags(d)); err != nil {
			return err
		}
	}
	s.sealed = true
	return nil
}

// killAll kills every process but the stage, and returns when all have been reaped.
func (s *server) killAll() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill: %w", err)
	}
	for _, l := range s.launchers {
		<-l.done
	}
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for orphans: %w", err)
		}
	}
}

// terminate asks what runs under bubblewrap to end, but not bubblewrap itself, whose end would be a kill: the processes of the
// namespace within ours, of which bubblewrap is the first.
func (s *server) terminate() error {
	if !s.spec.System {
		return errors.New("only programs of a system root can be asked to end")
	}
	paths, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return err
	}
	for _, path := range paths {
		status, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		if pid := innerProcess(string(status)); pid > 0 {
			_ = unix.Kill(pid, unix.SIGTERM) // likewise
		}
	}
	return nil
}

// innerProcess is the process that a /proc/PID/status is of, by our own count, or 0 if it is none of the namespace within ours, or the
// first one there.
func innerProcess(status string) int {
	_, list, _ := strings.Cut(status, "\nNSpid:")
	list, _, _ = strings.Cut(list, "\n")
	pids := strings.Fields(list)
	if len(pids) != 2 || pids[1] == "1" {
		return 0
	}
	pid, err := strconv.Atoi(pids[0])
	if err != nil {
		return 0
	}
	return pid
}
