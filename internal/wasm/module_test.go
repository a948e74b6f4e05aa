package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// assembled makes a module of sections.
func assembled(sections ...[]byte) []byte {
	return append([]byte(magic+moduleVersion), slices.Concat(sections...)...)
}

func section(id byte, entries ...string) []byte {
	body := append(binary.AppendUvarint(nil, uint64(len(entries))), strings.Join(entries, "")...)
	return append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...)
}

func text(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }

// The pieces of the modules below.
const (
	typeStart   = "\x60\x00\x00"                     // func()
	typeExit    = "\x60\x01\x7f\x00"                 // func(i32)
	typeWrite   = "\x60\x04\x7f\x7f\x7f\x7f\x01\x7f" // func(i32, i32, i32, i32) i32
	unreachable = "\x03\x00\x00\x0b"
	recurse     = "\x04\x00\x10\x00\x0b" // call 0
)

func exportStart(index string) []byte { return section(sectionExport, text("_start")+"\x00"+index) }

// command is the least module that can run; it does code.
func command(code string, more ...[]byte) []byte {
	sections := append([][]byte{section(sectionType, typeStart), section(sectionFunction, "\x00")}, more...)
	return assembled(append(sections, exportStart("\x00"), section(10, code))...)
}

func TestCheck(t *testing.T) {
	imports := func(entries ...string) []byte {
		return assembled(section(sectionType, typeStart, typeExit), section(sectionImport, entries...), section(sectionFunction, "\x00"),
			section(sectionExport, text("_start")+"\x00"+string(rune(len(entries)))), section(10, unreachable))
	}
	var many []string
	for range 7 {
		many = append(many, text("env")+text("abort")+"\x00\x01")
	}
	tests := []struct {
		name   string
		module []byte
		want   []string // the beginnings of the lines
	}{
		{"good", command(unreachable), nil},
		{"a function of WASI", imports(text(wasi) + text("proc_exit") + "\x00\x01"), nil},
		{"no module", []byte("#!/bin/sh\n"), []string{`main.wasm: is no WebAssembly module, it begins with "#!/bin/s": build`}},
		{"nothing", nil, []string{`main.wasm: is no WebAssembly module, it begins with "": build`}},
		{"a component", []byte(magic + "\x0d\x00\x01\x00"), []string{"main.wasm: is a component (WASI preview 2), and only modules can run: build"}},
		{"another version", []byte(magic + "\x02\x00\x00\x00"), []string{"main.wasm: is a module of an unknown version"}},
		{"cut off", assembled([]byte{1, 9, 1}), []string{"main.wasm: is no WebAssembly module that can be read: section 1: it ends too early: build"}},
		{"a list that is too long", append(command(unreachable), "\x0b\x05\xff\xff\xff\xff\x0f"...), []string{"main.wasm: is no WebAssembly module that can be read: section 11: it ends too early: build"}},
		{"garbage collection", assembled(section(sectionType, "\x5f\x00")), []string{"main.wasm: is no WebAssembly module that can be read: section 1: type 0x5f:"}},
		{"of the browser", imports(many...), []string{`main.wasm: imports from "env" (abort, abort, abort, abort, abort, and 2 more), and only wasi_snapshot_preview1 is there: is it built for the browser (Emscripten)`}},
		{"of GOOS=js", imports(text("gojs") + text("runtime.nanotime1") + "\x00\x01"), []string{`main.wasm: imports from "gojs" (runtime.nanotime1), and only wasi_snapshot_preview1 is there: it is built for a browser (GOOS=js): build it with GOOS=wasip1`}},
		{"of wasm-bindgen", imports(text("wbg") + text("x") + "\x00\x01"), []string{`main.wasm: imports from "wbg" (x), and only wasi_snapshot_preview1 is there: wasm-bindgen is for JavaScript`}},
		{"of an old toolchain", imports(text("wasi_unstable") + text("x") + "\x00\x01"), []string{`main.wasm: imports from "wasi_unstable" (x), and only wasi_snapshot_preview1 is there: it is built with an old`}},
		{"no such function", imports(text(wasi) + text("thread\nspawn") + "\x00\x01"), []string{"main.wasm: imports the function wasi_snapshot_preview1.thread?spawn, which does not exist: build"}},
		{"another function", imports(text(wasi) + text("proc_exit") + "\x00\x00"), []string{"main.wasm: imports the function wasi_snapshot_preview1.proc_exit with other parameters"}},
		{"no function", assembled(section(sectionType, typeStart), section(sectionImport, text(wasi)+text("m")+"\x02\x00\x01", text("env")+text("t")+"\x01\x70\x00\x01",
			text(wasi)+text("g")+"\x03\x7f\x00"), section(sectionFunction, "\x00"), exportStart("\x00")), []string{
			"main.wasm: imports the memory wasi_snapshot_preview1.m, and there are only functions: build",
			"main.wasm: imports the global wasi_snapshot_preview1.g, and there are only functions: build",
			`main.wasm: imports from "env" (t), and only`}},
		{"a library", assembled(section(sectionType, typeStart), section(sectionFunction, "\x00"), section(sectionExport, text("_initialize")+"\x00\x00")),
			[]string{"main.wasm: exports no function _start, so nothing would run: is it a library"}},
		{"a start that is a memory", assembled(section(sectionMemory, "\x00\x01"), section(sectionExport, text("_start")+"\x02\x00")), []string{"main.wasm: exports a _start that is no function"}},
		{"a start with a parameter", assembled(section(sectionType, typeExit), section(sectionFunction, "\x00"), exportStart("\x00")), []string{"main.wasm: exports a _start with parameters"}},
		{"two memories", command(unreachable, section(sectionMemory, "\x00\x01", "\x00\x01")), []string{"main.wasm: has 2 memories, and can have one: build"}},
		{"threads", command(unreachable, section(sectionMemory, "\x03\x01\x02")), []string{"main.wasm: shares its memory between threads"}},
		{"64 bits", command(unreachable, section(sectionMemory, "\x04\x01")), []string{"main.wasm: has a memory of 64-bit addresses"}},
		{"the most memory", command(unreachable, section(sectionMemory, "\x00\x80\x08")), nil},
		{"too much memory", command(unreachable, section(sectionMemory, "\x00\x81\x08")), []string{"main.wasm: needs 67.2 MB of memory to start, and may have 67.1 MB: link"}},
		{"all at once", assembled(section(sectionType, typeStart), section(sectionImport, text("env")+text("f")+"\x00\x00"), section(sectionMemory, "\x00\x81\x08", "\x00\x01")), []string{
			`main.wasm: imports from "env" (f)`, "main.wasm: exports no function _start", "main.wasm: has 2 memories", "main.wasm: needs 67.2 MB"}},
		{"code that is none", command("\x03\x00\xff\x0b"), []string{"main.wasm: is not valid WebAssembly 2.0: "}},
	}
	for _, tt := range tests {
		d := makeDirs(t, tt.module)
		r, code := compileIn(t, d, testMemory)
		if len(tt.want) == 0 {
			if r.Status != "OK" || code != exitOK {
				t.Errorf("%s: got %+v, code %d", tt.name, r, code)
			}
			continue
		}
		lines := strings.Split(r.Message, "\n")
		ok := r.Status == "RE" && code == exitFaults && len(lines) == len(tt.want)
		for i := range min(len(lines), len(tt.want)) {
			ok = ok && strings.HasPrefix(lines[i], tt.want[i])
		}
		if !ok {
			t.Errorf("%s: got %s, code %d:\n%s\nwant\n%s", tt.name, r.Status, code, r.Message, strings.Join(tt.want, "\n"))
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var imports []string
	for i := range 10_000 {
		imports = append(imports, text(strings.Repeat("é", 500)+string(rune(0x4e00+i)))+text("f")+"\x00\x00")
	}
	d := makeDirs(t, assembled(section(sectionType, typeStart), section(sectionImport, imports...)))
	if r, _ := compileIn(t, d); strings.Count(r.Message, "\n") > 60 || len(r.Message) > 32<<10 || !strings.HasSuffix(r.Message, "more") {
		t.Errorf("a report of %d bytes, ending in %q", len(r.Message), r.Message[max(0, len(r.Message)-100):])
	}
}

func TestModuleIsRefusedUnread(t *testing.T) {
	d := makeDirs(t, nil)
	if err := os.Truncate(d.Bundle+"/main.wasm", MaxModule+1); err != nil {
		t.Fatal(err)
	}
	if r, code := compileIn(t, d); code != exitFaults || !strings.HasPrefix(r.Message, "main.wasm: has 20971521 bytes, and at most 20971520 can be compiled: make it smaller") {
		t.Errorf("too large: got %+v, code %d", r, code)
	}
	if err := os.Remove(d.Bundle + "/main.wasm"); err != nil {
		t.Fatal(err)
	}
	if r, code := compileIn(t, d); code != exitFaults || !strings.HasPrefix(r.Message, "main.wasm: is not in the bundle") {
		t.Errorf("missing: got %+v, code %d", r, code)
	}
	if err := os.Mkdir(d.Bundle+"/main.wasm", 0o700); err != nil {
		t.Fatal(err)
	}
	if r, code := compileIn(t, d); code != exitFaults || !strings.HasPrefix(r.Message, "main.wasm: is not a file") {
		t.Errorf("a directory: got %+v, code %d", r, code)
	}
}

func TestTraps(t *testing.T) {
	tests := []struct {
		name   string
		module []byte
		want   string
	}{
		{"unreachable", command(unreachable), "main.wasm: trap: unreachable\nwasm stack trace:\n\t"},
		{"recursion", command(recurse), "main.wasm: trap: stack overflow\n"},
		{"data outside of the memory", assembled(section(sectionType, typeStart), section(sectionFunction, "\x00"), section(sectionMemory, "\x00\x01"), exportStart("\x00"),
			section(10, unreachable), section(11, "\x00\x41\xff\xff\xff\x07\x0b\x01x")), "main.wasm: trap: "},
	}
	for _, tt := range tests {
		d := makeDirs(t, tt.module)
		if r, code := compileIn(t, d, testMemory); code != exitOK {
			t.Fatalf("%s: %+v", tt.name, r)
		}
		got := runIn(t, d, "")
		if got.code != exitTrap || !strings.HasPrefix(got.stderr, tt.want) || len(got.stderr) > maxTrap+100 {
			t.Errorf("%s: got code %d, %.300q", tt.name, got.code, got.stderr)
		}
	}
}

// TestTrapIsBounded has a function with a name of 100 kB at its end.
func TestTrapIsBounded(t *testing.T) {
	names := "\x01" + text("\x01\x00"+text(strings.Repeat("n", 100_000)))
	d := makeDirs(t, append(command(unreachable), slices.Concat([]byte{0}, []byte(text(text("name")+names)))...))
	if r, code := compileIn(t, d); code != exitOK {
		t.Fatal(r)
	}
	if got := runIn(t, d, ""); got.code != exitTrap || len(got.stderr) > maxTrap+100 || !strings.Contains(got.stderr, "nnnn") {
		t.Errorf("code %d, %d bytes", got.code, len(got.stderr))
	}
}

// TestFaultsOfTheHost are no author's: code 70, and nothing on stdout.
func TestFaultsOfTheHost(t *testing.T) {
	d := makeDirs(t, command(unreachable))
	d.Compiled += "/none/none"
	write(t, strings.TrimSuffix(d.Compiled, "/none/none")+"/none", "")
	if r, code := compileIn(t, d); code != exitInternal || !strings.HasPrefix(r.Message, "wasm-compile: the compilation cache: ") {
		t.Errorf("no cache: %+v, code %d", r, code)
	}
	if r, code := compileIn(t, makeDirs(t, nil), "much"); code != exitInternal || !strings.Contains(r.Message, `memory "much": want a number of bytes`) {
		t.Errorf("no limit: %+v, code %d", r, code)
	}
	var out, why bytes.Buffer
	if code := Run(t.Context(), d, nil, &out, &why, nil, []string{"main.wasm"}); code != exitInternal || out.Len() > 0 || !strings.HasPrefix(why.String(), "wasm: want ") {
		t.Errorf("run without a limit: code %d, %q, %q", code, &out, &why)
	}
	why.Reset()
	if code := Run(t.Context(), makeDirs(t, []byte("x")), nil, &out, &why, nil, []string{"main.wasm", testMemory}); code != exitInternal || !strings.HasPrefix(why.String(), "wasm: main.wasm: ") {
		t.Errorf("run of no module: code %d, %q", code, &why)
	}
}

// FuzzCheck compares the check with wazero: it refuses no module that would run, and passes none that would not begin to.
func FuzzCheck(f *testing.F) {
	f.Add(command(unreachable))
	f.Add(command(recurse, section(sectionMemory, "\x01\x01\x02")))
	f.Add(command(unreachable, section(sectionMemory, "\x03\x01\x02")))
	f.Add(assembled(section(sectionType, typeStart, typeExit, typeWrite), section(sectionImport, text(wasi)+text("proc_exit")+"\x00\x01", text(wasi)+text("fd_write")+"\x00\x02"),
		section(sectionFunction, "\x00"), section(sectionMemory, "\x00\x01"), exportStart("\x02"), section(10, "\x06\x00\x41\x03\x10\x00\x0b")))
	f.Add(assembled(section(sectionType, typeStart), section(sectionImport, text("env")+text("m")+"\x02\x00\x01", text("env")+text("t")+"\x01\x70\x00\x01", text("env")+text("g")+"\x03\x7f\x00"),
		section(sectionFunction, "\x00"), exportStart("\x00"), section(10, unreachable)))
	f.Add(assembled([]byte{0, 5, 4, 'n', 'a', 'm', 'e'}))
	const pages = 16
	ctx := f.Context()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(pages))
	host, err := wasiFunctions(ctx, rt)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		faults := check(b, host, pages)
		if len(faults) > maxFaults+1 || slices.ContainsFunc(faults, func(s string) bool { return len(s) > 2000 || strings.Contains(s, "\n") }) {
			t.Errorf("unbounded: %q", faults)
		}
		if !bytes.HasPrefix(b, []byte(magic+moduleVersion)) {
			return
		}
		if _, err := parse(b); errors.Is(err, errTruncated) {
			return // wazero would not take it either, but may first take all memory
		}
		m, err := rt.CompileModule(t.Context(), b)
		if err != nil {
			return
		}
		defer m.Close(t.Context())
		if why := begins(m, b, host); (why == nil) != (len(faults) == 0) {
			t.Errorf("wazero: %v; check: %q", why, faults)
		}
	})
}

// begins is why a module that wazero has compiled would not begin to run. Of imports that are no functions wazero's interface tells only
// the memories, so tables and globals are taken from parse.
func begins(m wazero.CompiledModule, b []byte, host map[string]signature) error {
	for _, f := range m.ImportedFunctions() {
		module, name, _ := f.Import()
		if want, ok := host[name]; module != wasi || !ok || want != signatureOf(f) {
			return errors.New("import of " + module + "." + name)
		}
	}
	if len(m.ImportedMemories()) > 0 {
		return errors.New("import of a memory")
	}
	parsed, err := parse(b)
	if err != nil {
		return nil // a fault of the check's, if wazero has none
	}
	for _, i := range parsed.imports {
		if i.kind != kindFunction {
			return errors.New("import of a " + i.kind.String())
		}
	}
	start, ok := m.ExportedFunctions()["_start"]
	if !ok || signatureOf(start) != (signature{}) {
		return errors.New("no _start")
	}
	return nil
}

func signatureOf(f api.FunctionDefinition) signature {
	return signature{params: encoded(f.ParamTypes()), results: encoded(f.ResultTypes())}
}
