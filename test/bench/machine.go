package bench

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Quiet waits until the CPUs are idle for nine tenths of two seconds, five minutes at most, and says how busy the machine is then,
// from /proc/loadavg and /proc/stat. The caller should do nothing meanwhile.
func Quiet() (string, error) {
	const enough, patience = 0.9, 5 * time.Minute
	for start := time.Now(); ; {
		load, err := os.ReadFile("/proc/loadavg")
		if err != nil {
			return "", err
		}
		share, err := idleShare(2 * time.Second)
		if err != nil {
			return "", err
		}
		if share < enough && time.Since(start) < patience {
			continue
		}
		averages := strings.Join(strings.Fields(string(load))[:3], " ")
		text := fmt.Sprintf("load average %s; %d CPUs, %.0f%% idle", averages, runtime.NumCPU(), 100*share)
		if share < enough {
			text += ": BUSY, measure again"
		}
		return text, nil
	}
}

// idleShare is the share of a time that the CPUs were idle.
func idleShare(d time.Duration) (float64, error) {
	idle, all, err := cpuTimes()
	if err != nil {
		return 0, err
	}
	time.Sleep(d)
	idle2, all2, err := cpuTimes()
	return float64(idle2-idle) / float64(max(all2-all, 1)), err
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
