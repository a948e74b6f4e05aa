// Package hostile is a suite of programs that try to break out of the sandbox, and the proof that they are held.
//
// The programs are in testdata: js (scripts for the worker), engine (what a script could do whose engine has been taken over), wasm,
// py, sh and c. Each begins with its manifest, in comments:
//
//	wall: memory                     the wall that it tries; see walls
//	tries: …                         what it tries, in words
//	paths: core native               where it is run; otherwise everywhere where programs of its kind run
//	runs: heap stack                 variants, each in a sandbox of its own; its first argument
//	limits: wall=1s cpu=1s memory=64 what is lowered, so that the test is quick
//	ends: killed memory              what its author reads: "exit N", "signal NAME", "killed LIMIT", "done STATUS" of a script, or "done late"
//	                                 and "done broken" when the daemon has ended it; joined by "or"
//	says: regexp                     and what the message must match
//	folder: kept | refused regexp    what becomes of what it leaves in its folder
//	within: 4s                       how long it may take, all in all, on a machine at rest
//	quiet                            its log may be lost in a flood
//
// runs, ends, says and folder may be for one path, for one variant or for both: "ends core fork: exit 0".
//
// A program says "trying: …", then "held: …" or "BROKE: …". It passes when it has tried, nothing broke, it has ended as its manifest
// says, and when nothing can be seen of it from outside: no process, cgroup, mount, socket, IPC object or file of its user is left;
// nobody has connected to the host's ports; another bot's secrets and the daemon's are in nothing that it gave back; and the next run
// takes no longer than before. The whole suite runs in a cage (cage_test.go), which bounds it where a wall fails, and in whose network
// the host's ports, private addresses and the cloud's metadata are ours.
//
// TestMatrix prints which walls are tried on which paths; no cell may be empty. TestPosture looks at live programs from outside.
// TestWithout takes one wall after the other down, and wants the tests named there to fail. `make hostile` runs all of it and
// `make hostile WITHOUT=memory` the last for one wall.
package hostile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"mayfly/internal/sandbox"
	"mayfly/internal/session"
	"mayfly/internal/storage"
)

// brokerUID is the user of all sandboxes of this suite, and of nothing else on the machine.
const brokerUID = 64191

// canary is what no program may ever get to read.
const canary = "CANARY-5b1f7c"

// world is what the tests share: the programs, built, a broker, the host as the programs could find it, and somebody else's bot.
type world struct {
	dir    string
	corpus []program
	host   *host
	broker *sandbox.Broker
	victim *sandbox.Sandbox
	binary string // mayfly-sandbox, as in production
	native string // the C programs, in one static binary
	wasm   string // the WASM programs, in one module

	compiled []byte       // the same, compiled
	room     storage.Room // of a bot's folder that is empty
}

// shared is set once, before the first test.
var shared *world

func inCage(m *testing.M) int {
	w, err := newWorld()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		return 1
	}
	code := m.Run()
	if err := w.close(); err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		return 1
	}
	return code
}

// newWorld makes the world, which the Specs need to be shared already.
func newWorld() (*world, error) {
	dir, err := os.MkdirTemp("", "mayfly-hostile-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, binary: filepath.Join(dir, "mayfly-sandbox"), native: filepath.Join(dir, "programs"), wasm: filepath.Join(dir, "programs.wasm")}
	shared = w
	if err := w.open(); err != nil {
		_ = w.close() // the first error counts
		return nil, err
	}
	return w, nil
}

func (w *world) open() (err error) {
	if w.corpus, err = readCorpus("testdata"); err != nil {
		return err
	}
	if err := detach(); err != nil {
		return fmt.Errorf("the cage's mounts: %w", err)
	}
	if err := network(); err != nil {
		return fmt.Errorf("the cage's network: %w", err)
	}
	if err := buildSandbox(w.binary, ""); err != nil {
		return err
	}
	if err := buildNative(w.native, w.corpus); err != nil {
		return err
	}
	if err := buildWASM(w.wasm); err != nil {
		return err
	}
	if w.room, err = emptyRoom(w.dir); err != nil {
		return err
	}
	if w.host, err = newHost(w.dir); err != nil {
		return fmt.Errorf("the host to be attacked: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if w.broker, err = startBroker(ctx, w.binary); err != nil {
		return err
	}
	if err := w.compile(ctx); err != nil {
		return err
	}
	return w.openVictim(ctx)
}

// emptyRoom is what a bot's folder gets that is empty.
func emptyRoom(dir string) (storage.Room, error) {
	store, err := storage.Open(filepath.Join(dir, "empty"))
	if err != nil {
		return storage.Room{}, err
	}
	defer store.Close()
	return store.Room("bot@example.org", storage.Folder, 0, folderRulesOf(session.DefaultLimits()))
}

// broker is one that can be asked for sandboxes.
type broker struct {
	client *sandbox.Client
	pid    int
}

// home is the broker of mayfly-sandbox as it is in production.
func (w *world) home() broker { return broker{w.broker.Client(), w.broker.PID()} }

func startBroker(ctx context.Context, binary string) (*sandbox.Broker, error) {
	return sandbox.StartBroker(ctx, sandbox.StartOptions{Binary: binary, UID: brokerUID})
}

func (w *world) close() error {
	if w.victim != nil {
		w.victim.Close()
	}
	if w.broker != nil {
		if err := w.broker.Close(); err != nil {
			return err
		}
	}
	if w.host != nil {
		w.host.close()
	}
	return os.RemoveAll(w.dir)
}

// buildSandbox builds mayfly-sandbox: as in production, or with one wall down.
func buildSandbox(to, without string) error {
	args := []string{"build", "-o", to}
	if without != "" {
		args = append(args, "-tags", "takedown", "-ldflags", "-X mayfly/internal/stage/takedown.down="+without)
	}
	return goCommand(nil, append(args, "mayfly/cmd/mayfly-sandbox")...)
}

func buildWASM(to string) error {
	return goCommand([]string{"GOOS=wasip1", "GOARCH=wasm"}, "build", "-o", to, "mayfly/test/hostile/testdata/wasm")
}

func goCommand(env []string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return nil
}
