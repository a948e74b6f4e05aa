package broker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/cgroup"
	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage"
	"mayfly/internal/stage/takedown"
)

const (
	pollEvery = 100 * time.Millisecond // CPU time and out-of-memory kills
	wallGrace = time.Second            // beyond the wall clock, which is the stage's to keep
)

// run carries out one Spec and returns when every process of it is dead and its cgroup removed.
func (s *server) run(ctx context.Context, conn *wire.Conn, spec wire.Spec, files []*os.File) (wire.Result, error) {
	begun := time.Now()
	name := fmt.Sprintf("%d-%s", s.serial.Add(1), spec.Name)
	group, err := s.tree.NewGroup(name, cgroup.Limits{Memory: spec.Limit(), Pids: spec.Pids})
	if err != nil {
		return wire.Result{UID: os.Geteuid(), Wall: time.Since(begun)}, missingLimits(err)
	}
	process := startStage(group, spec, files)
	wire.Frame{Files: files}.CloseFiles()
	r := wire.Result{UID: os.Geteuid(), Killed: s.watch(ctx, conn, spec, group, process)}
	err = process.err()
	r.Wall = time.Since(begun)
	measure(group, &r)
	return r, errors.Join(err, group.Remove())
}

func missingLimits(err error) error {
	return &wire.Missing{Name: "memory and pids limits", Why: err.Error(),
		Mend: "give the broker a delegated cgroup: Delegate=yes in its unit, or start it as root once"}
}

// watch returns when the stage is dead, and says which limit killed it, if one did.
func (s *server) watch(ctx context.Context, conn *wire.Conn, spec wire.Spec, group *cgroup.Group, p *process) string {
	questions := make(chan struct{})
	ended := make(chan struct{})
	defer close(ended)
	hangup := listen(conn, questions, ended)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	wall := time.NewTimer(spec.Wall + wallGrace)
	defer wall.Stop()
	if takedown.Down(takedown.WallClock) {
		wall.Stop()
	}
	for {
		reason := ""
		select {
		case <-p.done:
			return p.ownLimit()
		case <-tick.C:
			if reason = overLimit(group, spec); reason == "" {
				continue
			}
		case <-questions:
			if tell(group, conn) == nil {
				continue
			}
		case <-wall.C:
			reason = wire.KilledWall
		case <-hangup:
		case <-ctx.Done():
		}
		p.kill(group)
		<-p.done
		return cmp.Or(reason, p.ownLimit())
	}
}

// listen reads the peer's questions after its Spec. Whatever else comes, end of file first of all, closes the channel that it returns
// and so ends the run.
func listen(conn *wire.Conn, questions chan<- struct{}, ended <-chan struct{}) <-chan struct{} {
	hangup := make(chan struct{})
	go func() {
		defer close(hangup)
		for {
			f, err := conn.Read()
			f.CloseFiles()
			if err != nil || f.Kind != wire.KindUsage || len(f.Files) > 0 {
				return
			}
			select {
			case questions <- struct{}{}:
			case <-ended:
				return
			}
		}
	}()
	return hangup
}

// tell answers a question. A peer that does not read the answers must not keep us from watching: its run ends.
func tell(group *cgroup.Group, conn *wire.Conn) error {
	used, err := group.CPU()
	if err != nil {
		return err
	}
	if err := conn.Socket().SetWriteDeadline(time.Now().Add(pollEvery)); err != nil {
		return err
	}
	err = conn.SendJSON(wire.KindUsage, wire.Usage{CPU: used})
	return errors.Join(err, conn.Socket().SetWriteDeadline(time.Time{}))
}

// overLimit says which limit a run has passed. A limit that cannot be read any more counts as passed.
func overLimit(group *cgroup.Group, spec wire.Spec) string {
	if n, err := group.OOMKills(); err != nil || n > 0 {
		return wire.KilledMemory
	}
	if spec.CPU == 0 || takedown.Down(takedown.CPU) {
		return ""
	}
	if used, err := group.CPU(); err != nil || used >= spec.CPU {
		return wire.KilledCPU
	}
	return ""
}

// measure reads what the run has used. What cannot be read is told in the message and left 0.
func measure(group *cgroup.Group, r *wire.Result) {
	var errs [4]error
	var ooms, refused int64
	r.CPU, errs[0] = group.CPU()
	r.Memory, errs[1] = group.Peak()
	ooms, errs[2] = group.OOMKills()
	refused, errs[3] = group.PidsRefused()
	if r.OOMKilled = ooms > 0; r.OOMKilled && r.Killed == "" {
		r.Killed = wire.KilledMemory
	}
	if err := errors.Join(errs[:]...); err != nil {
		r.Message = wire.Clip(err.Error())
	}
	if refused > 0 {
		r.Message = strings.TrimSpace(fmt.Sprintf("%s the pids limit refused %d forks", r.Message, refused))
	}
}

