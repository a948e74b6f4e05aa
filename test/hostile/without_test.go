package hostile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/sandbox"
	"mayfly/internal/stage/takedown"
	"mayfly/internal/storage"
)

// named is a test that must fail, and how, when a wall is down: of a program and variant on a path, or of the path's posture.
type named struct {
	path, program, variant string
	fault                  string // a regular expression
}

func (n named) String() string {
	if n.program == "" {
		return "TestPosture/" + n.path
	}
	return strings.TrimSpace("TestHostile/" + n.path + "/" + n.program + " " + n.variant)
}

// folderRules is the one wall that stands in the daemon: what is kept of a folder. It is taken down in the tests themselves.
const folderRules takedown.Wall = "folder-rules"

// without are the walls, and the tests that fail without each.
func without() []struct {
	wall  takedown.Wall
	tests []named
} {
	return []struct {
		wall  takedown.Wall
		tests []named
	}{
		{takedown.UID, []named{{"script", "", "", "Uid of .*, want 64191"}, {"native", "py/host-state", "", "BROKE: /proc/(timer_list|vmallocinfo)"}}},
		{takedown.PIDNamespace, []named{{"script", "", "", "namespace pid"}, {"core", "", "", "namespace pid"}}},
		{takedown.NetNamespace, []named{{"script", "", "", "namespace net"}, {"native", "c/connect", "reinjection", "BROKE: 127.0.0.1 port 10025"},
			{"native", "c/connect", "metadata", "from outside: a connection to 169.254.169.254"}}},
		{takedown.IPCNamespace, []named{{"script", "", "", "namespace ipc"}}},
		{takedown.UTSNamespace, []named{{"script", "", "", "namespace uts"}}},
		{takedown.CgroupNS, []named{{"script", "", "", "namespace cgroup"}}},
		{takedown.EmptyRoot, []named{{"core", "c/look-around", "", "BROKE: there is /host"}, {"script", "", "", "no part of the sandbox"}}},
		{takedown.ReadOnlyRoot, []named{{"core", "", "", `mount ".* / .* can be written`}}},
		{takedown.MountFlags, []named{{"script", "", "", "want noexec"}, {"core", "", "", "want nosuid"}}},
		{takedown.Sealed, []named{{"script", "", "", "/bundle .* can be written"}}},
		{takedown.Capabilities, []named{{"script", "", "", "CapBnd"}, {"core", "", "", "CapBnd"}}},
		{takedown.SeccompWorker, []named{{"script", "engine/call-keyctl", "", "BROKE"}, {"script", "engine/processes", "", "BROKE"}}},
		{takedown.SeccompCore, []named{{"core", "c/attack-calls", "unshare", "BROKE"}, {"core", "c/foreign-abi", "int80", "BROKE"},
			{"core", "c/run-own-code", "memory", "BROKE"}}},
		{takedown.SeccompNative, []named{{"native", "c/attack-calls", "keyctl", "BROKE"}, {"native", "c/foreign-abi", "int80", "BROKE"},
			{"native", "c/sockets", "families", "BROKE"}}},
		{takedown.SeccompWASM, []named{{"wasm", "engine/call-keyctl", "", "BROKE"}, {"wasm", "engine/processes", "", "BROKE"}}},
		{takedown.Landlock, []named{{"native", "c/init", "", "BROKE"}}},
		{takedown.Descriptors, []named{{"core", "c/leaked-files", "", "BROKE"}, {"core", "", "", "descriptor"}}},
		{takedown.Undumpable, []named{{"script", "", "", "dumpable"}}},
		{takedown.Nofile, []named{{"core", "c/fd-bomb", "", "BROKE"}}},
		{takedown.Fsize, []named{{"core", "c/sparse", "one", "BROKE"}}},
		{takedown.Core, []named{{"core", "", "", "rlimit of core"}, {"native", "", "", "rlimit of core"}}},
		{takedown.Memlock, []named{{"core", "", "", "rlimit of locked"}}},
		{takedown.Msgqueue, []named{{"core", "", "", "rlimit of msgqueue"}}},
		{takedown.DirSize, []named{{"core", "c/disk-bomb", "fallocate", "BROKE"}, {"script", "", "", "want a tmpfs with a size"}}},
		{takedown.DirInodes, []named{{"core", "c/inode-bomb", "files", "BROKE"}}},
		{takedown.Memory, []named{{"core", "c/memory-bomb", "heap", "BROKE"}, {"native", "py/memory", "bytes", "BROKE"}}},
		{takedown.Pids, []named{{"core", "c/fork-bomb", "threads", "BROKE"}, {"native", "c/fork-bomb", "fork", "BROKE"}}},
		{takedown.CPU, []named{{"core", "c/spinners", "compute", "author reads"}}},
		{takedown.WallClock, []named{{"core", "c/sleeper", "asleep", "did not end"}}},
		{takedown.Pack, []named{{"native", "c/links", "symlink", "its folder"}}},
		{takedown.Log, []named{{"script", "js/output", "log", "author reads"}}},
		{folderRules, []named{{"core", "c/deep-tree", "12", "its folder"}}},
	}
}

