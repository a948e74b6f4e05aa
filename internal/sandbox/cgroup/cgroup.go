// Package cgroup gives every run a control group of its own, on cgroup v2 or on v1 hierarchies.
//
// A Tree is a subtree that we own, called mayfly-<pid>-<its start>-<random> after the process that made it:
//
//	v2:  <base>/<tree>/broker         the broker itself
//	     <base>/<tree>/runs           what bounds all runs together
//	     <base>/<tree>/runs/<run>     one for each run
//	v1:  <base>/<tree>                the broker, in each of the hierarchies memory, pids and cpuacct, and cpu where it is needed
//	     <base>/<tree>/runs           likewise
//	     <base>/<tree>/runs/<run>
//
// On v2 the base is our own cgroup when it has been delegated to us (systemd's Delegate=yes, or a cgroup namespace's root),
// and the root of the hierarchy for a root without delegation. On v1 it is our own cgroup. Prepare removes
// the Trees of processes that are dead.
//
// Required are the controllers memory and pids, and cpu for a Ceilings that has Cores. CPU time is read from cpu.stat (v2) or cpuacct (v1).
package cgroup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnavailable is wrapped when this machine gives us no usable cgroups.
var ErrUnavailable = errors.New("no cgroup to limit runs with")

const prefix = "mayfly-"

// Tree is a subtree of ours. V2 is its path on cgroup v2, or empty; V1 has its path for each controller.
type Tree struct {
	V2 string            `json:"v2,omitempty"`
	V1 map[string]string `json:"v1,omitempty"`
}

// Limits of one run.
type Limits struct {
	Memory int64 // bytes, tmpfs included; no swap
	Pids   int   // processes and threads
}

// Ceilings bound all runs of a Tree together; what is 0 is not bounded.
type Ceilings struct {
	Memory int64   // bytes
	Cores  float64 // at a time
}

// controllersV1 are those that a run needs where the hierarchies are of version 1.
func controllersV1() []string { return []string{"memory", "pids", "cpuacct"} }

// needsV1 are those, and what a Ceilings needs besides.
func (c Ceilings) needsV1() []string {
	if c.Cores > 0 {
		return append(controllersV1(), "cpu")
	}
	return controllersV1()
}

// needsV2 is the same for version 2.
func (c Ceilings) needsV2() []string {
	if c.Cores > 0 {
		return []string{"memory", "pids", "cpu"}
	}
	return []string{"memory", "pids"}
}

// The names in a Tree.
const (
	brokerName = "broker"
	runsName   = "runs"
)

// Prepare makes a Tree named after this process and gives it to uid and gid, who may be ourselves. Somebody else can raise none of
// the Ceilings.
func Prepare(uid, gid int, most Ceilings) (*Tree, error) {
	b, err := findBase()
	if err != nil {
		return nil, err
	}
	b.sweep()
	name := treeName()
	if b.v2 != "" {
		return prepareV2(b.v2, name, uid, gid, most)
	}
	return prepareV1(b.v1, name, uid, gid, most)
}

func prepareV1(bases map[string]string, name string, uid, gid int, most Ceilings) (*Tree, error) {
	t := &Tree{V1: make(map[string]string)}
	for _, c := range most.needsV1() {
		if bases[c] == "" {
			return nil, errors.Join(fmt.Errorf("%w: v1 has no %s", ErrUnavailable, c), t.Remove())
		}
		dir := filepath.Join(bases[c], name)
		shared := slices.Contains(t.dirs(), dir) // cpu and cpuacct may be one hierarchy
		t.V1[c] = dir
		if shared {
			continue
		}
		err := makeFor(dir, uid, gid, "cgroup.procs", "tasks")
		if err == nil {
			err = makeFor(filepath.Join(dir, runsName), uid, gid)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: v1 controller %s: %w", ErrUnavailable, c, err), t.Remove())
		}
	}
	if err := t.boundV1(most); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: bound all runs: %w", ErrUnavailable, err), t.Remove())
	}
	return t, nil
}

// period is that in which the kernel counts the cores, in microseconds.
const period = 100_000

func (c Ceilings) quota() string { return strconv.FormatInt(int64(c.Cores*period), 10) }

func (t *Tree) boundV1(most Ceilings) error {
	var errs []error
	if most.Memory > 0 {
		errs = append(errs, write(filepath.Join(t.V1["memory"], runsName), "memory.limit_in_bytes", strconv.FormatInt(most.Memory, 10)))
	}
	if most.Cores > 0 {
		dir := filepath.Join(t.V1["cpu"], runsName)
		errs = append(errs, write(dir, "cpu.cfs_period_us", strconv.Itoa(period)), write(dir, "cpu.cfs_quota_us", most.quota()))
	}
	return errors.Join(errs...)
}

func prepareV2(base, name string, uid, gid int, most Ceilings) (*Tree, error) {
	if err := enable(base, most); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, base, err)
	}
	t := &Tree{V2: filepath.Join(base, name)}
	var err error
	for _, dir := range []string{t.V2, filepath.Join(t.V2, brokerName), filepath.Join(t.V2, runsName)} {
		if err == nil {
			err = makeFor(dir, uid, gid, "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")
		}
		if err == nil && filepath.Base(dir) != brokerName {
			err = enable(dir, most)
		}
	}
	if err == nil {
		err = t.boundV2(most)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnavailable, err), t.Remove())
	}
	return t, nil
}

