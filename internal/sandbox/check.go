package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"mayfly/internal/sandbox/wire"
)

// CheckOptions say what the operator asks for beyond what is always required.
type CheckOptions struct {
	Landlock bool // Landlock is required
	Native   bool // native bots are: programs of the host under bubblewrap
}

// Check tries the walls, each by a program in a sandbox that runs against it. It takes about a second. A required wall that is
// not in force means that no run may be started; the Mend says what to do about it. Not required are a uid of the broker's own,
// since without root there is no way to it but the units, and what the options do not ask for.
func Check(ctx context.Context, c *Client, o CheckOptions) []Wall {
	host, err := net.Listen("tcp4", "127.0.0.2:0")
	if err != nil {
		return []Wall{{Name: "self-test", Required: true, Why: err.Error(), Mend: "bring the host's loopback up: ip link set lo up"}}
	}
	defer host.Close()
	var walls []Wall
	for _, test := range wallTests(host.Addr().(*net.TCPAddr)) {
		w := test.wall
		w.Required = true
		err := test.try(ctx, c)
		var missing *MissingError
		switch {
		case errors.As(err, &missing):
			return append(walls, missing.Wall) // no sandbox at all: the rest would say the same
		case err != nil:
			w.Why = err.Error()
		default:
			w.InForce = true
		}
		walls = append(walls, w)
	}
	walls = append(walls, checkLandlock(ctx, c, o.Landlock), checkNative(ctx, c, o.Native))
	return append(walls, checkOwnUID(ctx, c))
}

// checkLandlock runs a program that is not to run without.
func checkLandlock(ctx context.Context, c *Client, required bool) Wall {
	w := Wall{Name: "landlock", Required: required, Why: "a program that insists on it ran",
		Mend: "a kernel with CONFIG_SECURITY_LANDLOCK and landlock in its parameter lsm= (Debian's have both)"}
	spec := checkSpec(ProfileWorker, "whoami")
	spec.Landlock = true
	reports, exit, _, err := runProbe(ctx, c, spec)
	switch {
	case err != nil:
		w.Why = err.Error()
	case len(reports) != 1 || exit != (Exit{}):
		w.Why = fmt.Sprintf("a program that insists on it did not run: exit %+v", exit)
	default:
		w.InForce = true
	}
	return w
}

// nativeScript runs against the walls around programs of the host, and says what has given way.
const nativeScript = `
[ "$(id -u)" = 65534 ] || echo "it runs as uid $(id -u)"
for path in /root /home /var /sys /run /boot /srv; do
	[ -e "$path" ] && echo "it sees the host's $path"
done
for path in /usr/x /etc/x /dev/x /x; do
	(echo x >"$path") 2>/dev/null && echo "it can write $path"
done
[ "$(ls /proc | grep -c '^[0-9]')" -lt 10 ] || echo "it sees the host's processes"
unshare --user true 2>/dev/null && echo "it can make a user namespace"
[ "$(stat -f -c %T /usr)" = overlayfs ] || echo "its locks on files of /usr are the host's"
echo done
`

// checkNative runs the script under bubblewrap.
func checkNative(ctx context.Context, c *Client, required bool) Wall {
	w := Wall{Name: "native programs", Required: required, Why: "a shell under bubblewrap saw and changed nothing of the host's",
		Mend: "install Debian's bubblewrap; or allow no native bots: bots.interpreters = []"}
	printed, err := runScript(ctx, c)
	switch {
	case err != nil:
		w.Why = err.Error()
	case printed != "done":
		w.Why = printed
	default:
		w.InForce = true
	}
	return w
}

// runScript gives what the script of checkNative printed on both streams, its lines joined.
func runScript(ctx context.Context, c *Client) (string, error) {
	s, err := c.Open(ctx, Spec{Name: "check", Memory: 64 << 20, Pids: 48, Wall: 10 * time.Second, System: true,
		Dirs: []Dir{{Path: "/tmp", Size: 1 << 20, Inodes: 10, Writable: true}},
		Programs: []Program{{Name: "script", Path: "/usr/bin/sh", Profile: ProfileNative, Args: []string{"-c", nativeScript},
			Env: []string{"PATH=/usr/bin"}}}})
	if err != nil {
		return "", err
	}
	defer s.Close() // a failure has shown before
	if err := s.Start("script"); err != nil {
		return "", err
	}
	out, err := io.ReadAll(io.LimitReader(s.Program("script").Stdout, 64<<10))
	if err != nil {
		return "", err
	}
	errs, err := io.ReadAll(io.LimitReader(s.Program("script").Stderr, 64<<10))
	return strings.Join(strings.FieldsFunc(string(out)+string(errs), func(r rune) bool { return r == '\n' }), "; "), err
}

