// Package broker is the process that makes every sandbox, and nothing else.
//
// It runs under a uid of its own that is never 0, without capabilities, so no namespace is ever made by root. It takes its
// listening unix socket as file descriptor 3, as from systemd's socket activation, and answers only peers whose uid it has
// been told (SO_PEERCRED). One connection is one run; its end, by whatever cause, is the end of the run.
//
// For a run it checks the Spec against ceilings of its own, makes a cgroup with the limits, and starts the stage (this same
// program) in new namespaces inside of it. Then it watches: CPU time and the kernel's out-of-memory count every 100 ms, the
// wall clock one second after the stage should have ended the run by itself. When it has killed a run it waits until every
// process is dead, reports what the run has used, and removes the cgroup. Package wire has the protocol.
//
// With -lifeline it holds the read end of a pipe, whose end of file (the daemon is gone) ends every run and the broker.
package broker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/cgroup"
	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// The file descriptors that the broker is started with.
const (
	ListenFD   = 3
	LifelineFD = 4
)

// maxRuns bounds the runs at a time, whatever the daemon asks.
const maxRuns = 64

// specTimeout is how long a peer may take to send its Spec.
const specTimeout = 5 * time.Second

// options of the command line.
type options struct {
	uids     []int
	cgroups  string
	lifeline bool
}

