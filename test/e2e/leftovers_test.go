package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// traces are the things that a host could leave on a machine, as seen from outside.
type traces map[string][]string

// snapshot lists them.
func snapshot() traces {
	return traces{
		"process":    processes(),
		"cgroup":     cgroups(),
		"mount":      linesWith("/proc/self/mountinfo", ""),
		"socket":     linesWith("/proc/net/unix", "mayfly"),
		"temp entry": tempEntries(),
	}
}

// leftovers describes what is there now and was not there before. What is on its way out gets a second to go.
func leftovers(before traces) string {
	var left strings.Builder
	for range 20 {
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

func processes() []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		line := strings.ReplaceAll(string(text), "\x00", " ")
		comm, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "comm"))
		if strings.Contains(line, "mayfly-sandbox") || strings.Contains(line, "mayfly serve") || strings.Contains(line, "deltachat-rpc") ||
			strings.HasPrefix(string(comm), "deltachat-rpc") || strings.HasPrefix(line, "stage") || strings.HasPrefix(line, "broker") {
			found = append(found, filepath.Base(filepath.Dir(path))+" "+line)
		}
	}
	return found
}

func cgroups() []string {
	var found []string
	// Walking goes on past what vanishes meanwhile.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(entry.Name(), "mayfly") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

func linesWith(path, text string) []string {
	content, err := os.ReadFile(path)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

func tempEntries() []string {
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), "mayfly*")) // the pattern is well-formed
	return found
}