// checkOwnUID compares the uid that a run had, outside of its namespaces, with ours.
func checkOwnUID(ctx context.Context, c *Client) Wall {
	w := Wall{Name: "own uid", Mend: "start mayfly as root: its broker gives its rights up for a user of its own"}
	_, _, result, err := runProbe(ctx, c, checkSpec(ProfileWorker, "whoami"))
	switch {
	case err != nil:
		w.Why = err.Error()
	case result.UID == os.Geteuid():
		w.Why = fmt.Sprintf("sandboxes run as uid %d, as we do: what gets out of one can read what we can", result.UID)
	default:
		w.InForce = true
		w.Why = fmt.Sprintf("sandboxes run as uid %d, we as %d", result.UID, os.Geteuid())
	}
	return w
}

// wallTest tries one wall: try returns nil when the wall has held.
type wallTest struct {
	wall Wall
	try  func(context.Context, *Client) error
}

func wallTests(host *net.TCPAddr) []wallTest {
	refused := func(profile string, errno syscall.Errno, attempts ...string) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error { return wantRefused(ctx, c, profile, errno, attempts...) }
	}
	killed := func(by string, change func(*Spec), attempt string) func(context.Context, *Client) error {
		return func(ctx context.Context, c *Client) error { return wantKilled(ctx, c, by, change, attempt) }
	}
	cgroups := "delegate a cgroup with the memory and pids controllers to the broker: Delegate=yes"
	return []wallTest{
		{Wall{Name: "user and pid namespaces", Why: "a program sees uid 65534 and process 1 as its parent",
			Mend: "allow user namespaces: sysctl user.max_user_namespaces"}, wantIdentity},
		{Wall{Name: "read-only root", Why: "writing a file into the root failed", Mend: "report this: it is a fault of mayfly-sandbox"},
			refused(ProfileWorker, syscall.EROFS, "write=/x")},
		{Wall{Name: "no host files", Why: "/etc/passwd and /proc are not there", Mend: "report this: it is a fault of mayfly-sandbox"},
			refused(ProfileWorker, syscall.ENOENT, "read=/etc/passwd", "read=/proc/self/status")},
		{Wall{Name: "no host network", Why: "connecting to the host's loopback failed", Mend: "a kernel with CONFIG_NET_NS"},
			func(ctx context.Context, c *Client) error { return wantNoNetwork(ctx, c, host) }},
		{Wall{Name: "seccomp", Why: "fork and foreign system calls failed, unshare killed", Mend: "a kernel with CONFIG_SECCOMP_FILTER"}, wantSeccomp},
		{Wall{Name: "memory limit", Why: "a program that took too much was killed, and the run with it", Mend: cgroups},
			killed(wire.KilledMemory, func(s *Spec) { s.Memory = 32 << 20 }, "memory=268435456")},
		{Wall{Name: "pids limit", Why: "the kernel refused to start more threads", Mend: cgroups}, wantPidsLimit},
		{Wall{Name: "cpu time", Why: "a spinning run was killed at its limit", Mend: "a kernel with cgroup v2, or v1's cpuacct"},
			patiently(func(limit time.Duration) func(context.Context, *Client) error {
				return killed(wire.KilledCPU, func(s *Spec) { s.CPU = limit }, "spin")
			})},
		{Wall{Name: "wall clock", Why: "a sleeping run was killed in time", Mend: "report this: it is a fault of mayfly-sandbox"},
			patiently(func(limit time.Duration) func(context.Context, *Client) error {
				return killed(wire.KilledWall, func(s *Spec) { s.Wall = limit }, "sleep=1h")
			})},
	}
}

// patiently tries a limit of time, and longer ones where a busy machine does not even open the sandbox within it.
func patiently(try func(time.Duration) func(context.Context, *Client) error) func(context.Context, *Client) error {
	return func(ctx context.Context, c *Client) error {
		var err error
		for limit := 100 * time.Millisecond; limit < 8*time.Second; limit *= 4 {
			if err = try(limit)(ctx, c); !errors.Is(err, ErrDead) {
				return err
			}
		}
		return err
	}
}

func checkSpec(profile string, attempts ...string) Spec {
	return Spec{Name: "check", Memory: 64 << 20, Pids: 48, Wall: 10 * time.Second,
		Programs: []Program{{Name: "probe", Builtin: "probe", Profile: profile, Args: attempts}}}
}

// report is stage.Report, which this side must not import.
type report struct {
	Done  bool
	Errno syscall.Errno
	Text  string
}