// TestWithout takes one wall down at a time. The tests that are named for it must fail: a test that cannot fail shows nothing.
func TestWithout(t *testing.T) {
	binaries := buildAll(t)
	for _, w := range without() {
		t.Run(string(w.wall), func(t *testing.T) {
			build := <-binaries[w.wall]
			if build.err != nil {
				t.Fatal(build.err)
			}
			defer os.Remove(build.binary)
			b, end, err := brokerWithout(t.Context(), build.binary, w.wall)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range w.tests {
				found := n.run(t, b, w.wall)
				if !regexp.MustCompile(n.fault).MatchString(strings.Join(found, "\n")) {
					t.Errorf("without %s, %s does not fail by %q: %q", w.wall, n, n.fault, found)
					continue
				}
				fmt.Printf("without %-15s %s fails\n", w.wall, n)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// run does the named test, and gives its failures.
func (n named) run(t *testing.T, b broker, wall takedown.Wall) []string {
	at := pathNamed(t, n.path)
	if n.program == "" {
		found, err := shared.posture(b, at)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	rules := at.rules
	if wall == folderRules {
		rules = storage.Rules{Files: 1 << 20, Depth: 1 << 10, Name: 255, Bytes: 1 << 40, File: 1 << 40, Change: 1 << 40}
	}
	for _, p := range shared.corpus {
		if p.id() != n.program {
			continue
		}
		shared.host.came()
		o := shared.run(b.client, at, p, n.variant, rules)
		found := o.faults(at, p, n.variant)
		for _, visitor := range shared.host.came() {
			found = append(found, "from outside: "+visitor)
		}
		return found
	}
	t.Fatalf("there is no program %s", n.program)
	return nil
}

func pathNamed(t *testing.T, name string) path {
	for _, at := range paths() {
		if at.name == name {
			return at
		}
	}
	t.Fatalf("there is no path %s", name)
	return path{}
}

// built is a mayfly-sandbox without a wall.
type built struct {
	binary string
	err    error
}

// buildAll builds, in the background, one after the other, those that the tests ask for.
func buildAll(t *testing.T) map[takedown.Wall]chan built {
	binaries := make(map[takedown.Wall]chan built)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for _, w := range without() {
		binaries[w.wall] = make(chan built)
	}
	dir := t.TempDir()
	go func() {
		for _, w := range without() {
			if !selected(string(w.wall)) {
				continue
			}
			b := built{binary: filepath.Join(dir, string(w.wall))}
			b.err = buildSandbox(b.binary, string(w.wall))
			select {
			case binaries[w.wall] <- b:
			case <-stop:
				return
			}
		}
	}()
	return binaries
}

// selected reports whether -run names the subtest, or none in particular.
func selected(wall string) bool {
	for _, arg := range os.Args {
		if pattern, ok := strings.CutPrefix(arg, "-test.run="); ok {
			if _, sub, found := strings.Cut(pattern, "/"); found {
				return regexp.MustCompile(sub).MatchString(wall)
			}
		}
	}
	return true
}

// brokerWithout starts the broker of a binary. Without the wall of the uid it runs as root, which StartBroker would not do.
func brokerWithout(ctx context.Context, binary string, wall takedown.Wall) (broker, func() error, error) {
	if wall == takedown.UID {
		return rootBroker(binary)
	}
	b, err := startBroker(ctx, binary)
	if err != nil {
		return broker{}, nil, err
	}
	return broker{b.Client(), b.PID()}, b.Close, nil
}

func rootBroker(binary string) (broker, func() error, error) {
	const addr = "@mayfly-hostile-root"
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: addr, Net: "unixpacket"})
	if err != nil {
		return broker{}, nil, err
	}
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		return broker{}, nil, err
	}
	defer socket.Close()
	end, lifeline, err := os.Pipe()
	if err != nil {
		return broker{}, nil, err
	}
	defer end.Close()
	cmd := &exec.Cmd{Path: binary, Args: []string{"mayfly-sandbox", "broker", "-lifeline", "-allow-uid", "0"}, Env: []string{}, Dir: "/",
		Stderr: os.Stderr, ExtraFiles: []*os.File{socket, end}, SysProcAttr: &syscall.SysProcAttr{Setsid: true, AmbientCaps: nil}}
	if err := cmd.Start(); err != nil {
		return broker{}, nil, errors.Join(err, lifeline.Close())
	}
	return broker{sandbox.NewClient(addr), cmd.Process.Pid}, func() error {
		timer := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		return errors.Join(lifeline.Close(), cmd.Wait())
	}, nil
}

// TestProductionHasNoSwitch: a mayfly-sandbox without the tag has nothing to take a wall down with.
func TestProductionHasNoSwitch(t *testing.T) {
	const switchName = "mayfly/internal/stage/takedown.down"
	tagged := filepath.Join(t.TempDir(), "tagged")
	if err := buildSandbox(tagged, "none"); err != nil {
		t.Fatal(err)
	}
	if !hasSymbol(t, tagged, switchName) {
		t.Fatalf("a build with the tag has no %s: this test looks for the wrong thing", switchName)
	}
	if hasSymbol(t, shared.binary, switchName) {
		t.Errorf("the production's mayfly-sandbox has %s", switchName)
	}
}

func hasSymbol(t *testing.T, binary, symbol string) bool {
	t.Helper()
	out, err := exec.Command("go", "tool", "nm", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == symbol {
			return true
		}
	}
	return false
}

// TestEveryWallIsTakenDown: the walls that the code can take down are those that the tests above name.
func TestEveryWallIsTakenDown(t *testing.T) {
	source, err := os.ReadFile("../../internal/stage/takedown/walls.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Wall = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
		found := false
		for _, w := range without() {
			found = found || string(w.wall) == m[1]
		}
		if !found {
			t.Errorf("no test is named that fails without %s", m[1])
		}
	}
}
