package bundle

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"mayfly/internal/bot"
)

var sizePattern = regexp.MustCompile(`^([0-9]{1,12}) ?([A-Za-z]+)$`)

// ParseSize reads a number of bytes with its unit: B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024).
func ParseSize(s string) (int64, error) {
	m := sizePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("not a whole number with a unit, B, kB, MB, GB, KiB, MiB or GiB")
	}
	unit := bot.SizeUnit(m[2])
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

// FormatSize writes a number of bytes exactly; ParseSize reads it back.
func FormatSize(n int64) string { return bot.FormatSize(n) }
