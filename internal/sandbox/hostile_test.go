package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/sandbox/wire"
)

// runBroker runs the broker as the daemon never would, as uid, and gives what it says before it ends.
func runBroker(t *testing.T, uid, gid uint32, caps []uintptr, args ...string) string {
	t.Helper()
	f, err := os.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	socket, err := listen("@mayfly-test-" + t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	var out bytes.Buffer
	cmd := exec.Cmd{Path: "/proc/self/fd/4", Args: append([]string{"mayfly-sandbox", "broker"}, args...), Dir: "/", Stderr: &out,
		ExtraFiles: []*os.File{socket, f}, SysProcAttr: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}, AmbientCaps: caps}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() < 1 {
		t.Errorf("the broker ended with %v", cmd.ProcessState)
	}
	return out.String()
}

func TestBrokerRefusesToStart(t *testing.T) {
	const capSysAdmin = 21
	tests := []struct {
		name string
		got  string
		want string
	}{
		{"as root", runBroker(t, 0, DefaultUID, nil, "-allow-uid", "0"), "must not run as uid 0"},
		{"as root's group", runBroker(t, DefaultUID, 0, nil, "-allow-uid", "0"), "must not run as uid 0 or gid 0"},
		{"with capabilities", runBroker(t, DefaultUID, DefaultUID, []uintptr{capSysAdmin}, "-allow-uid", "0"), "must not have capabilities"},
		{"without a peer", runBroker(t, DefaultUID, DefaultUID, nil), "at least one -allow-uid"},
		{"without cgroups", runBroker(t, DefaultUID, DefaultUID, nil, "-allow-uid", "0"), "no cgroup to limit runs with"},
	}
	for _, tt := range tests {
		if !strings.Contains(tt.got, tt.want) {
			t.Errorf("%s: it says %q, want %q", tt.name, tt.got, tt.want)
		}
	}
	if _, err := StartBroker(t.Context(), StartOptions{Binary: binary + "-none"}); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("no binary: %v", err)
	}
	closed := binary + "-closed"
	if err := os.WriteFile(closed, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := StartBroker(t.Context(), StartOptions{Binary: closed}); err == nil || !strings.Contains(err.Error(), "chmod 755") {
		t.Errorf("a binary that is closed to the broker: %v", err)
	}
}

// TestBrokerRefusesStrangers connects as a uid that was not allowed: nobody is served and nothing is started.
func TestBrokerRefusesStrangers(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"MAYFLY_TEST_STRANGER=" + broker.addr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-allow-uid") {
		t.Errorf("a stranger got %q, %v", out, err)
	}
}

// strangerMain is TestBrokerRefusesStrangers' other half.
func strangerMain(addr string) int {
	_, err := NewClient(addr).Open(context.Background(), testSpec())
	os.Stdout.WriteString(err.Error())
	return 0
}

// TestImpostorsGetNothing: when a broker dies, anybody can take the name of its socket. The next run must not be handed over.
func TestImpostorsGetNothing(t *testing.T) {
	name := "@mayfly-impostor-" + t.Name()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"MAYFLY_TEST_IMPOSTOR=" + name}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "listening" {
		t.Fatalf("the impostor does not listen: %q", lines.Text())
	}
	if _, err := NewClient(name).Open(t.Context(), testSpec()); err == nil || !strings.Contains(err.Error(), "uid 65533") {
		t.Errorf("opening a sandbox at an impostor: %v", err)
	}
	if lines.Scan(); lines.Text() != "got nothing" {
		t.Errorf("the impostor says %q", lines.Text())
	}
}

// impostorMain is TestImpostorsGetNothing's other half.
func impostorMain(name string) int {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: name, Net: "unixpacket"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("listening")
	sock, err := l.AcceptUnix()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	f, err := wire.NewConn(sock).Read()
	if err != nil {
		fmt.Println("got nothing")
		return 0
	}
	fmt.Printf("got %s and %d files\n", f.Payload, len(f.Files))
	return 0
}

// TestWithoutLimitsNothingStarts starts a broker as an ordinary user who has been given no cgroup.
func TestWithoutLimitsNothingStarts(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"MAYFLY_TEST_UNDELEGATED=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65533, Gid: 65533}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "no memory and pids limits") || !strings.Contains(string(out), "Delegate=yes") {
		t.Errorf("got %q, %v; want the wall that is missing, and its mend", out, err)
	}
}

// undelegatedMain is TestWithoutLimitsNothingStarts' other half.
func undelegatedMain() int {
	_, err := StartBroker(context.Background(), StartOptions{Binary: "/proc/self/exe"})
	os.Stdout.WriteString(err.Error())
	return 0
}

