package bot

import (
	"fmt"
	"strings"
)

// SizeUnit is how many bytes a unit stands for: B, kB, MB, GB (powers of 1000), KiB, MiB, GiB (powers of 1024); 0 for others.
func SizeUnit(unit string) int64 {
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

// FormatSize writes a number of bytes exactly, in the largest unit that divides it, as a manifest has it: for limits.
func FormatSize(n int64) string {
	for _, unit := range strings.Fields("GB GiB MB MiB kB KiB") {
		if size := SizeUnit(unit); n >= size && n%size == 0 {
			return fmt.Sprintf("%d%s", n/size, unit)
		}
	}
	return fmt.Sprintf("%dB", n)
}

// RoundSize writes a number of bytes as people read it, to two or three digits: for amounts.
func RoundSize(n int64) string {
	x, unit := float64(n), "B"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if x < 999.5 {
			break
		}
		x, unit = x/1000, larger
	}
	if unit != "B" && x < 9.95 {
		return fmt.Sprintf("%.1f %s", x, unit)
	}
	return fmt.Sprintf("%.0f %s", x, unit)
}
