package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mayfly/internal/stage"
)

// The tests use one broker and one binary: a real mayfly-sandbox, built below a 0700 directory as in a home, and run by root
// under the default uid.
var (
	binary string
	broker *Broker
)

func TestMain(m *testing.M) {
	if os.Getenv("MAYFLY_TEST_DAEMON") != "" {
		os.Exit(daemonMain())
	}
	if addr := os.Getenv("MAYFLY_TEST_STRANGER"); addr != "" {
		os.Exit(strangerMain(addr))
	}
	if tree := os.Getenv("MAYFLY_TEST_USER"); tree != "" {
		os.Exit(userMain(tree))
	}
	if name := os.Getenv("MAYFLY_TEST_IMPOSTOR"); name != "" {
		os.Exit(impostorMain(name))
	}
	if os.Getenv("MAYFLY_TEST_UNDELEGATED") != "" {
		os.Exit(undelegatedMain())
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "mayfly-sandbox-test")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "mayfly-sandbox")
	build := exec.Command("go", "build", "-o", binary, "mayfly/cmd/mayfly-sandbox")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build mayfly-sandbox: %v\n%s", err, out)
		return 1
	}
	broker, err = StartBroker(context.Background(), StartOptions{Binary: binary})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := broker.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// testSpec has one directory that programs may write, one that they may not, and the probe under the worker's profile.
func testSpec(attempts ...string) Spec {
	return Spec{
		Name: "test", Memory: 64 << 20, Pids: 64, Wall: 20 * time.Second,
		Dirs: []Dir{
			{Path: "/data", Size: 1 << 20, Inodes: 100, Writable: true},
			{Path: "/fixed", Size: 1 << 20, Inodes: 100},
		},
		Programs: []Program{{Name: "probe", Builtin: "probe", Profile: ProfileWorker, Args: attempts}},
	}
}

