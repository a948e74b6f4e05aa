package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// Builtin is a program that mayfly-sandbox itself contains. It is called with what its Program names as arguments as soon as its
// launcher is there, while the stage still builds the root: what it can make ready without a file and without foreign bytes, it makes
// ready then. What it returns runs confined and returns the exit code.
type Builtin func(stdin, stdout, stderr *os.File, args []string) (run func() int)

// Unprepared is the Builtin of a program that makes nothing ready.
func Unprepared(main func(stdin, stdout, stderr *os.File, args []string) int) Builtin {
	return func(stdin, stdout, stderr *os.File, args []string) func() int {
		return func() int { return main(stdin, stdout, stderr, args) }
	}
}

// ExitNotRun is a launcher's exit code when the program could not be confined or run. Its stderr says why.
const ExitNotRun = 126

// A launcher's file descriptors, beside the program's standard streams.
const (
	goFD     = 3 // one byte on it is the word to go; its end of file, to exit
	binaryFD = 4
)

// maxOpenFiles is the programs' RLIMIT_NOFILE.
const maxOpenFiles = 256

// launcher is a program that has been started, or waits to be.
type launcher struct {
	program wire.Program
	cmd     *exec.Cmd
	goPipe  *os.File // nil when the word has been given
	done    chan struct{}
}

// order is what a launcher is told, as JSON in its arguments.
type order struct {
	Spec    wire.Spec // without programs
	Program wire.Program
}

// startLaunchers starts one launcher for each program. They inherit what the calling thread has renounced, and are the first
// to die when memory runs out: the stage shall live to tell.
func startLaunchers(spec wire.Spec) ([]*launcher, error) {
	if err := oomScore("1000"); err != nil {
		return nil, err
	}
	var launchers []*launcher
	fd := firstFD
	for _, p := range spec.Programs {
		var files []*os.File
		for range p.Files() {
			files = append(files, os.NewFile(uintptr(fd), p.Name))
			fd++
		}
		l, err := startLauncher(spec, p, files)
		wire.Frame{Files: files}.CloseFiles()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		launchers = append(launchers, l)
	}
	return launchers, oomScore("0")
}

func oomScore(value string) error { return os.WriteFile("/proc/self/oom_score_adj", []byte(value), 0) }

func startLauncher(spec wire.Spec, p wire.Program, files []*os.File) (*launcher, error) {
	spec.Programs = nil
	arg, err := encodeOrder(order{spec, p})
	if err != nil {
		return nil, err
	}
	wait, word, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer wait.Close()
	l := &launcher{program: p, goPipe: word, done: make(chan struct{})}
	l.cmd = &exec.Cmd{Path: "/proc/self/exe", Args: []string{"mayfly-sandbox", "launch", arg}, Env: append([]string{}, p.Env...),
		Dir: "/", Stdin: files[0], Stdout: files[1], Stderr: files[2], ExtraFiles: append([]*os.File{wait}, files[3:]...)}
	if err := l.cmd.Start(); err != nil {
		word.Close()
		return nil, err
	}
	return l, nil
}

// Launch is `mayfly-sandbox launch`: it sets its resource limits and waits for the word, which comes when the root is built. Then it
// fences itself in with Landlock, loads its seccomp profile, and is the program; or it becomes bubblewrap, for a program with a Path,
// which does the same further inside (see Enter).
func Launch(args []string, builtins map[string]Builtin, stdin, stdout, stderr *os.File) int {
	runtime.LockOSThread()
	code, err := launch(args, builtins, stdin, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "launch:", err)
		return ExitNotRun
	}
	return code
}

func launch(args []string, builtins map[string]Builtin, stdin, stdout, stderr *os.File) (int, error) {
	o, err := readOrder(args)
	if err != nil {
		return 0, err
	}
	p := o.Program
	builtin := builtins[p.Builtin]
	if builtin == nil && p.Builtin != "" {
		return 0, fmt.Errorf("no builtin program %q", p.Builtin)
	}
	if err := limitResources(p, o.Spec.Limit()); err != nil {
		return 0, err
	}
	filter, err := assembleProfile(p.Profile)
	if err != nil {
		return 0, err
	}
	var run func() int
	if builtin != nil {
		run = builtin(stdin, stdout, stderr, p.Args)
	}
	more, err := awaitWord()
	if err != nil {
		return 0, err
	}
	env := append(p.Env, more...)
	if p.Path != "" {
		return 0, execBubblewrap(o, filter, env)
	}
	if err := o.confine(filter); err != nil {
		return 0, err
	}
	if p.Binary {
		return 0, execBinary(p, env)
	}
	os.Clearenv()
	for _, v := range env {
		key, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(key, value); err != nil {
			return 0, err
		}
	}
	return run(), nil
}

