package bench

import (
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		n    int
		q    float64
		want time.Duration
	}{
		{1, 0.5, 1}, {1, 0.95, 1}, {2, 0.5, 1}, {3, 0.5, 2}, {30, 0.5, 15}, {30, 0.95, 29}, {100, 0.95, 95}, {100, 1, 100},
	} {
		var times []time.Duration
		for i := test.n; i > 0; i-- {
			times = append(times, time.Duration(i))
		}
		if got := Quantile(times, test.q); got != test.want {
			t.Errorf("the quantile %v of 1 to %d is %d, want %d", test.q, test.n, got, test.want)
		}
	}
}

func TestPrint(t *testing.T) {
	var b strings.Builder
	times := []time.Duration{time.Millisecond, 3 * time.Millisecond}
	Print(&b, []Row{{Name: "a", Times: times}, {Name: "b", Times: times, Base: []time.Duration{4 * time.Millisecond}, CPU: time.Millisecond / 2}})
	want := "a 2 1.000 3.000 b 2 1.000 3.000 0.25 500 0.500"
	if got := strings.Join(strings.Fields(b.String()), " "); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
