package sandbox

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/wasm/wasmtest"
)

// compileSpec is the sandbox in which a module is compiled.
func compileSpec(args ...string) Spec {
	return Spec{
		Name: "wasm-compile", Memory: 512 << 20, Pids: 64, Wall: 60 * time.Second,
		Dirs: []Dir{
			{Path: "/bundle", Size: 32 << 20, Inodes: 100},
			{Path: "/compiled", Size: 128 << 20, Inodes: 100, Writable: true},
		},
		Programs: []Program{{Name: "main", Builtin: "wasm-compile", Profile: ProfileWASM, Args: append([]string{"main.wasm"}, args...)}},
	}
}

// wasmSpec is the sandbox in which a module runs, as a bot's does.
func wasmSpec() Spec {
	return Spec{
		Name: "wasm", Memory: 128 << 20, Pids: 64, Wall: 20 * time.Second,
		Dirs: []Dir{
			{Path: "/bundle", Size: 32 << 20, Inodes: 100},
			{Path: "/compiled", Size: 128 << 20, Inodes: 100},
			{Path: "/attachments", Size: 1 << 20, Inodes: 100},
			{Path: "/storage", Size: 1 << 20, Inodes: 100, Writable: true},
			{Path: "/tmp", Size: 1 << 20, Inodes: 100, Writable: true},
		},
		Programs: []Program{{Name: "main", Builtin: "wasm", Profile: ProfileWASM, Dir: "/tmp", Args: []string{"main.wasm", fmt.Sprint(64 << 20)}}},
	}
}

// compileWASM compiles a module in a sandbox of its own and returns its report, its cache as a tar archive, and the run.
func compileWASM(t testing.TB, module []byte) (string, []byte, Result) {
	t.Helper()
	s := open(t, compileSpec())
	putModule(t, s, module)
	if err := s.Start("main"); err != nil {
		t.Fatal(err)
	}
	report, _ := io.ReadAll(s.Program("main").Stdout)
	why, _ := io.ReadAll(s.Program("main").Stderr)
	if exit, err := s.Wait(t.Context(), "main"); err != nil || exit.Code > 1 || exit.Signal != 0 {
		t.Fatalf("wasm-compile ended with %+v, %v: %s", exit, err, why)
	}
	r, err := s.Collect("/compiled")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cache, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	result, err := s.Close()
	if err != nil {
		t.Fatal(err)
	}
	return string(report), cache, result
}

func putModule(t testing.TB, s *Sandbox, module []byte) {
	t.Helper()
	if err := s.PutFile("/bundle/main.wasm", int64(len(module)), bytes.NewReader(module)); err != nil {
		t.Fatal(err)
	}
}

