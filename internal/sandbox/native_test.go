package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nativeSpec is a sandbox in which one program of the host's runs, as a bot's does.
func nativeSpec(path string, args ...string) Spec {
	return Spec{
		Name: "native", Memory: 128 << 20, Pids: 64, Wall: 20 * time.Second, System: true,
		Dirs: []Dir{
			{Path: "/bundle", Size: 8 << 20, Inodes: 100, Exec: true},
			{Path: "/storage", Size: 1 << 20, Inodes: 100, Writable: true},
			{Path: "/tmp", Size: 1 << 20, Inodes: 100, Writable: true},
		},
		Programs: []Program{{Name: "main", Path: path, Profile: ProfileNative, Args: args, Dir: "/bundle",
			Env: []string{"PATH=/usr/bin:/bin", "HOME=/storage", "TMPDIR=/tmp"}}},
	}
}

// nativeRun is what became of a native program.
type nativeRun struct {
	stdout, stderr string
	exit           Exit
	result         Result
}

func runNative(t testing.TB, spec Spec, stdin string, env ...string) nativeRun {
	t.Helper()
	s := open(t, spec)
	if err := s.Start("main", env...); err != nil {
		t.Fatal(err)
	}
	return endNative(t, s, stdin)
}

func endNative(t testing.TB, s *Sandbox, stdin string) (run nativeRun) {
	t.Helper()
	p := s.Program("main")
	go func() {
		io.WriteString(p.Stdin, stdin)
		p.Stdin.Close()
	}()
	errs := make(chan string)
	go func() {
		b, _ := io.ReadAll(p.Stderr)
		errs <- string(b)
	}()
	out, _ := io.ReadAll(p.Stdout)
	run.stdout, run.stderr = string(out), <-errs
	var err error
	if run.exit, err = s.Wait(t.Context(), "main"); err != nil {
		t.Log(err)
	}
	if run.result, err = s.Close(); err != nil {
		t.Fatal(err)
	}
	return run
}

func TestNativePrograms(t *testing.T) {
	for _, test := range []struct {
		name, path string
		args       []string
		want       string
	}{
		{"sh", "/usr/bin/sh", []string{"-c", "read line; echo $line $EXTRA $HOME; id -u; pwd; cat /etc/passwd"}, "hello more /storage\n65534\n/bundle\nnobody:"},
		{"python3", "/usr/bin/python3", []string{"-c", "import os,sys,subprocess,json,ssl,sqlite3,ctypes; print(sys.stdin.read(), os.environ['EXTRA'], subprocess.check_output(['uname']).decode())"}, "hello\n more Linux"},
		{"node", "/usr/bin/node", []string{"-e", "console.log(require('fs').readFileSync(0,'utf8'), process.env.EXTRA, require('child_process').execSync('uname')+'')"}, "hello\n more Linux"},
		{"perl", "/usr/bin/perl", []string{"-e", "print <STDIN>, $ENV{EXTRA}"}, "hello\nmore"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := runNative(t, nativeSpec(test.path, test.args...), "hello\n", "EXTRA=more")
			if !strings.HasPrefix(run.stdout, test.want) || run.exit != (Exit{}) {
				t.Errorf("%+v, want %q", run, test.want)
			}
			t.Logf("%+v", run)
		})
	}
}

func BenchmarkNative(b *testing.B) {
	for _, test := range []struct{ name, path, script string }{
		{"true", "/usr/bin/true", ""}, {"sh", "/usr/bin/sh", "true"}, {"python3", "/usr/bin/python3", "pass"},
	} {
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				spec := nativeSpec(test.path, "-c", test.script)
				s := open(b, spec)
				if err := s.Start("main"); err != nil {
					b.Fatal(err)
				}
				if exit, err := s.Wait(b.Context(), "main"); err != nil || exit != (Exit{}) {
					b.Fatal(exit, err)
				}
				s.Close()
			}
		})
	}
}