// process is a stage that has been started, or has failed to.
type process struct {
	cmd      *exec.Cmd
	startErr error
	diag     limited
	done     chan struct{} // closed when the stage, and so its whole pid namespace, is dead
}

// startStage starts the stage in the group. The thread that forks stays until the stage is dead: a stage whose parent thread
// dies, with the broker, is killed by the kernel.
func startStage(group *cgroup.Group, spec wire.Spec, files []*os.File) *process {
	p := &process{done: make(chan struct{})}
	started := make(chan struct{})
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		p.startErr = p.start(group, spec, files)
		close(started)
		if p.startErr != nil {
			return // the thread, which may not have come out of the group, ends with its goroutine
		}
		_ = p.cmd.Wait() // its state is read from cmd.ProcessState
		runtime.UnlockOSThread()
	}()
	<-started
	return p
}

func (p *process) start(group *cgroup.Group, spec wire.Spec, files []*os.File) error {
	encoded, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	p.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{"mayfly-sandbox", "stage"}, Env: []string{"GOMAXPROCS=2"}, Dir: "/",
		Stdin: bytes.NewReader(encoded), Stdout: nil, Stderr: &p.diag,
		ExtraFiles: files, SysProcAttr: stageAttr(),
	}
	err = group.Start(p.cmd.SysProcAttr, p.cmd.Start)
	if err != nil && p.cmd.Process != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) {
		return &wire.Missing{Name: "namespaces", Why: err.Error(), Mend: "allow user namespaces to the broker's user: " +
			"sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, an AppArmor profile with \"userns,\""}
	}
	return err
}

// stageAttr is what makes the stage: new namespaces, one uid that is not 0 inside nor outside, and the few capabilities, valid
// only in its own namespaces, that it needs to furnish them.
func stageAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags:  namespaces(),
		UidMappings: []syscall.SysProcIDMap{{ContainerID: stage.UID, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: stage.UID, HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP},
		Pdeathsig:   unix.SIGKILL,
		Setsid:      true,
	}
}

// namespaces are the clone flags of a sandbox.
func namespaces() uintptr {
	flags := uintptr(unix.CLONE_NEWUSER | unix.CLONE_NEWNS)
	for _, ns := range []struct {
		flag uintptr
		wall takedown.Wall
	}{
		{unix.CLONE_NEWPID, takedown.PIDNamespace},
		{unix.CLONE_NEWNET, takedown.NetNamespace},
		{unix.CLONE_NEWIPC, takedown.IPCNamespace},
		{unix.CLONE_NEWUTS, takedown.UTSNamespace},
		{unix.CLONE_NEWCGROUP, takedown.CgroupNS},
	} {
		if !takedown.Down(ns.wall) {
			flags |= ns.flag
		}
	}
	return flags
}

// kill ends every process of the run: at once where the kernel can, else by way of the pid namespace's init, the stage.
func (p *process) kill(group *cgroup.Group) {
	if p.startErr != nil {
		return
	}
	_ = group.Kill() // the next line does the same
	_ = p.cmd.Process.Kill()
}

// code is the stage's exit code, -1 when it was killed or did not start.
func (p *process) code() int {
	if p.startErr != nil {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// ownLimit is the limit by which the stage has ended the run itself.
func (p *process) ownLimit() string {
	if p.code() == stage.ExitWall {
		return wire.KilledWall
	}
	return ""
}

// err is why the stage failed, nil when it was killed by us or ended as it should.
func (p *process) err() error {
	if p.startErr != nil {
		return fmt.Errorf("start the stage: %w", p.startErr)
	}
	if p.code() != stage.ExitFailed && p.code() != stage.ExitPanic {
		return nil
	}
	var missing wire.Missing
	if err := json.Unmarshal(p.diag.buf, &missing); err == nil && missing.Name != "" {
		return &missing
	}
	return fmt.Errorf("stage failed: %s", bytes.TrimSpace(p.diag.buf))
}

// limited keeps the first 4 KiB of what is written to it.
type limited struct{ buf []byte }

// Write implements io.Writer and never fails.
func (l *limited) Write(b []byte) (int, error) {
	room := max(0, 4096-len(l.buf))
	l.buf = append(l.buf, b[:min(len(b), room)]...)
	return len(b), nil
}
