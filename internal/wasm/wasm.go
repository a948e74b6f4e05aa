package wasm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	experimentalsys "github.com/tetratelabs/wazero/experimental/sys"
	"github.com/tetratelabs/wazero/experimental/sysfs"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// MaxModule bounds a module, in bytes: compiling takes time and memory by its size.
const MaxModule = 20 << 20

// maxPages are all that 32 bits can address.
const maxPages = 1 << 16

// The exit codes, beside the module's own.
const (
	exitOK       = 0
	exitFaults   = 1
	exitInternal = 70  // EX_SOFTWARE of sysexits(3)
	exitTrap     = 134 // what a shell calls an abort
)

// maxTrap bounds what is written about a trap: names of functions can be of any length.
const maxTrap = 8 << 10

// Dirs are the directories of a sandbox.
type Dirs struct {
	Bundle      string // the author's files, read only
	Compiled    string // the compilation cache
	Attachments string // the files of the message, read only
	Storage     string // the bot's durable folder
	Tmp         string
}

func sandboxDirs() Dirs {
	return Dirs{Bundle: "/bundle", Compiled: "/compiled", Attachments: "/attachments", Storage: "/storage", Tmp: "/tmp"}
}

// CompileMain is the builtin wasm-compile.
func CompileMain(_, stdout, stderr *os.File, args []string) int {
	return Compile(context.Background(), sandboxDirs(), stdout, stderr, args)
}

// Main is the builtin wasm.
func Main(stdin, stdout, stderr *os.File, args []string) int {
	return Run(context.Background(), sandboxDirs(), stdin, stdout, stderr, os.Environ(), args)
}

// report is wasm-compile's line.
type report struct {
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// faults are what an author has to mend, each a phrase about the module.
type faults []string

// Error implements error.
func (f faults) Error() string { return strings.Join(f, "\n") }

// Compile checks and compiles a module as wasm-compile does, and returns the exit code.
func Compile(ctx context.Context, dirs Dirs, stdout, stderr io.Writer, args []string) int {
	main, r := "", report{Status: "OK"}
	err := errors.New("want the module's name, and perhaps the bytes of memory that it may have")
	if len(args) == 1 || len(args) == 2 {
		main = args[0]
		err = compile(ctx, dirs, main, args[1:])
	}
	var f faults
	if errors.As(err, &f) {
		r = report{Status: "RE", Message: lines(main, f)}
		err = nil
	}
	if err == nil {
		err = json.NewEncoder(stdout).Encode(r)
	}
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "wasm-compile: %v\n", err)
		return exitInternal
	case len(f) > 0:
		return exitFaults
	}
	return exitOK
}

func lines(main string, f faults) string {
	var b strings.Builder
	for i, fault := range f {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s: %s", main, fault)
	}
	return b.String()
}

func compile(ctx context.Context, dirs Dirs, main string, limit []string) (err error) {
	defer recovered(&err)
	pages := uint32(maxPages)
	if len(limit) > 0 {
		if pages, err = pagesOf(limit[0]); err != nil {
			return err
		}
	}
	b, err := readModule(dirs.Bundle, main)
	if err != nil {
		return err
	}
	cache, err := wazero.NewCompilationCacheWithDir(dirs.Compiled)
	if err != nil {
		return fmt.Errorf("the compilation cache: %w", err)
	}
	rt := newRuntime(ctx, cache, pages)
	functions, err := wasiFunctions(ctx, rt)
	if err != nil {
		return err
	}
	if f := check(b, functions, uint64(pages)); len(f) > 0 {
		return faults(f)
	}
	_, err = rt.CompileModule(ctx, b)
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return faults{"takes more room compiled than the host has for it: make it smaller (Go: -ldflags='-s -w', TinyGo; Rust: opt-level='z')"}
	case errors.As(err, &errno):
		return err
	}
	return faults{"is not valid WebAssembly 2.0: " + firstLine(err) + ": build it without proposals that are newer"}
}

// readModule reads a module of the bundle. What is wrong with it is the author's.
func readModule(dir, main string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(filepath.Clean(main))
	if errors.Is(err, os.ErrNotExist) {
		return nil, faults{"is not in the bundle: main in bot.toml names the module's file"}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, faults{"is not a file: main in bot.toml names the module's file"}
	case info.Size() > MaxModule:
		return nil, faults{fmt.Sprintf("has %d bytes, and at most %d can be compiled: make it smaller (Go: -ldflags='-s -w', TinyGo; Rust: opt-level='z', strip=true)",
			info.Size(), MaxModule)}
	}
	b := make([]byte, info.Size())
	_, err = io.ReadFull(f, b)
	return b, err
}

func pagesOf(limit string) (uint32, error) {
	n, err := strconv.ParseInt(limit, 10, 64)
	if err != nil || n < pageSize {
		return 0, fmt.Errorf("memory %q: want a number of bytes, at least %d", limit, pageSize)
	}
	return uint32(min(n/pageSize, maxPages)), nil
}

// newRuntime makes a compiling engine.
func newRuntime(ctx context.Context, cache wazero.CompilationCache, pages uint32) wazero.Runtime {
	config := wazero.NewRuntimeConfigCompiler().WithMemoryLimitPages(pages).WithMemoryCapacityFromMax(true)
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	return wazero.NewRuntimeWithConfig(ctx, config)
}

