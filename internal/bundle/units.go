package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var sizePattern = regexp.MustCompile(`^([0-9]{1,12}) ?([A-Za-z]+)$`)

// ParseSize reads a number of bytes with its unit: B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024).
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("not a whole number with a unit, B, kB, MB, GB, KiB, MiB or GiB")
	}
	unit := unitBytes(m[2])
	if unit == 0 {
		if near := nearest(m[2], []string{"B", "kB", "MB", "GB", "KiB", "MiB", "GiB"}); near != "" {
			return 0, fmt.Errorf("unit %q is unknown, did you mean %q", m[2], near)
		}
		return 0, fmt.Errorf("unit %q is unknown, known are B, kB, MB, GB, KiB, MiB, GiB", m[2])
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > (1<<62)/unit {
		return 0, errors.New("too large")
	}
	return n * unit, nil
}

func unitBytes(unit string) int64 {
	switch unit {
	case "B":
		return 1
	case "kB":
		return 1e3
	case "MB":
		return 1e6
	case "GB":
		return 1e9
	case "KiB":
		return 1 << 10
	case "MiB":
		return 1 << 20
	case "GiB":
		return 1 << 30
	}
	return 0
}

// FormatSize writes a number of bytes exactly, in the largest unit that divides it; ParseSize reads it back.
func FormatSize(n int64) string {
	for _, unit := range strings.Fields("GB GiB MB MiB kB KiB") {
		if size := unitBytes(unit); n >= size && n%size == 0 {
			return fmt.Sprintf("%d%s", n/size, unit)
		}
	}
	return fmt.Sprintf("%dB", n)
}
