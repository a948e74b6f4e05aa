package sandbox

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLimitsEndTheRun(t *testing.T) {
	tests := []struct {
		name    string
		attempt string
		change  func(*Spec)
		killed  string
		oom     bool
		most    time.Duration
	}{
		{"wall clock", "sleep=1h", func(s *Spec) { s.Wall = 300 * time.Millisecond }, "wall", false, time.Second},
		{"cpu time", "spin", func(s *Spec) { s.CPU = 200 * time.Millisecond }, "cpu", false, 2 * time.Second},
		{"memory", "memory=1073741824", func(s *Spec) { s.Memory = 32 << 20 }, "memory", true, 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := testSpec(tt.attempt, "whoami")
			tt.change(&spec)
			s := open(t, spec)
			begun := time.Now()
			if err := s.Start("probe"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-s.Dead():
			case <-time.After(tt.most):
				t.Errorf("the run still lives after %s", tt.most)
			}
			if reports := readReports(t, s.Program("probe")); len(reports) > 0 {
				t.Errorf("the attempt came to its end: %+v", reports)
			}
			r, err := s.Close()
			if err != nil || r.Killed != tt.killed || r.OOMKilled != tt.oom {
				t.Errorf("after %s: %+v, %v; want killed by %q", time.Since(begun), r, err, tt.killed)
			}
			if limit := spec.Memory + 3<<20; r.Memory == 0 || r.Memory > limit || r.CPU == 0 || r.Wall == 0 {
				t.Errorf("implausible record %+v", r)
			}
		})
	}
}

func TestPidsLimitStopsThreads(t *testing.T) {
	spec := testSpec("threads")
	spec.Pids = 40
	s := open(t, spec)
	reports, exit := probe(t, s, "probe")
	if len(reports) > 0 || exit.Code != 2 {
		t.Errorf("ended with %+v, %+v; want the Go runtime's exit for want of threads", exit, reports)
	}
	r, err := s.Close()
	if err != nil || !strings.Contains(r.Message, "pids limit refused") {
		t.Errorf("result %+v, %v; want a message about the pids limit", r, err)
	}
}

func TestOutputWaitsForTheReader(t *testing.T) {
	s := open(t, testSpec("output"))
	if err := s.Start("probe"); err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, s.Program("probe").Stdout, 1<<20); err != nil || n != 1<<20 {
		t.Fatal(n, err)
	}
	r, err := s.Close()
	if err != nil || r.Memory > 32<<20 {
		t.Errorf("output that nobody reads took memory: %+v, %v", r, err)
	}
}

// TestFullSocketsTakeLittle: what is written to connections that nobody has accepted is in no memory limit of the kernel's, and
// what they all may take together is the host's.
func TestFullSocketsTakeLittle(t *testing.T) {
	spec := testSpec("flood=127.0.0.1:143", "flood=127.0.0.1:587")
	spec.Programs[0].Profile = ProfileCore
	spec.Listen = []uint16{143, 587}
	s := open(t, spec)
	reports, exit := probe(t, s, "probe")
	if len(reports) != 2 {
		t.Fatalf("got %+v, %+v", reports, exit)
	}
	sum := 0
	for _, r := range reports {
		n, err := strconv.Atoi(r.Text)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		sum += n
	}
	if most := int(spec.Memory) + 16<<20; sum == 0 || sum > most {
		t.Errorf("%d bytes were written to sockets that nobody reads, want some and at most %d", sum, most)
	}
}

func TestMethodsAfterDeath(t *testing.T) {
	spec := testSpec("wait")
	spec.Wall = 200 * time.Millisecond
	s := open(t, spec)
	<-s.Dead()
	_, get := s.GetFile("/data/x", 10)
	_, collect := s.Collect("/data")
	_, wait := s.Wait(context.Background(), "probe")
	errs := map[string]error{
		"Put": s.Put("/data", strings.NewReader("")), "PutFile": s.PutFile("/data/x", 0, strings.NewReader("")), "GetFile": get,
		"Seal": s.Seal("/data"), "Start": s.Start("probe"), "Kill": s.Kill(), "Collect": collect, "Wait": wait,
	}
	for name, err := range errs {
		if !errors.Is(err, ErrDead) || !strings.Contains(err.Error(), "wall clock") {
			t.Errorf("%s: got %v, want ErrDead and the wall clock", name, err)
		}
	}
	for range 2 {
		if r, err := s.Close(); err != nil || r.Killed != "wall" {
			t.Errorf("Close: %+v, %v", r, err)
		}
	}
}

func TestCloseEndsACollectionInTheMiddle(t *testing.T) {
	s := open(t, testSpec("fill=/data/x"))
	probe(t, s, "probe")
	r, err := s.Collect("/data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, ErrDead) {
		t.Errorf("reading on: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	spec := testSpec()
	if _, err := broker.Client().Open(expired, spec); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
	spec.Name = "Has Spaces"
	if _, err := broker.Client().Open(t.Context(), spec); !errors.Is(err, ErrSpec) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := NewClient("@mayfly-nobody").Open(t.Context(), testSpec()); err == nil || !strings.Contains(err.Error(), "is mayfly-sandbox running?") {
		t.Errorf("no broker: %v", err)
	}
}
