package worker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary be the worker: a fresh process is what is measured, and what the sandbox starts.
func TestMain(m *testing.M) {
	if bundle := os.Getenv("MAYFLY_TEST_WORKER"); bundle != "" {
		os.Exit(Run(context.Background(), Options{Bundle: bundle, Tmp: bundle, Storage: bundle, In: os.Stdin, Out: os.Stdout, Log: os.Stderr}))
	}
	os.Exit(m.Run())
}

type workerProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startWorker(tb testing.TB, bundle string) *workerProcess {
	tb.Helper()
	p := &workerProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = []string{"MAYFLY_TEST_WORKER=" + bundle}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	p.want(tb, `{"method":"ready"}`)
	return p
}

func (p *workerProcess) want(tb testing.TB, beginning string) {
	tb.Helper()
	if !p.out.Scan() || !strings.HasPrefix(p.out.Text(), beginning) {
		tb.Fatalf("got %q, want %s", p.out.Text(), beginning)
	}
}

// roll has the dice bot answer one message, to the process's end, and returns the process's peak RSS in kB.
func (p *workerProcess) roll(tb testing.TB) int {
	tb.Helper()
	fmt.Fprintln(p.in, `{"job":{"event":"message","main":"main.js","account":1,"message":{"id":12,"text":"2d6"},"chat":{"id":10}}}`)
	p.want(tb, `{"method":"entered"}`)
	p.want(tb, `{"jsonrpc":"2.0","id":1,"method":"send_msg"`)
	rss := p.peakRSS(tb)
	fmt.Fprintln(p.in, `{"jsonrpc":"2.0","id":1,"result":13}`)
	p.want(tb, `{"method":"done","params":{"status":"OK"}}`)
	if err := p.cmd.Wait(); err != nil {
		tb.Fatal(err)
	}
	return rss
}

// peakRSS reads VmHWM: the rusage of a child counts what its parent had before exec.
func (p *workerProcess) peakRSS(tb testing.TB) int {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		tb.Fatal(err)
	}
	var kB int
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kB); err != nil {
		tb.Fatal(err)
	}
	return kB
}

func TestProcess(t *testing.T) {
	startWorker(t, "../../examples/dice").roll(t)
}

// BenchmarkProcess reports the milliseconds from exec to ready, from the job to the exit, of CPU in all, and the peak RSS in MB.
func BenchmarkProcess(b *testing.B) {
	var ready, job time.Duration
	var rss int
	var cpu time.Duration
	for b.Loop() {
		start := time.Now()
		p := startWorker(b, "../../examples/dice")
		up := time.Now()
		rss = max(rss, p.roll(b))
		ready += up.Sub(start)
		job += time.Since(up)
		cpu += p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(ms(ready), "ready-ms")
	b.ReportMetric(ms(job), "job-ms")
	b.ReportMetric(ms(cpu), "cpu-ms")
	b.ReportMetric(float64(rss)/1024, "RSS-MB")
}
