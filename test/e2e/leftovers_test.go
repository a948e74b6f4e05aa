package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// traces are the things that a host could leave on a machine, as seen from outside, by kind.
type traces map[string][]string

// adopt makes this process the parent of what its dead children leave, so that an orphan is seen as ours, and one of a
// neighbour's is not.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// snapshot lists what is there now and is ours.
func snapshot() traces {
	ours, others := family()
	return traces{
		"process":    ours,
		"cgroup":     cgroups(),
		"mount":      lines("/proc/self/mountinfo"),
		"socket":     sockets(others),
		"temp entry": tempEntries(),
	}
}

// leftovers describes what is there now and was not there before. What is on its way out gets two seconds to go.
func leftovers(before traces) string {
	var left strings.Builder
	for range 40 {
		left.Reset()
		for kind, now := range snapshot() {
			for _, item := range now {
				if !slices.Contains(before[kind], item) {
					fmt.Fprintf(&left, "  %s: %s\n", kind, item)
				}
			}
		}
		if left.Len() == 0 {
			return ""
		}
		time.Sleep(50 * time.Millisecond)
	}
	return left.String()
}

// family lists our descendants that live, with their command lines, and the process ids of everybody else.
func family() (ours []string, others []int) {
	parents := map[int]int{}
	for _, path := range glob("/proc/[0-9]*/stat") {
		if pid, parent, ok := readStat(path); ok {
			parents[pid] = parent
		}
	}
	self := os.Getpid()
	for pid := range parents {
		switch {
		case pid == self:
		case descends(parents, pid, self):
			command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty when it has ended meanwhile
			ours = append(ours, fmt.Sprint(pid, " ", strings.ReplaceAll(string(command), "\x00", " ")))
		default:
			others = append(others, pid)
		}
	}
	return ours, others
}

// readStat reads the ids from /proc/<pid>/stat; a zombie does not count.
func readStat(path string) (pid, parent int, ok bool) {
	text, err := os.ReadFile(path)
	end := strings.LastIndexByte(string(text), ')')
	if err != nil || end < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(string(text[end+1:]))
	pid, err = strconv.Atoi(filepath.Base(filepath.Dir(path)))
	if err != nil || len(fields) < 2 || fields[0] == "Z" {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return pid, parent, err == nil
}

func descends(parents map[int]int, pid, from int) bool {
	for range 100 {
		if pid == from {
			return true
		}
		parent, ok := parents[pid]
		if !ok || parent == 0 {
			return false
		}
		pid = parent
	}
	return false
}

// cgroups lists those that one of our hosts or users could have made: the names carry the pid of their maker.
func cgroups() []string {
	var found []string
	// Walking goes on past what vanishes meanwhile.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && slices.ContainsFunc(hostPIDs, func(pid int) bool {
			return strings.Contains(path, fmt.Sprintf("/mayfly-%d-", pid))
		}) {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// sockets lists the unix sockets with our name that no process of somebody else holds.
func sockets(others []int) []string {
	held := map[string]bool{}
	for _, pid := range others {
		for _, fd := range glob(fmt.Sprintf("/proc/%d/fd/*", pid)) {
			if target, err := os.Readlink(fd); err == nil {
				held[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
			}
		}
	}
	var found []string
	for _, line := range lines("/proc/net/unix") {
		fields := strings.Fields(line)
		if len(fields) >= 8 && strings.Contains(fields[7], "mayfly") && !held[fields[6]] {
			found = append(found, line)
		}
	}
	return found
}

// tempEntries lists ours, without what a neighbour's run of these tests builds.
func tempEntries() []string {
	return slices.DeleteFunc(glob(filepath.Join(os.TempDir(), "mayfly-*")), func(path string) bool {
		return strings.HasPrefix(filepath.Base(path), "mayfly-e2e-bin-")
	})
}

func lines(path string) []string {
	content, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

func glob(pattern string) []string {
	found, _ := filepath.Glob(pattern) // the patterns are well-formed
	return found
}

// TestLeftoversAreSeen shows that the check at the end of the e2e can fail.
func TestLeftoversAreSeen(t *testing.T) {
	before := snapshot()
	dir, err := os.MkdirTemp("", "mayfly-left-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	if left := leftovers(before); !strings.Contains(left, dir) {
		t.Errorf("a folder left in /tmp is not seen: %q", left)
	}
}