// TestBrokerBoundsADaemon sends what Open never would: the broker trusts no daemon.
func TestBrokerBoundsADaemon(t *testing.T) {
	good := testSpec()
	huge := good.wireSpec()
	huge.Memory = 1 << 40
	tests := []struct {
		name string
		send func(*wire.Conn) error
		want string
	}{
		{"ceiling", func(c *wire.Conn) error { return c.SendJSON(wire.KindSpec, huge) }, "specification refused: memory"},
		{"no files", func(c *wire.Conn) error { return c.SendJSON(wire.KindSpec, good.wireSpec()) }, "0 files, the specification needs 4"},
		{"wrong frame", func(c *wire.Conn) error { return c.Send(wire.KindData, nil) }, "instead of a specification"},
		{"no JSON", func(c *wire.Conn) error { return c.Send(wire.KindSpec, []byte("{")) }, "protocol violated"},
		{"hang up", func(c *wire.Conn) error { return c.Socket().CloseWrite() }, "read the specification"},
	}
	for _, tt := range tests {
		conn, err := dial(t.Context(), broker.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := tt.send(conn); err != nil {
			t.Fatal(tt.name, err)
		}
		var r wire.Result
		f, err := conn.Read()
		if err == nil {
			err = f.Decode(&r)
		}
		if err != nil || !strings.Contains(r.Message, tt.want) {
			t.Errorf("%s: got %+v, %v; want %q", tt.name, r, err, tt.want)
		}
	}
}

// FuzzStage is a stage that has been taken over: whatever frames it sends, the daemon's side neither panics nor hangs, and
// gives no more than was asked for. The input is a sequence of frames, each with its length before it in one byte.
func FuzzStage(f *testing.F) {
	hello := "\x0fH{\"listeners\":0}"
	f.Add([]byte(hello + "\x03A{}" + "\x06Dhello" + "\x01E"))
	f.Add([]byte(hello + "\x03A{}" + "\x20D" + strings.Repeat("x", 31)))
	f.Add([]byte(hello + "\x1eX{\"program\":\"probe\",\"code\":3}" + "\x1eX{\"program\":\"other\",\"code\":3}"))
	f.Add([]byte(hello + "\x17A{\"code\":\"not-regular\"}"))
	f.Add([]byte("\x01X" + hello))
	f.Fuzz(func(t *testing.T, frames []byte) {
		s, stage := fakeSandbox(t)
		go func() {
			defer stage.Close()
			for len(frames) > 0 {
				n := min(int(frames[0]), len(frames)-1)
				if n > 0 {
					stage.Socket().Write(frames[1 : 1+n])
				}
				frames = frames[1+n:]
			}
		}()
		if err := s.awaitHello(context.Background()); err != nil {
			return
		}
		if b, err := s.GetFile("/data/x", 16); err == nil && len(b) > 16 {
			t.Errorf("asked for 16 bytes, got %d", len(b))
		}
		if r, err := s.Collect("/data"); err == nil {
			io.Copy(io.Discard, r)
		}
		s.Wait(context.Background(), "probe")
		if _, err := s.Close(); err != nil && !errors.Is(err, ErrDead) {
			t.Error(err)
		}
	})
}

// fakeSandbox is the daemon's side of a run whose broker ends it as soon as it is asked to, and the stage's end of its control
// socket.
func fakeSandbox(t *testing.T) (*Sandbox, *wire.Conn) {
	t.Helper()
	s := newSandbox(testSpec())
	s.exits["probe"] = &exit{done: make(chan struct{})}
	stage, broker := connect(t, s)
	go func() {
		defer broker.Close()
		broker.Read()
		broker.SendJSON(wire.KindResult, wire.Result{Wall: 1})
	}()
	return s, stage
}

// TestSilentBrokerIsNotWaitedFor: the stage is gone, and the broker, stopped or hung, says nothing.
func TestSilentBrokerIsNotWaitedFor(t *testing.T) {
	s := newSandbox(testSpec())
	s.patience = 100 * time.Millisecond
	stage, _ := connect(t, s)
	stage.Close()
	select {
	case <-s.Dead():
	case <-time.After(5 * time.Second):
		t.Fatal("the run is still taken to live")
	}
	if err := s.Start("probe"); !errors.Is(err, ErrDead) {
		t.Errorf("start: %v", err)
	}
}

// TestResultsAreChecked: what a broker says about a run is counted against its bot, and told to its author.
func TestResultsAreChecked(t *testing.T) {
	for _, r := range []wire.Result{
		{Wall: 1, CPU: -1},
		{Wall: -1},
		{Wall: 1, Memory: -1},
		{Wall: 1, Killed: "by the broker"},
		{Wall: 1, Message: strings.Repeat("x", 9000)},
		{Wall: 1, Missing: &wire.Missing{Name: strings.Repeat("x", 9000)}},
	} {
		s := newSandbox(testSpec())
		_, broker := connect(t, s)
		broker.SendJSON(wire.KindResult, r)
		if got, err := s.Close(); !errors.Is(err, ErrDead) || got != (Result{}) {
			t.Errorf("%.100v was taken as %.100v, %v", r, got, err)
		}
	}
}

// TestLingeringSocketsAreLetGo: a stage sends both ends of a connection that is full, and whose end would wait for its bytes to
// be read. Closing them must not take longer than the run.
func TestLingeringSocketsAreLetGo(t *testing.T) {
	s := newSandbox(testSpec())
	s.patience = 100 * time.Millisecond
	stage, _ := connect(t, s)
	l := listenLoopback(t)
	full, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	full.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	io.Copy(full, zeros{})
	full.(*net.TCPConn).SetLinger(3)
	var files []*os.File
	for _, c := range []net.Conn{full, other} {
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		c.Close()
	}
	if err := stage.SendJSON(wire.KindHello, wire.Hello{Listeners: 2}, files...); err != nil {
		t.Fatal(err)
	}
	wire.Frame{Files: files}.CloseFiles()
	begun := time.Now()
	if err := s.awaitHello(t.Context()); err == nil {
		t.Fatal("two files that nobody asked for were taken")
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("closing what a stage sent took %s", took)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// connect gives s a stage and a broker, and returns their ends.
func connect(t *testing.T, s *Sandbox) (stage, broker *wire.Conn) {
	t.Helper()
	var ends [2]*wire.Conn
	for i, ours := range []**wire.Conn{&s.control, &s.broker} {
		conn, file, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		*ours = conn
		if ends[i], err = wire.FileConn(file); err != nil {
			t.Fatal(err)
		}
	}
	s.readers.Go(s.readBroker)
	s.readers.Go(s.readControl)
	t.Cleanup(func() { s.Close() })
	return ends[0], ends[1]
}