func encodeOrder(o order) (string, error) {
	b, err := json.Marshal(o)
	return string(b), err
}

func readOrder(args []string) (order, error) {
	var o order
	if len(args) != 1 {
		return o, errors.New("want one order; this verb is the stage's")
	}
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return o, fmt.Errorf("order: %w", err)
	}
	return o, nil
}

// limitResources sets what is inherited by whatever this process becomes. The capabilities are gone already.
func limitResources(p wire.Program, fsize int64) error {
	unix.Umask(0o077)
	if err := noCore(p); err != nil {
		return err
	}
	for _, l := range []struct {
		name  takedown.Wall
		which int
		value uint64
	}{
		{takedown.Nofile, unix.RLIMIT_NOFILE, maxOpenFiles},
		{takedown.Memlock, unix.RLIMIT_MEMLOCK, 0},
		{takedown.Msgqueue, unix.RLIMIT_MSGQUEUE, 0},
		{takedown.Fsize, unix.RLIMIT_FSIZE, uint64(fsize)},
	} {
		if takedown.Down(l.name) {
			continue
		}
		if err := unix.Setrlimit(l.which, &unix.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return fmt.Errorf("set %s: %w", l.name, err)
		}
	}
	return closeOnExec(goFD)
}

// confine puts up what stands around this process itself: it is called in the finished root.
func (o order) confine(filter []unix.SockFilter) error {
	if o.Program.Dir != "" {
		if err := os.Chdir(o.Program.Dir); err != nil {
			return err
		}
	}
	if err := o.landlock(o.Program.Builtin != ""); err != nil {
		return err
	}
	if err := loadFilter(filter); err != nil {
		return fmt.Errorf("seccomp profile %s: %w", o.Program.Profile, err)
	}
	return nil
}

// landlock is passed over where the kernel has none and the Spec does not insist.
func (o order) landlock(all bool) error {
	err := landlock(o.Spec, o.Program, all)
	if errors.Is(err, errNoLandlock) && !o.Spec.Landlock {
		return nil
	}
	return err
}

// closeOnExec keeps the file descriptors from first on from everything that is executed.
func closeOnExec(first uint) error {
	if takedown.Down(takedown.Descriptors) {
		return nil
	}
	if err := unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close files on exec: %w", err)
	}
	return nil
}

// noCore sees to it that no program is ever dumped: by a limit of 1 byte, at which the kernel gives up. At 0 it would still start
// the host's handler, as root, where core_pattern names one (core(5)). What is not executed is undumpable besides.
func noCore(p wire.Program) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return fmt.Errorf("read rlimit core: %w", err)
	}
	if !takedown.Down(takedown.Core) {
		l.Max = min(l.Max, 1) // we may not raise it again
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return fmt.Errorf("set rlimit core: %w", err)
	}
	if p.Binary || takedown.Down(takedown.Undumpable) {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("become undumpable: %w", err)
	}
	return nil
}

// awaitWord blocks until the stage gives the word, which is what to add to the environment.
func awaitWord() ([]string, error) {
	word := os.NewFile(goFD, "word")
	defer word.Close()
	var env []string
	if err := json.NewDecoder(word).Decode(&env); err != nil {
		return nil, fmt.Errorf("wait for the word: %w", err)
	}
	return env, nil
}

// execBinary becomes the program whose executable is open as binaryFD. It returns only on failure.
func execBinary(p wire.Program, env []string) error {
	argv, err := syscall.SlicePtrFromStrings(append([]string{p.Name}, p.Args...))
	if err != nil {
		return err
	}
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, binaryFD, uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&argv[0])),
		uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("run the binary of %s (is it static, and executable?): %w", p.Name, errno)
}