// Main is `mayfly-sandbox broker`. It returns the exit code: 0 when it was told to end, 1 when it could not start, 2 for wrong
// arguments.
func Main(args []string, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if err != nil {
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if err := serve(o, log); err != nil {
		log.Error("broker: cannot run", "err", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("mayfly-sandbox broker", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Func("allow-uid", "a `uid` that may open sandboxes (may be given several times)", func(s string) error {
		uid, err := strconv.Atoi(s)
		o.uids = append(o.uids, uid)
		return err
	})
	fs.StringVar(&o.cgroups, "cgroups", "", "the cgroup tree made for the broker, as `JSON`; without it the broker makes its own")
	fs.BoolVar(&o.lifeline, "lifeline", false, "end when the pipe at file descriptor 4 does")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if len(o.uids) == 0 || fs.NArg() > 0 {
		fmt.Fprintln(stderr, "mayfly-sandbox broker: want at least one -allow-uid and no arguments")
		return o, errors.New("usage")
	}
	return o, nil
}

// serve sets the broker up and takes runs until it is told to end.
func serve(o options, log *slog.Logger) error {
	// Nothing that we hold, nor what whoever started us forgot to close, may reach a stage.
	if err := unix.CloseRange(ListenFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close files on exec (kernel 5.11 or newer is needed): %w", err)
	}
	if err := checkPrivilege(); err != nil {
		return err
	}
	listener, err := listenerFrom(ListenFD)
	if err != nil {
		return err
	}
	tree, err := joinTree(o.cgroups)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	if o.lifeline {
		lifeline := os.NewFile(LifelineFD, "lifeline")
		go func() {
			io.Copy(io.Discard, lifeline)
			stop()
		}()
	}
	s := &server{uids: o.uids, tree: tree, log: log}
	s.accept(ctx, listener)
	s.runs.Wait()
	return tree.Empty()
}

// checkPrivilege refuses what would make a namespace dangerous: uid 0, gid 0 and capabilities. Every thread, from any of which a
// stage may be forked, loses the ways to gain some.
func checkPrivilege() error {
	uid, euid, suid := unix.Getresuid()
	gid, egid, sgid := unix.Getresgid()
	if takedown.Down(takedown.UID) {
		return nil
	}
	if slices.Contains([]int{uid, euid, suid, gid, egid, sgid}, 0) {
		return errors.New("the broker must not run as uid 0 or gid 0: give it a user of its own")
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read our capabilities: %w", err)
	}
	if data[0].Effective|data[1].Effective|data[0].Permitted|data[1].Permitted != 0 {
		return errors.New("the broker must not have capabilities: start it without AmbientCapabilities and file capabilities")
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 && errno != unix.ENOTSUP {
		return fmt.Errorf("set no_new_privs on all threads: %w", errno)
	} // ENOTSUP: built with cgo, which every stage refuses, and says what to do
	return nil
}

func listenerFrom(fd uintptr) (*net.UnixListener, error) {
	f := os.NewFile(fd, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("file descriptor %d is not a listening socket (start the broker by its socket unit): %w", fd, err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok || u.Addr().Network() != "unixpacket" {
		l.Close()
		return nil, fmt.Errorf("file descriptor %d is no unix socket of type SEQPACKET (ListenSequentialPacket=)", fd)
	}
	u.SetUnlinkOnClose(false)
	return u, nil
}

func joinTree(encoded string) (*cgroup.Tree, error) {
	prepare := func() (*cgroup.Tree, error) { return cgroup.Prepare(os.Geteuid(), os.Getegid(), cgroup.Ceilings{}) }
	if encoded != "" {
		prepare = func() (*cgroup.Tree, error) { return cgroup.Decode(encoded) }
	}
	tree, err := prepare()
	if err != nil {
		return nil, err
	}
	if err := tree.Join(); err != nil {
		return nil, fmt.Errorf("enter our own cgroup: %w", err)
	}
	return tree, nil
}

// server hands out runs.
type server struct {
	uids   []int
	tree   *cgroup.Tree
	log    *slog.Logger
	runs   sync.WaitGroup
	active atomic.Int32
	serial atomic.Int64
}

func (s *server) accept(ctx context.Context, l *net.UnixListener) {
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		sock, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("broker: accept", "err", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.runs.Go(func() { s.handle(ctx, sock) })
	}
}

// handle serves one connection from its Spec to its Result.
func (s *server) handle(ctx context.Context, sock *net.UnixConn) {
	defer sock.Close()
	conn := wire.NewConn(sock)
	if err := s.admit(conn); err != nil {
		s.log.Warn("broker: refused a peer", "err", err)
		return
	}
	if s.active.Add(1) > maxRuns {
		s.active.Add(-1)
		_ = conn.SendJSON(wire.KindResult, wire.Result{Wall: 1, Message: fmt.Sprintf("more than %d runs at a time", maxRuns)})
		return
	}
	defer s.active.Add(-1)
	spec, files, err := receive(conn)
	defer wire.Frame{Files: files}.CloseFiles()
	if err != nil {
		result := wire.Result{Wall: 1}
		explain(&result, err)
		_ = conn.SendJSON(wire.KindResult, result)
		return
	}
	result, err := s.run(ctx, conn, spec, files)
	explain(&result, err)
	s.log.Info("broker: run ended", "name", spec.Name, "wall", result.Wall, "cpu", result.CPU, "memory", result.Memory,
		"killed", result.Killed, "message", result.Message)
	_ = conn.SendJSON(wire.KindResult, result) // a daemon that has gone needs no answer
}

// explain puts an error into the Result, where the daemon finds it.
func explain(r *wire.Result, err error) {
	if err == nil {
		return
	}
	errors.As(err, &r.Missing)
	r.Message = wire.Clip(strings.TrimSpace(r.Message + " " + err.Error()))
}

func (s *server) admit(conn *wire.Conn) error {
	cred, err := conn.Peer()
	if err != nil {
		return err
	}
	if !slices.Contains(s.uids, int(cred.Uid)) {
		return fmt.Errorf("uid %d (process %d) may not open sandboxes: see -allow-uid", cred.Uid, cred.Pid)
	}
	return nil
}

// receive reads the Spec and checks it and the number of files that came with it.
func receive(conn *wire.Conn) (wire.Spec, []*os.File, error) {
	var spec wire.Spec
	if err := conn.Socket().SetReadDeadline(time.Now().Add(specTimeout)); err != nil {
		return spec, nil, err
	}
	f, err := conn.Read()
	if err != nil {
		return spec, nil, fmt.Errorf("read the specification: %w", err)
	}
	if f.Kind != wire.KindSpec {
		return spec, f.Files, fmt.Errorf("%w: frame %q instead of a specification", wire.ErrProtocol, f.Kind)
	}
	if err := f.Decode(&spec); err != nil {
		return spec, f.Files, err
	}
	if err := spec.Check(); err != nil {
		return wire.Spec{}, f.Files, err
	}
	if len(f.Files) != spec.Files() {
		return spec, f.Files, fmt.Errorf("%w: %d files, the specification needs %d", wire.ErrProtocol, len(f.Files), spec.Files())
	}
	return spec, f.Files, conn.Socket().SetReadDeadline(time.Time{})
}