// TestOneWayOut: a granted origin is reached under its own name, by a program that knows nothing of it; nothing else is there.
func TestOneWayOut(t *testing.T) {
	spec := nativeSpec("/usr/bin/python3", "-c", `
import socket, urllib.request
print(urllib.request.urlopen("http://api.example.org:8080/hello", timeout=5).read().decode())
for host, port in [("api.example.org", 8081), ("other.example.org", 80), ("127.0.0.1", 25), ("127.0.0.1", 10025), ("10.0.0.1", 80),
                   ("169.254.169.254", 80), ("192.0.2.1", 53), ("::1", 80), ("fe80::1", 80)]:
    try:
        socket.create_connection((host, port), 2)
        print("reached", host, port)
    except OSError as e:
        print(host, port, type(e).__name__, e.errno)
`)
	spec.Origins = []Origin{{Name: "api.example.org", Port: 8080}, {Name: "www.example.org", Port: 443}}
	s := open(t, spec)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s of %s", r.URL.Path, r.Host)
	})}
	go server.Serve(s.Origin(0))
	t.Cleanup(func() { server.Close() })
	if s.Origin(1) == nil || s.Origin(2) != nil {
		t.Error("there is a listener for each origin, and no more")
	}
	if err := s.Start("main"); err != nil {
		t.Fatal(err)
	}
	run := endNative(t, s, "")
	want := `/hello of api.example.org:8080
api.example.org 8081 ConnectionRefusedError 111
other.example.org 80 gaierror -2
127.0.0.1 25 ConnectionRefusedError 111
127.0.0.1 10025 ConnectionRefusedError 111
10.0.0.1 80 OSError 101
169.254.169.254 80 OSError 101
192.0.2.1 53 OSError 101
::1 80 ConnectionRefusedError 111
fe80::1 80 OSError 22
`
	if run.stdout != want {
		t.Errorf("got\n%s%s\nwant\n%s", run.stdout, run.stderr, want)
	}
}

// TestProcTellsLittle: what /proc says of the kernel is not for bots.
func TestProcTellsLittle(t *testing.T) {
	run := runNative(t, nativeSpec("/usr/bin/sh", "-c", "cat /proc/kallsyms /proc/keys /proc/modules /proc/timer_list | head -c 1000"), "")
	if run.stdout != "" {
		t.Errorf("%+v", run)
	}
}

// TestLandlock shows what Landlock alone stands before: bubblewrap's own process, what /proc lets an owner write, and for core the
// ports that are not its relay's.
func TestLandlock(t *testing.T) {
	run := runNative(t, nativeSpec("/usr/bin/python3", "-c", `
import os
for path in ("/proc/1/mem", "/proc/1/oom_score_adj", "/proc/self/oom_score_adj", "/proc/self/timerslack_ns", "/bundle/x", "/usr/x", "/storage/x", "/tmp/x",
             "/dev/shm/x", "/dev/null"):
    try:
        os.close(os.open(path, os.O_RDWR | (0 if path.startswith("/proc") else os.O_CREAT), 0o600))
        print(path, "written")
    except OSError as e:
        print(path, e.strerror)
`), "")
	want := `/proc/1/mem Permission denied
/proc/1/oom_score_adj Permission denied
/proc/self/oom_score_adj Permission denied
/proc/self/timerslack_ns Permission denied
/bundle/x Read-only file system
/usr/x Read-only file system
/storage/x written
/tmp/x written
/dev/shm/x written
/dev/null written
`
	if run.stdout != want {
		t.Errorf("got\n%s%s\nwant\n%s", run.stdout, run.stderr, want)
	}
	l := listenLoopback(t)
	spec := testSpec("connect=" + l.Addr().String())
	spec.Programs[0].Profile = ProfileCore
	reports, _ := probe(t, open(t, spec), "probe")
	if len(reports) != 1 || reports[0].Errno != int(syscall.EACCES) {
		t.Errorf("a port that is not in the Spec: %+v", reports)
	}
}

// TestUsage reads what a run has used while it lives, and that only a run that works uses more.
func TestUsage(t *testing.T) {
	s := open(t, nativeSpec("/usr/bin/sh", "-c", "read line; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo worked; read line"))
	if err := s.Start("main"); err != nil {
		t.Fatal(err)
	}
	usage := func() time.Duration {
		t.Helper()
		used, err := s.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	p := s.Program("main")
	before := usage()
	fmt.Fprintln(p.Stdin, "go")
	if _, err := bufio.NewReader(p.Stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if after := usage(); after < before+10*time.Millisecond {
		t.Errorf("a loop of 200,000 steps used %s, %s before it", after, before)
	}
	result, err := s.Close()
	if err != nil || result.CPU < before {
		t.Errorf("the result says %s of CPU, %s was used before its end: %v", result.CPU, before, err)
	}
	if _, err := s.Usage(); !errors.Is(err, ErrDead) {
		t.Errorf("usage of a run that is over: %v, want ErrDead", err)
	}
}

// TestTerminate asks programs to end, which they may do in their own way, or not at all.
func TestTerminate(t *testing.T) {
	s := open(t, nativeSpec("/usr/bin/sh", "-c", "trap 'echo goodbye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"))
	if err := s.Start("main"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(s.Program("main").Stdout)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := s.Terminate(); err != nil {
		t.Fatal(err)
	}
	line, err := lines.ReadString('\n')
	exit, waitErr := s.Wait(t.Context(), "main")
	if err != nil || line != "goodbye\n" || waitErr != nil || exit != (Exit{Code: 7}) {
		t.Errorf("%q, %v, exit %+v, %v: want its goodbye and code 7", line, err, exit, waitErr)
	}
}