// wasiFunctions are the functions that a module may import.
func wasiFunctions(ctx context.Context, rt wazero.Runtime) (map[string]signature, error) {
	host, err := wasi_snapshot_preview1.NewBuilder(rt).Compile(ctx)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", wasi, err)
	}
	functions := make(map[string]signature)
	for name, f := range host.ExportedFunctions() {
		functions[name] = signature{params: encoded(f.ParamTypes()), results: encoded(f.ResultTypes())}
	}
	return functions, nil
}

func encoded(types []api.ValueType) string { return string(types) }

// errEngine is wrapped when wazero gave up by a panic.
var errEngine = errors.New("the compiler failed")

// recovered makes an error of a panic: wazero's answer to what its compiler cannot do, and to memory that it cannot have or not seal.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errEngine, p)
	}
}

// Run runs a module as wasm does, and returns the exit code.
func Run(ctx context.Context, dirs Dirs, stdin io.Reader, stdout, stderr io.Writer, env, args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(stderr, "wasm: want the module's name and the bytes of memory that it may have")
		return exitInternal
	}
	main := args[0]
	rt, m, err := load(ctx, dirs, main, args[1], stderr)
	if err != nil {
		fmt.Fprintf(stderr, "wasm: %s: %v\n", main, err)
		return exitInternal
	}
	config := surroundings(dirs, main, env).WithStdin(stdin).WithStdout(stdout).WithStderr(stderr)
	return ended(main, start(ctx, rt, m, config), stderr)
}

// start runs a module to its end.
func start(ctx context.Context, rt wazero.Runtime, m wazero.CompiledModule, config wazero.ModuleConfig) (err error) {
	defer recovered(&err)
	ctx = experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(reserve))
	_, err = rt.InstantiateModule(ctx, m, config)
	return err
}

// load gives the module, ready to be run.
func load(ctx context.Context, dirs Dirs, main, limit string, stderr io.Writer) (rt wazero.Runtime, m wazero.CompiledModule, err error) {
	defer recovered(&err)
	pages, err := pagesOf(limit)
	if err != nil {
		return nil, nil, err
	}
	b, err := readModule(dirs.Bundle, main)
	if err != nil {
		return nil, nil, err
	}
	cache, err := wazero.NewCompilationCacheWithDir(dirs.Compiled)
	if err != nil {
		cache = nil
	}
	rt = newRuntime(ctx, cache, pages)
	m, missed := rt.CompileModule(ctx, b)
	if missed == nil {
		missed = err
	} else {
		rt = newRuntime(ctx, nil, pages)
		if m, err = rt.CompileModule(ctx, b); err != nil {
			return nil, nil, err
		}
	}
	if missed != nil {
		fmt.Fprintf(stderr, "%s: compiled anew, since it is not in the cache: %s\n", main, firstLine(missed))
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil, nil, fmt.Errorf("provide %s: %w", wasi, err)
	}
	return rt, m, nil
}

// surroundings are the module's world but for its standard streams.
func surroundings(dirs Dirs, main string, env []string) wazero.ModuleConfig {
	files := wazero.NewFSConfig().
		WithDirMount(dirs.Storage, "/storage").
		WithDirMount(dirs.Tmp, "/tmp").(sysfs.FSConfig).
		WithSysFSMount(newReadOnly(dirs.Bundle), "/bundle").(sysfs.FSConfig).
		WithSysFSMount(newReadOnly(dirs.Attachments), "/attachments")
	config := wazero.NewModuleConfig().WithName("").WithArgs(main).WithFSConfig(files).
		WithSysWalltime().WithSysNanotime().WithSysNanosleep().WithRandSource(rand.Reader)
	for _, v := range env {
		if key, value, ok := strings.Cut(v, "="); ok && key != "" {
			config = config.WithEnv(key, value)
		}
	}
	return config
}

// readOnly is a directory that a module cannot change.
type readOnly struct{ experimentalsys.FS }

func newReadOnly(dir string) readOnly { return readOnly{&sysfs.ReadFS{FS: sysfs.DirFS(dir)}} }

// OpenFile says that the directory is read-only, where wazero says that writing is not implemented.
func (r readOnly) OpenFile(path string, flag experimentalsys.Oflag, perm fs.FileMode) (experimentalsys.File, experimentalsys.Errno) {
	f, errno := r.FS.OpenFile(path, flag, perm)
	if errno == experimentalsys.ENOSYS {
		errno = experimentalsys.EROFS
	}
	return f, errno
}

// ended turns the end of a module into an exit code, and explains a trap.
func ended(main string, err error, stderr io.Writer) int {
	if err == nil {
		return exitOK
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		return int(min(exit.ExitCode(), 255))
	}
	if errors.Is(err, errEngine) {
		fmt.Fprintf(stderr, "wasm: %s: %v\n", main, err)
		return exitInternal
	}
	text := err.Error()
	for _, prefix := range []string{"module[] function[_start] failed: ", "wasm error: "} { // wazero's
		text = strings.TrimPrefix(text, prefix)
	}
	if len(text) > maxTrap {
		text = strings.ToValidUTF8(text[:maxTrap], "") + "…"
	}
	fmt.Fprintf(stderr, "%s: trap: %s\n", main, text)
	return exitTrap
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return clip(line)
}