// runProbe runs the probe in a sandbox of its own to its end.
func runProbe(ctx context.Context, c *Client, spec Spec) ([]report, Exit, Result, error) {
	s, err := c.Open(ctx, spec)
	if err != nil {
		return nil, Exit{}, Result{}, err
	}
	if err := s.Start("probe"); errors.Is(err, ErrDead) { // it was killed before the stage could say that it runs
		result, err := s.Close()
		return nil, Exit{}, result, err
	} else if err != nil {
		_, closeErr := s.Close()
		return nil, Exit{}, Result{}, errors.Join(err, closeErr)
	}
	var reports []report
	for dec := json.NewDecoder(io.LimitReader(s.Program("probe").Stdout, 1<<20)); ; {
		var r report
		if dec.Decode(&r) != nil {
			break // the end of the program, whatever ended it
		}
		reports = append(reports, r)
	}
	exit, waitErr := s.Wait(ctx, "probe")
	if waitErr != nil && !errors.Is(waitErr, ErrDead) {
		_, err := s.Close()
		return nil, exit, Result{}, errors.Join(waitErr, err)
	}
	if waitErr == nil && exit.Signal != 0 { // the broker learns of an out-of-memory kill at its next look
		select {
		case <-s.Dead():
		case <-time.After(300 * time.Millisecond):
		}
	}
	result, err := s.Close()
	return reports, exit, result, err
}

func wantRefused(ctx context.Context, c *Client, profile string, errno syscall.Errno, attempts ...string) error {
	reports, exit, _, err := runProbe(ctx, c, checkSpec(profile, attempts...))
	if err != nil {
		return err
	}
	if len(reports) != len(attempts) {
		return fmt.Errorf("%s: got %+v, exit %+v", strings.Join(attempts, " "), reports, exit)
	}
	for i, r := range reports {
		if r.Done || r.Errno != errno {
			return fmt.Errorf("%s: want %q, got %+v", attempts[i], errno, r)
		}
	}
	return nil
}

// wantNoNetwork tries a port of the host that Landlock allows, since the sandbox listens at it elsewhere.
func wantNoNetwork(ctx context.Context, c *Client, host *net.TCPAddr) error {
	spec := checkSpec(ProfileCore, "connect="+host.String())
	spec.Listen = []uint16{uint16(host.Port)}
	reports, exit, _, err := runProbe(ctx, c, spec)
	if err != nil {
		return err
	}
	if len(reports) != 1 || reports[0].Done || reports[0].Errno != syscall.ECONNREFUSED {
		return fmt.Errorf("connecting to %s of the host gave %+v, exit %+v", host, reports, exit)
	}
	return nil
}

func wantIdentity(ctx context.Context, c *Client) error {
	reports, exit, _, err := runProbe(ctx, c, checkSpec(ProfileWorker, "whoami"))
	if err != nil {
		return err
	}
	if len(reports) != 1 || !strings.HasPrefix(reports[0].Text, "uid 65534 gid 65534 ") || !strings.HasSuffix(reports[0].Text, " ppid 1 host sandbox") {
		return fmt.Errorf("a program saw %+v, exit %+v", reports, exit)
	}
	return nil
}

func wantSeccomp(ctx context.Context, c *Client) error {
	reports, exit, _, err := runProbe(ctx, c, checkSpec(ProfileWorker, "fork", "foreign", "unshare"))
	if err != nil {
		return err
	}
	if len(reports) != 2 || reports[0].Errno != syscall.EPERM || reports[1].Errno != syscall.EPERM || exit.Signal != syscall.SIGSYS {
		return fmt.Errorf("fork, int 0x80 and unshare gave %+v, exit %+v", reports, exit)
	}
	return nil
}

func wantPidsLimit(ctx context.Context, c *Client) error {
	reports, exit, result, err := runProbe(ctx, c, checkSpec(ProfileWorker, "threads"))
	if err != nil {
		return err
	}
	if len(reports) != 0 || !strings.Contains(result.Message, "pids limit") {
		return fmt.Errorf("starting threads gave %+v, exit %+v, %q", reports, exit, result.Message)
	}
	return nil
}

func wantKilled(ctx context.Context, c *Client, by string, change func(*Spec), attempt string) error {
	spec := checkSpec(ProfileWorker, attempt)
	change(&spec)
	reports, exit, result, err := runProbe(ctx, c, spec)
	if err != nil {
		return err
	}
	if len(reports) != 0 || result.Killed != by {
		return fmt.Errorf("%s gave %+v, exit %+v; killed by %q, want %q", attempt, reports, exit, result.Killed, by)
	}
	return nil
}