func (t *Tree) boundV2(most Ceilings) error {
	var errs []error
	dir := filepath.Join(t.V2, runsName)
	if most.Memory > 0 {
		errs = append(errs, write(dir, "memory.max", strconv.FormatInt(most.Memory, 10)))
	}
	if most.Cores > 0 {
		errs = append(errs, write(dir, "cpu.max", fmt.Sprint(most.quota(), " ", period)))
	}
	return errors.Join(errs...)
}

// makeFor makes a cgroup and gives it, and the files by which processes are moved into it, to uid.
func makeFor(dir string, uid, gid int, files ...string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if uid == os.Geteuid() {
		return nil
	}
	for _, f := range append([]string{"."}, files...) {
		if err := os.Chown(filepath.Join(dir, f), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// enable turns the controllers on for the children of a v2 cgroup. Where processes are in the way, they go into a leaf.
func enable(dir string, most Ceilings) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	missing := without(most.needsV2(), strings.Fields(string(have)))
	if len(missing) == 0 {
		return nil
	}
	can, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if lacks := without(missing, strings.Fields(string(can))); len(lacks) > 0 {
		return fmt.Errorf("it is given no %s", strings.Join(lacks, ", "))
	}
	on := "+" + strings.Join(missing, " +")
	err = write(dir, "cgroup.subtree_control", on)
	if errors.Is(err, unix.EBUSY) {
		if err := moveToLeaf(dir); err != nil {
			return err
		}
		err = write(dir, "cgroup.subtree_control", on)
	}
	return err
}

func without(want, have []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(s string) bool { return slices.Contains(have, s) })
}

// moveToLeaf makes dir free of processes of its own, as v2 wants of a cgroup that has children with limits.
func moveToLeaf(dir string) error {
	leaf := filepath.Join(dir, "leaf")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	pids, err := procs(dir)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := write(leaf, "cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %d into %s: %w", pid, leaf, err)
		}
	}
	return nil
}

// Encode gives the Tree as text for Decode, to be passed to the broker.
func (t *Tree) Encode() string {
	b, _ := json.Marshal(t)
	return string(b)
}

// Decode reads what Encode gave.
func Decode(s string) (*Tree, error) {
	var t Tree
	if err := json.Unmarshal([]byte(s), &t); err != nil {
		return nil, fmt.Errorf("cgroup tree: %w", err)
	}
	if t.V2 == "" && len(without(controllersV1(), keys(t.V1))) > 0 {
		return nil, fmt.Errorf("cgroup tree %q: want v2, or v1 with %v", s, controllersV1())
	}
	return &t, nil
}

func keys(m map[string]string) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

// Join moves the calling process into the Tree, to where the broker belongs. Only from there can it start runs.
func (t *Tree) Join() error {
	if t.V2 != "" {
		return write(filepath.Join(t.V2, brokerName), "cgroup.procs", "0")
	}
	for _, dir := range t.V1 {
		if err := write(dir, "cgroup.procs", "0"); err != nil {
			return err
		}
	}
	return nil
}

// Home opens the broker's own cgroup on v2, for a parent that starts it there, or gives nil on v1.
func (t *Tree) Home() (*os.File, error) {
	if t.V2 == "" {
		return nil, nil
	}
	return os.Open(filepath.Join(t.V2, brokerName))
}

// Version is 2 or 1.
func (t *Tree) Version() int {
	if t.V2 != "" {
		return 2
	}
	return 1
}

// Remove kills what is left in the Tree and removes it.
func (t *Tree) Remove() error {
	var errs []error
	for _, dir := range t.dirs() {
		errs = append(errs, removeAll(dir))
	}
	return errors.Join(errs...)
}

// Empty removes the runs of the Tree and leaves the Tree.
func (t *Tree) Empty() error {
	var errs []error
	for _, dir := range t.dirs() {
		for _, child := range children(filepath.Join(dir, runsName)) {
			errs = append(errs, removeAll(child))
		}
	}
	return errors.Join(errs...)
}

func (t *Tree) dirs() []string {
	if t.V2 != "" {
		return []string{t.V2}
	}
	var ds []string
	for _, d := range t.V1 {
		if !slices.Contains(ds, d) {
			ds = append(ds, d)
		}
	}
	return ds
}

// removeAll removes a cgroup and those beneath it, and kills the processes that it finds there.
func removeAll(dir string) error {
	for _, child := range children(dir) {
		if err := removeAll(child); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		killProcs(dir)
		time.Sleep(time.Millisecond)
	}
}

func children(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var cs []string
	for _, e := range entries {
		if e.IsDir() {
			cs = append(cs, filepath.Join(dir, e.Name()))
		}
	}
	return cs
}

func killProcs(dir string) {
	pids, _ := procs(dir)
	for _, pid := range pids {
		if pid > 1 && pid != os.Getpid() {
			unix.Kill(pid, unix.SIGKILL)
		}
	}
}

func procs(dir string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s/cgroup.procs: %q", dir, f)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func readInt(dir, file string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
}

// readKey reads one value of a file of "key value" lines.
func readKey(dir, file, key string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), key+" "); ok {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, fmt.Errorf("%s/%s has no %s", dir, file, key)
}
