package bench

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine says how busy the machine is, from /proc/loadavg and from what its CPUs do in the next two seconds (/proc/stat),
// in which the caller should do nothing.
func Machine() (string, error) {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	idle, all, err := cpuTimes()
	if err != nil {
		return "", err
	}
	time.Sleep(2 * time.Second)
	idle2, all2, err := cpuTimes()
	if err != nil {
		return "", err
	}
	averages := strings.Join(strings.Fields(string(load))[:3], " ")
	return fmt.Sprintf("load average %s; %d CPUs, %.0f%% idle", averages, runtime.NumCPU(), 100*float64(idle2-idle)/float64(all2-all)), nil
}

// cpuTimes reads the first line of /proc/stat (proc(5)): in clock ticks, how long all CPUs were idle, and the sum of what they did.
func cpuTimes() (idle, all int64, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line)[1:] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i == 3 || i == 4 { // idle, and waiting for a disk
			idle += ticks
		}
		if i < 8 { // guests are counted as users too
			all += ticks
		}
	}
	return idle, all, nil
}
