package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/stage/takedown"
)

// Group is the cgroup of one run.
type Group struct {
	tree *Tree
	name string
	dir  *os.File // v2: for SysProcAttr.CgroupFD
}

// NewGroup makes a cgroup with the limits set.
func (t *Tree) NewGroup(name string, l Limits) (*Group, error) {
	g := &Group{tree: t, name: name}
	for _, dir := range t.dirs() {
		if err := os.Mkdir(filepath.Join(dir, runsName, name), 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("make cgroup: %w", err), g.Remove())
		}
	}
	if takedown.Down(takedown.Memory) {
		l.Memory = unlimited
	}
	if takedown.Down(takedown.Pids) {
		l.Pids = 1 << 20
	}
	limit := g.limitV1
	if t.V2 != "" {
		limit = g.limitV2
	}
	if err := limit(l); err != nil {
		return nil, errors.Join(fmt.Errorf("limit cgroup: %w", err), g.Remove())
	}
	return g, nil
}

// unlimited is more memory than there is.
const unlimited = 1 << 50

func (g *Group) limitV2(l Limits) error {
	dir := g.v2()
	if err := write(dir, "memory.max", strconv.FormatInt(l.Memory, 10)); err != nil {
		return err
	}
	if err := write(dir, "pids.max", strconv.Itoa(l.Pids)); err != nil {
		return err
	}
	if err := write(dir, "memory.oom.group", "1"); err != nil {
		return err
	}
	if err := optional(write(dir, "memory.swap.max", "0")); err != nil {
		return err
	}
	f, err := os.Open(dir)
	g.dir = f
	return err
}

// tcpBuffersV1 bounds what a run's sockets hold, in bytes. On v1 it counts apart from the memory, and only when it has a limit.
const tcpBuffersV1 = 16 << 20

func (g *Group) limitV1(l Limits) error {
	memory, bytes := g.v1("memory"), strconv.FormatInt(l.Memory, 10)
	if err := write(memory, "memory.limit_in_bytes", bytes); err != nil {
		return err
	}
	if err := optional(write(memory, "memory.memsw.limit_in_bytes", bytes)); err != nil {
		return err
	}
	if err := optional(write(memory, "memory.swappiness", "0")); err != nil {
		return err
	}
	if err := optional(write(memory, "memory.kmem.tcp.limit_in_bytes", strconv.Itoa(tcpBuffersV1))); err != nil {
		return err
	}
	return write(g.v1("pids"), "pids.max", strconv.Itoa(l.Pids))
}

// optional passes over a file that the kernel does not have: without swap accounting there is no swap limit to set.
func optional(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (g *Group) v1(controller string) string {
	return filepath.Join(g.tree.V1[controller], runsName, g.name)
}

func (g *Group) v2() string { return filepath.Join(g.tree.V2, runsName, g.name) }

// Start calls start, which forks a process, such that the process is in the group from its first instruction. The calling
// goroutine must be locked to its thread: on v1 the thread itself enters the group for the time of the fork.
func (g *Group) Start(attr *syscall.SysProcAttr, start func() error) error {
	if g.dir != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.dir.Fd())
		return start()
	}
	for c := range g.tree.V1 {
		if err := write(g.v1(c), "tasks", "0"); err != nil {
			return errors.Join(fmt.Errorf("enter cgroup: %w", err), g.leave())
		}
	}
	return errors.Join(start(), g.leave())
}

// leave moves the calling thread back to the Tree's own cgroups.
func (g *Group) leave() error {
	for _, dir := range g.tree.dirs() {
		if err := write(dir, "tasks", "0"); err != nil {
			return fmt.Errorf("leave cgroup: %w", err)
		}
	}
	return nil
}

// CPU is the CPU time used so far by all processes, dead ones included.
func (g *Group) CPU() (time.Duration, error) {
	if g.tree.V2 != "" {
		us, err := readKey(g.v2(), "cpu.stat", "usage_usec")
		return time.Duration(us) * time.Microsecond, err
	}
	ns, err := readInt(g.v1("cpuacct"), "cpuacct.usage")
	return time.Duration(ns), err
}

// Peak is the most memory that was used at a time, in bytes. Kernels before 5.19 do not tell on v2: 0.
func (g *Group) Peak() (int64, error) {
	if g.tree.V2 != "" {
		n, err := readInt(g.v2(), "memory.peak")
		return n, optional(err)
	}
	return readInt(g.v1("memory"), "memory.max_usage_in_bytes")
}

// OOMKills counts the processes that the kernel killed for want of memory.
func (g *Group) OOMKills() (int64, error) {
	if g.tree.V2 != "" {
		return readKey(g.v2(), "memory.events", "oom_kill")
	}
	return readKey(g.v1("memory"), "memory.oom_control", "oom_kill")
}

// PidsRefused counts the forks that failed at the pids limit.
func (g *Group) PidsRefused() (int64, error) {
	dir := g.v2()
	if g.tree.V2 == "" {
		dir = g.v1("pids")
	}
	return readKey(dir, "pids.events", "max")
}

// Kill ends all processes at once where the kernel can (v2). On v1 the caller kills the pid namespace's init.
func (g *Group) Kill() error {
	if g.tree.V2 == "" {
		return nil
	}
	return optional(write(g.v2(), "cgroup.kill", "1"))
}

// Remove kills what is left and removes the group.
func (g *Group) Remove() error {
	if g.dir != nil {
		g.dir.Close()
	}
	var errs []error
	for _, dir := range g.tree.dirs() {
		errs = append(errs, removeAll(filepath.Join(dir, runsName, g.name)))
	}
	return errors.Join(errs...)
}

// LimitsOf reads back the memory limit in bytes and the pids limit of the cgroup that a process is in.
func LimitsOf(pid int) (memory, pids int64, err error) {
	mounts, paths, err := readProc(strconv.Itoa(pid))
	if err != nil {
		return 0, 0, err
	}
	memoryFile, dirs := "memory.limit_in_bytes", basesV1(mounts, paths)
	for _, m := range mounts {
		if dir := m.dir(paths[""]); m.v2 && hasControllers(dir) {
			memoryFile, dirs = "memory.max", map[string]string{"memory": dir, "pids": dir}
		}
	}
	memory, err = readInt(dirs["memory"], memoryFile)
	if err != nil {
		return 0, 0, err
	}
	pids, err = readInt(dirs["pids"], "pids.max")
	return memory, pids, err
}