func open(t testing.TB, spec Spec) *Sandbox {
	t.Helper()
	s, err := broker.Client().Open(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// probe runs a program of the Spec, and gives its reports and its end.
func probe(t testing.TB, s *Sandbox, program string) ([]stage.Report, Exit) {
	t.Helper()
	if err := s.Start(program); err != nil {
		t.Fatal(err)
	}
	reports := readReports(t, s.Program(program))
	exit, err := s.Wait(t.Context(), program)
	if err != nil && !errors.Is(err, ErrDead) {
		t.Fatal(err)
	}
	return reports, exit
}

func readReports(t testing.TB, p Stdio) []stage.Report {
	t.Helper()
	out, err := io.ReadAll(io.LimitReader(p.Stdout, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	var reports []stage.Report
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var r stage.Report
		if err := dec.Decode(&r); err != nil {
			return reports
		}
		reports = append(reports, r)
	}
}

func TestProgramSeesOnlyItsDirectories(t *testing.T) {
	s := open(t, testSpec("whoami", "list=/", "list=/fixed", "read=/fixed/sub/note", "files=/data"))
	if err := s.PutFile("/fixed/sub/note", 5, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	reports, exit := probe(t, s, "probe")
	if exit != (Exit{}) {
		t.Errorf("probe ended with %+v", exit)
	}
	want := []stage.Report{
		{Attempt: "list=/", Done: true, Text: "data fixed"},
		{Attempt: "list=/fixed", Done: true, Text: "sub"},
		{Attempt: "read=/fixed/sub/note", Done: true, Text: "hello"},
		{Attempt: "files=/data", Done: true},
	}
	if len(reports) != 5 || !strings.HasPrefix(reports[0].Text, "uid 65534 gid 65534 pid ") || !strings.HasSuffix(reports[0].Text, " ppid 1 host sandbox") {
		t.Fatalf("reports: %+v", reports)
	}
	for i, w := range want {
		if reports[i+1] != w {
			t.Errorf("got %+v, want %+v", reports[i+1], w)
		}
	}
}

func TestAttemptsFail(t *testing.T) {
	number, port := hostPort(t)
	type attempt struct {
		profile, arg string
		errno        syscall.Errno
	}
	tests := []attempt{
		{ProfileWorker, "read=/etc/shadow", unix.ENOENT},
		{ProfileWorker, "read=/proc/self/status", unix.ENOENT},
		{ProfileWorker, "read=/data/../../etc/shadow", unix.ENOENT},
		{ProfileWorker, "write=/new", unix.EROFS},
		{ProfileWorker, "write=/fixed/new", unix.EROFS},
		{ProfileWorker, "fill=/data/big", unix.ENOSPC},
		{ProfileWorker, "link=/data/link", unix.EPERM},
		{ProfileWorker, "fork", unix.EPERM},
		{ProfileWorker, "fork=9", unix.EPERM}, // 9 is mmap
		{ProfileWorker, "clone3", unix.ENOSYS},
		{ProfileWorker, "kill", unix.EPERM},
		{ProfileWorker, "tgkill", unix.EPERM},
		{ProfileWorker, "wx", unix.EPERM},
		{ProfileWorker, "foreign", unix.EPERM},
		{ProfileWASM, "write=/fixed/new", unix.EROFS},
		{ProfileWASM, "link=/data/link", unix.EPERM},
		{ProfileWASM, "fork", unix.EPERM},
		{ProfileWASM, "fork=9", unix.EPERM},
		{ProfileWASM, "kill", unix.EPERM},
		{ProfileWASM, "wx", unix.EPERM},
		{ProfileWASM, "foreign", unix.EPERM},
		{ProfileCore, "connect=127.0.0.2:" + port, unix.ECONNREFUSED},
		{ProfileCore, "connect=10.255.255.1:" + port, unix.ENETUNREACH},
		{ProfileCore, "socket", unix.EPERM},
		{ProfileCore, "fork", unix.EPERM},
		{ProfileCore, "fork=9", unix.EPERM},
		{ProfileCore, "wx", unix.EPERM},
		{ProfileCore, "kill", unix.EPERM},
		{ProfileCore, "tgkill", unix.EPERM},
		{ProfileCore, "foreign", unix.EPERM},
	}
	spec := testSpec()
	spec.Programs, spec.Listen = nil, []uint16{number} // else Landlock forbids the port, and the network is not tried
	for _, profile := range []string{ProfileWorker, ProfileWASM, ProfileCore} {
		p := Program{Name: profile, Builtin: "probe", Profile: profile}
		for _, a := range tests {
			if a.profile == profile {
				p.Args = append(p.Args, a.arg)
			}
		}
		spec.Programs = append(spec.Programs, p)
	}
	s := open(t, spec)
	got := make(map[string]stage.Report)
	for _, p := range spec.Programs {
		reports, _ := probe(t, s, p.Name)
		for _, r := range reports {
			got[p.Name+" "+r.Attempt] = r
		}
	}
	for _, a := range tests {
		r, ok := got[a.profile+" "+a.arg]
		if !ok || r.Done || r.Errno != int(a.errno) {
			t.Errorf("profile %s, %s: got %+v, want %v", a.profile, a.arg, r, a.errno)
		}
	}
}

// hostPort is a port on 127.0.0.2 of the host where someone listens.
func hostPort(t *testing.T) (uint16, string) {
	l, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	return uint16(port), strconv.Itoa(port)
}

func TestAttacksKill(t *testing.T) {
	tests := []struct{ profile, attempt string }{
		{ProfileWorker, "execve=/data/x"},
		{ProfileWorker, "unshare"},
		{ProfileWorker, "mount"},
		{ProfileWorker, "ptrace"},
		{ProfileWorker, "socket"},
		{ProfileWorker, "memfd"},
		{ProfileWASM, "execve=/data/x"},
		{ProfileWASM, "unshare"},
		{ProfileWASM, "mount"},
		{ProfileWASM, "ptrace"},
		{ProfileWASM, "socket"},
		{ProfileWASM, "memfd"},
		{ProfileCore, "execve=/data/x"},
		{ProfileCore, "unshare"},
		{ProfileCore, "mount"},
		{ProfileCore, "ptrace"},
		{ProfileCore, "memfd"},
	}
	for _, profile := range []string{ProfileWorker, ProfileWASM, ProfileCore} {
		spec := testSpec()
		spec.Programs, spec.Pids = nil, 128
		for _, tt := range tests {
			if tt.profile == profile {
				name, _, _ := strings.Cut(tt.attempt, "=")
				spec.Programs = append(spec.Programs, Program{Name: name, Builtin: "probe", Profile: profile, Args: []string{tt.attempt}})
			}
		}
		s := open(t, spec)
		for _, p := range spec.Programs {
			if reports, exit := probe(t, s, p.Name); exit.Signal != unix.SIGSYS {
				t.Errorf("profile %s, %s: ended with %+v, reports %+v; want SIGSYS", profile, p.Name, exit, reports)
			}
		}
	}
}

func TestUnknownProgramIsNotRun(t *testing.T) {
	spec := testSpec()
	spec.Programs = []Program{{Name: "none", Builtin: "no-such", Profile: ProfileWorker}, {Name: "text", Binary: textFile(t), Profile: ProfileCore}}
	s := open(t, spec)
	for _, tt := range []struct{ program, want string }{{"none", "no builtin program"}, {"text", "is it static"}} {
		if err := s.Start(tt.program); err != nil && tt.program == "text" {
			t.Fatal(err)
		}
		why, _ := io.ReadAll(s.Program(tt.program).Stderr)
		exit, err := s.Wait(t.Context(), tt.program)
		if err != nil || exit.Code != ExitNotRun || !strings.Contains(string(why), tt.want) {
			t.Errorf("%s: ended with %+v, %v: %s; want code %d and %q", tt.program, exit, err, why, ExitNotRun, tt.want)
		}
	}
	if err := s.Start("unheard-of"); err == nil {
		t.Error("started a program that the Spec does not have")
	}
}

func textFile(t *testing.T) *os.File {
	name := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(name, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
