//go:build crash

package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// At kills, if it is this step's turn.
func At(s Step) {
	file := os.Getenv("MAYFLY_CRASH")
	text, err := os.ReadFile(file)
	victim, ok := strings.CutPrefix(strings.TrimSpace(string(text)), string(s)+" ")
	if err != nil || !ok || os.Rename(file, file+".done") != nil { // of two goroutines, one renames it
		return
	}
	if victim == "daemon" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	_ = os.WriteFile(file+".killed", []byte(strconv.Itoa(Kill(os.Getpid(), victim))), 0o600)
}

// Kill kills every victim below a daemon, and returns how many there were.
func Kill(daemon int, victim string) (killed int) {
	for _, pid := range below(daemon) {
		if isA(pid, victim) && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

// below lists all descendants of a process.
func below(pid int) []int {
	var all []int
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), below(child)...)
			}
		}
	}
	return all
}

func isA(pid int, victim string) bool {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := bytes.Split(line, []byte{0})
	launched := func(name string) bool { return bytes.Contains(line, []byte(`"Program":{"name":"`+name+`"`)) }
	switch victim {
	case "broker", "stage":
		return len(args) > 1 && string(args[1]) == victim
	case "core":
		return string(args[0]) == "core" || launched("core")
	case "worker":
		return launched("bot")
	}
	return false
}
