package bot

import "testing"

func TestRoundSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 12_345: "12 kB", 999_499: "999 kB", 999_500: "1.0 MB",
		1 << 40: "1.1 TB", 1 << 62: "4611686 TB"} {
		if got := RoundSize(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
