package cgroup

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// base is where a Tree can be made.
type base struct {
	v2 string
	v1 map[string]string // controller → our own cgroup's path
}

// mount is one cgroup mount of /proc/self/mountinfo.
type mount struct {
	root, point string
	v2          bool
	options     []string // the superblock's: on v1 they name the controllers
}

// findBase finds our own, ready to make a Tree in.
func findBase() (base, error) {
	mounts, paths, err := readProc("self")
	if err != nil {
		return base{}, err
	}
	if dir := baseV2(mounts, paths); dir != "" {
		return base{v2: dir}, nil
	}
	v1 := basesV1(mounts, paths)
	if missing := without(controllersV1(), keys(v1)); len(missing) > 0 {
		return base{}, fmt.Errorf("%w: cgroup v2 has no memory and pids controllers for us, and v1 has no %s", ErrUnavailable,
			strings.Join(missing, ", "))
	}
	return base{v1: v1}, nil
}

// readProc reads which cgroup hierarchies we see, and the path in each of a process: a pid, or self.
func readProc(pid string) ([]mount, map[string]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	own, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return parseMounts(string(info)), parseOwn(string(own)), nil
}

// parseMounts reads mountinfo (proc_pid_mountinfo(5)) and keeps the cgroup mounts.
func parseMounts(info string) []mount {
	var ms []mount
	for sc := bufio.NewScanner(strings.NewReader(info)); sc.Scan(); {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 || r[0] != "cgroup" && r[0] != "cgroup2" {
			continue
		}
		ms = append(ms, mount{root: l[3], point: l[4], v2: r[0] == "cgroup2", options: strings.Split(r[2], ",")})
	}
	return ms
}

// parseOwn reads /proc/self/cgroup (cgroups(7)): the path for each controller, that of v2 under "".
func parseOwn(own string) map[string]string {
	paths := make(map[string]string)
	for sc := bufio.NewScanner(strings.NewReader(own)); sc.Scan(); {
		parts := strings.SplitN(sc.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for c := range strings.SplitSeq(parts[1], ",") {
			paths[c] = parts[2]
		}
	}
	return paths
}

// dir is where the cgroup path is seen under the mount. A path outside of what is mounted counts as the mount's root.
func (m mount) dir(path string) string {
	rel, err := filepath.Rel(m.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return m.point
	}
	return filepath.Join(m.point, rel)
}

func basesV1(mounts []mount, paths map[string]string) map[string]string {
	v1 := make(map[string]string)
	for _, c := range append(controllersV1(), "cpu") {
		for _, m := range mounts {
			if path, ok := paths[c]; ok && !m.v2 && slices.Contains(m.options, c) {
				v1[c] = m.dir(path)
			}
		}
	}
	return v1
}

// baseV2 is the v2 cgroup to work in, or empty when there is none that has the controllers and is ours to write.
func baseV2(mounts []mount, paths map[string]string) string {
	for _, m := range mounts {
		path, ok := paths[""]
		if !m.v2 || !ok {
			continue
		}
		for _, dir := range []string{m.dir(path), m.point} {
			if dir == m.point && os.Geteuid() != 0 || os.Geteuid() == 0 && dir != m.point && !delegated(dir) {
				continue
			}
			if hasControllers(dir) && unix.Access(dir, unix.W_OK) == nil {
				return dir
			}
		}
	}
	return ""
}

// delegated reports whether systemd has marked the cgroup as handed over (Delegate=yes).
func delegated(dir string) bool {
	var b [8]byte
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		if n, err := unix.Getxattr(dir, name, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

func hasControllers(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && len(without([]string{"memory", "pids"}, strings.Fields(string(b)))) == 0
}

// sweep removes the trees of processes that are dead. What cannot be removed is left for the next time.
func (b base) sweep() {
	dirs := []string{b.v2}
	for _, d := range b.v1 {
		dirs = append(dirs, d)
	}
	for _, dir := range dirs {
		for _, child := range children(dir) {
			if orphaned(filepath.Base(child)) {
				_ = removeAll(child)
			}
		}
	}
}

// treeName tells who made a Tree: a process's id, and when that process was started, for ids come again.
func treeName() string {
	pid := os.Getpid()
	return fmt.Sprintf("%s%d-%s-%s", prefix, pid, startOf(pid), strings.ToLower(rand.Text()[:8]))
}

// orphaned reports whether a name is that of a Tree whose maker is dead.
func orphaned(name string) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	parts := strings.Split(rest, "-")
	pid, err := strconv.Atoi(parts[0])
	if !ours || err != nil || len(parts) < 2 {
		return false
	}
	if unix.Kill(pid, 0) == unix.ESRCH {
		return true
	}
	start := startOf(pid)
	return len(parts) == 3 && start != "" && start != parts[1]
}

// startOf is when a process was started, in ticks since the boot; "" where that cannot be read.
func startOf(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // a name may have spaces
	const start = 22 - 3
	if err != nil || len(fields) <= start {
		return ""
	}
	return fields[start]
}
