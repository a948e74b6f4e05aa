package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"mayfly/internal/sandbox/cgroup"
	"mayfly/internal/sandbox/wire"
)

// DefaultUID is the broker's uid and gid when it is started by root and no other is given.
const DefaultUID = 64190

// closeTimeout is how long the broker may take to end all runs before it is killed itself.
const closeTimeout = 15 * time.Second

// StartOptions say how the broker is started.
type StartOptions struct {
	Binary string    // path of mayfly-sandbox
	UID    int       // when we are root: the broker's uid; 0 means DefaultUID. Otherwise it runs as we do
	GID    int       // when we are root: its gid; 0 means the same number as its uid
	Log    io.Writer // the broker's log lines; nil drops them
	Most   Ceilings  // of all runs together
}

// Ceilings bound all sandboxes of a broker together.
type Ceilings = cgroup.Ceilings

// Broker is a broker process of our own.
type Broker struct {
	addr     string
	cmd      *exec.Cmd
	tree     *cgroup.Tree
	lifeline *os.File // the broker ends when this is closed: by Close, or by our death
	exited   chan struct{}
}

// StartBroker starts a broker that serves this process's uid, and waits until it answers. It prepares the broker's cgroups, and
// removes those of predecessors that are dead. The broker and all its runs end with Close, and when this process dies.
func StartBroker(ctx context.Context, o StartOptions) (*Broker, error) {
	cred, err := credential(o)
	if err != nil {
		return nil, err
	}
	binary, err := openBinary(o.Binary, cred != nil)
	if err != nil {
		return nil, err
	}
	defer binary.Close()
	uid, gid := os.Geteuid(), os.Getegid()
	if cred != nil {
		uid, gid = int(cred.Uid), int(cred.Gid)
	}
	tree, err := cgroup.Prepare(uid, gid, o.Most)
	if err != nil {
		missing := Wall{Name: "memory and pids limits", Required: true, Why: err.Error(),
			Mend: "start as root, or with a delegated cgroup: systemd-run --user --scope -p Delegate=yes"}
		if o.Most.Cores > 0 {
			missing.Name, missing.Mend = "memory, pids and cores limits", missing.Mend+"; or set cores = 0.0 where the kernel has no controller cpu for us"
		}
		return nil, &MissingError{missing}
	}
	b := &Broker{addr: "@mayfly-" + rand.Text(), tree: tree, exited: make(chan struct{})}
	if err := b.start(binary, cred, o.Log); err != nil {
		return nil, errors.Join(fmt.Errorf("start the sandbox broker: %w", err), tree.Remove())
	}
	if err := b.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// credential is who the broker shall be, nil for the same as us.
func credential(o StartOptions) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	uid, gid := o.UID, o.GID
	if uid == 0 {
		uid = DefaultUID
	}
	if gid == 0 {
		gid = uid
	}
	if uid < 0 || gid < 0 {
		return nil, fmt.Errorf("start the sandbox broker: uid %d, gid %d: want numbers above 0", uid, gid)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}, nil
}

// openBinary opens mayfly-sandbox. Another user can execute it by our file descriptor, also from below a closed home, if the
// file's own mode allows it.
func openBinary(path string, forOthers bool) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open mayfly-sandbox (make build makes it): %w", err)
	}
	info, err := f.Stat()
	if err == nil && forOthers && info.Mode().Perm()&0o005 != 0o005 {
		err = fmt.Errorf("%s: mode %04o: the broker's user must be able to read and execute it: chmod 755", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// start starts the process with its listening socket as file descriptor 3, the lifeline as 4 and its binary as 5.
func (b *Broker) start(binary *os.File, cred *syscall.Credential, log io.Writer) error {
	socket, err := listen(b.addr)
	if err != nil {
		return err
	}
	defer socket.Close()
	end, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer end.Close()
	home, err := b.tree.Home()
	if err != nil {
		return errors.Join(err, lifeline.Close())
	}
	b.cmd = &exec.Cmd{
		Path: "/proc/self/fd/5",
		Args: []string{"mayfly-sandbox", "broker", "-lifeline", "-cgroups", b.tree.Encode(), "-allow-uid", strconv.Itoa(os.Geteuid())},
		Env:  []string{}, Dir: "/", Stdout: log, Stderr: log, ExtraFiles: []*os.File{socket, end, binary},
		SysProcAttr: &syscall.SysProcAttr{Credential: cred, Setsid: true},
	}
	if home != nil {
		defer home.Close()
		b.cmd.SysProcAttr.UseCgroupFD, b.cmd.SysProcAttr.CgroupFD = true, int(home.Fd())
	}
	if err := b.cmd.Start(); err != nil {
		return errors.Join(err, lifeline.Close())
	}
	b.lifeline = lifeline
	go func() {
		_ = b.cmd.Wait() // the state is read by Close
		close(b.exited)
	}()
	return nil
}

// listen makes the broker's socket. Its name is abstract: nothing of it stays behind.
func listen(addr string) (*os.File, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: addr, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File()
}

// awaitReady asks the broker for an impossible run: it refuses it as soon as it is up.
func (b *Broker) awaitReady(ctx context.Context) error {
	conn, err := dial(ctx, b.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SendJSON(wire.KindSpec, wire.Spec{}); err != nil {
		return err
	}
	if _, err := conn.Read(); err != nil {
		select {
		case <-b.exited:
			return fmt.Errorf("the sandbox broker ended at once (%s): see its log", b.cmd.ProcessState)
		case <-time.After(time.Second):
			return fmt.Errorf("the sandbox broker does not answer: %w", err)
		}
	}
	return nil
}

// Client gives a client of this broker.
func (b *Broker) Client() *Client { return NewClient(b.addr) }

// Done is closed when the broker has ended, by Close or by itself.
func (b *Broker) Done() <-chan struct{} { return b.exited }

// PID is the broker's process id.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Close ends every run and the broker, waits for their end, and removes their cgroups.
func (b *Broker) Close() error {
	err := b.lifeline.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	select {
	case <-b.exited:
	case <-time.After(closeTimeout):
		err = errors.Join(fmt.Errorf("the sandbox broker did not end within %s and was killed", closeTimeout), b.cmd.Process.Kill())
		<-b.exited
	}
	if code := b.cmd.ProcessState.ExitCode(); code != 0 {
		err = errors.Join(err, fmt.Errorf("the sandbox broker ended with %s", b.cmd.ProcessState))
	}
	return errors.Join(err, b.tree.Remove())
}