func openWASM(t testing.TB, spec Spec, module, cache []byte) *Sandbox {
	t.Helper()
	s := open(t, spec)
	putModule(t, s, module)
	if cache != nil {
		if err := s.Put("/compiled", bytes.NewReader(cache)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func runWASM(t testing.TB, spec Spec, module, cache []byte, stdin string, env ...string) nativeRun {
	t.Helper()
	s := openWASM(t, spec, module, cache)
	if err := s.Start("main", env...); err != nil {
		t.Fatal(err)
	}
	return endNative(t, s, stdin)
}

// TestWASM compiles a module in one sandbox and runs it in others.
func TestWASM(t *testing.T) {
	module := wasmtest.Build(t, "../wasm/testdata/guest")
	report, cache, result := compileWASM(t, module)
	if report != "{\"status\":\"OK\"}\n" {
		t.Fatalf("report: %s", report)
	}
	t.Logf("compiled %d bytes to %d in %s, CPU %s, peak %d MB", len(module), len(cache), result.Wall, result.CPU, result.Memory>>20)
	tests := []struct {
		name, stdin, want string
	}{
		{"streams", "echo\none\ntwo", "one\ntwo"},
		{"arguments", "args", "[\"main.wasm\"]\n"},
		{"environment", "env BOT", "dice 1\n"},
		{"the bundle", "list /bundle", "[- main.wasm]\n"},
		{"the root is not there", "list /", "[]\nerror: open /: Bad file number\n"},
		{"nor the cache", "list /compiled", "[]\nerror: open /compiled: Bad file number\n"},
		{"storage", "write /storage/new", ""},
		{"the bundle is sealed", "write /bundle/new", "error: open /bundle/new: Read-only file system\n"},
		{"so are attachments", "write /attachments/new", "error: open /attachments/new: Read-only file system\n"},
		{"no links out", "link ../bundle /storage/out", "error: symlink ../bundle /storage/out: Operation not permitted\n"},
		{"no links at all", "hardlink /bundle/main.wasm /storage/out", "error: link /bundle/main.wasm /storage/out: Not implemented on wasip1\n"},
		{"no sockets", "connect 127.0.0.1:25", "error: dial tcp 127.0.0.1:25: address 127.0.0.1:25: connect: Connection refused\n"},
		{"memory", "memory 20", "has 20\n"},
	}
	for _, tt := range tests {
		run := runWASM(t, wasmSpec(), module, cache, tt.stdin, "BOT=dice")
		if run.stdout != tt.want || run.exit != (Exit{}) || run.stderr != "" && tt.name != "streams" {
			t.Errorf("%s: got %+v, want %q", tt.name, run, tt.want)
		}
	}
	if run := runWASM(t, wasmSpec(), module, cache, "world"); !strings.Contains(run.stdout, " true [") {
		t.Errorf("clocks and random numbers: %+v", run)
	}
	if run := runWASM(t, wasmSpec(), module, cache, "exit 75"); run.exit != (Exit{Code: 75}) || run.stderr != "" {
		t.Errorf("exit code: %+v", run)
	}
	if run := runWASM(t, wasmSpec(), module, cache, "memory 200"); run.exit != (Exit{Code: 2}) || !strings.Contains(run.stderr, "out of memory") || run.result.OOMKilled {
		t.Errorf("memory beyond the module's limit: %+v", run)
	}
	t.Run("folder", func(t *testing.T) { wasmFolder(t, module, cache) })
	t.Run("wall clock", func(t *testing.T) { wasmSpins(t, module, cache) })
	t.Run("garbage", func(t *testing.T) { wasmCallsMuch(t, module, cache) })
	t.Run("cache", func(t *testing.T) { wasmCache(t, module, cache) })
}

// wasmFolder takes out what a module has written.
func wasmFolder(t *testing.T, module, cache []byte) {
	s := openWASM(t, wasmSpec(), module, cache)
	if err := s.Start("main"); err != nil {
		t.Fatal(err)
	}
	p := s.Program("main")
	io.WriteString(p.Stdin, "append /storage/new\n")
	p.Stdin.Close()
	if exit, err := s.Wait(t.Context(), "main"); err != nil || exit != (Exit{}) {
		t.Fatalf("ended with %+v, %v", exit, err)
	}
	r, err := s.Collect("/storage")
	if err != nil {
		t.Fatal(err)
	}
	if got := unarchive(t, r); len(got) != 1 || got[0].name != "new" || got[0].body != "more" {
		t.Errorf("the folder holds %+v", got)
	}
}

func wasmSpins(t *testing.T, module, cache []byte) {
	spec := wasmSpec()
	spec.Wall = 2 * time.Second
	if run := runWASM(t, spec, module, cache, "spin"); run.result.Killed != "wall" {
		t.Errorf("a module that spins: %+v", run)
	}
}

// wasmCallsMuch leaves garbage with the host while the module's own memory is full: together they have to fit.
func wasmCallsMuch(t *testing.T, module, cache []byte) {
	spec := wasmSpec()
	spec.Memory = 80 << 20
	for i := range spec.Dirs {
		spec.Dirs[i].Size = min(spec.Dirs[i].Size, 16<<20) // the cgroup has room for them too
	}
	run := runWASM(t, spec, module, cache, "calls 24")
	t.Logf("peak %d MB", run.result.Memory>>20)
	if run.stdout != "has 24\n" || run.exit != (Exit{}) {
		t.Errorf("a module that calls much: %+v", run)
	}
}

// wasmCache: the cache is not written, and a module runs without.
func wasmCache(t *testing.T, module, cache []byte) {
	const anew = "main.wasm: compiled anew, since it is not in the cache: "
	roomy := wasmSpec()
	roomy.Memory = 512 << 20
	damaged := rewrite(t, cache, func(h *tar.Header, body []byte) []byte { body[len(body)/2] ^= 1; return body })
	foreign := rewrite(t, cache, func(h *tar.Header, body []byte) []byte { h.Name += "0"; return body })
	older := rewrite(t, cache, func(_ *tar.Header, body []byte) []byte { return bytes.Replace(body, []byte("v1."), []byte("v0."), 1) })
	for name, c := range map[string][]byte{"none": nil, "damaged": damaged, "of another CPU": foreign, "older": older} {
		run := runWASM(t, roomy, module, c, "args")
		if run.stdout != "[\"main.wasm\"]\n" || run.exit != (Exit{}) || !strings.HasPrefix(run.stderr, anew) || strings.Count(run.stderr, "\n") != 1 {
			t.Errorf("cache %s: %+v", name, run)
		}
		t.Logf("cache %s: %s, peak %d MB, %s", name, run.result.Wall, run.result.Memory>>20, run.stderr)
	}
}

// TestWASMNeedsItsProfile: under another one nothing is compiled, and it is not the author's fault.
func TestWASMNeedsItsProfile(t *testing.T) {
	spec := compileSpec()
	spec.Programs[0].Profile = ProfileWorker
	run := runWASM(t, spec, []byte("\x00asm\x01\x00\x00\x00"), nil, "")
	if run.exit != (Exit{Code: 70}) || run.stdout != "" || run.stderr != "wasm-compile: the compiler failed: operation not permitted\n" {
		t.Errorf("compiled under the worker's profile: %+v", run)
	}
}

// rewrite makes another archive of the files of one.
func rewrite(t *testing.T, archive []byte, change func(*tar.Header, []byte) []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			body = change(h, body)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestWASMTraps runs the least module, which does what cannot be done.
func TestWASMTraps(t *testing.T) {
	module := []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" + "\x07\x0a\x01\x06_start\x00\x00" + "\x0a\x05\x01\x03\x00\x00\x0b")
	report, cache, _ := compileWASM(t, module)
	if report != "{\"status\":\"OK\"}\n" {
		t.Fatal(report)
	}
	run := runWASM(t, wasmSpec(), module, cache, "")
	if run.exit != (Exit{Code: 128 + int(syscall.SIGABRT)}) || !strings.HasPrefix(run.stderr, "main.wasm: trap: unreachable\nwasm stack trace:\n\t") {
		t.Errorf("trap: %+v", run)
	}
}

func TestWASMIsRefused(t *testing.T) {
	report, _, _ := compileWASM(t, []byte("\x00asm\x01\x00\x00\x00"+"\x01\x04\x01\x60\x00\x00"+"\x02\x09\x01\x03env\x01f\x00\x00"))
	if !strings.HasPrefix(report, `{"status":"RE","message":"main.wasm: imports from \"env\" (f), and only `) || !strings.Contains(report, `\nmain.wasm: exports no function _start`) {
		t.Errorf("report: %s", report)
	}
}

// BenchmarkWASM is the time of a run of the least Go module from the cache: to the open sandbox, until the module and its machine code
// are in it, from there to the module's output, and to the end of Close.
func BenchmarkWASM(b *testing.B) {
	module := wasmtest.Build(b, "../wasm/testdata/hello")
	_, cache, compiled := compileWASM(b, module)
	var opened, filled, said time.Duration
	var peak int64
	for b.Loop() {
		begun := time.Now()
		s, err := broker.Client().Open(b.Context(), wasmSpec())
		if err != nil {
			b.Fatal(err)
		}
		opened += time.Since(begun)
		putModule(b, s, module)
		if err := s.Put("/compiled", bytes.NewReader(cache)); err != nil {
			b.Fatal(err)
		}
		filled += time.Since(begun)
		if err := s.Start("main"); err != nil {
			b.Fatal(err)
		}
		if out, err := io.ReadAll(s.Program("main").Stdout); err != nil || string(out) != "hello\n" {
			b.Fatal(string(out), err)
		}
		said += time.Since(begun)
		r, err := s.Close()
		if err != nil {
			b.Fatal(err)
		}
		peak = max(peak, r.Memory)
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
	b.ReportMetric(ms(opened), "open-ms")
	b.ReportMetric(ms(filled-opened), "fill-ms")
	b.ReportMetric(ms(said-filled), "run-ms")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MB")
	b.ReportMetric(compiled.CPU.Seconds()*1000, "compile-ms")
	b.ReportMetric(float64(compiled.Memory)/(1<<20), "compile-peak-MB")
}
