package wasm

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// wasi is the only module that can be imported.
const wasi = "wasi_snapshot_preview1"

// howToBuild is the answer to most faults.
const howToBuild = "build a command for wasm32-wasip1 (Go: GOOS=wasip1 GOARCH=wasm go build; Rust: cargo build --target wasm32-wasip1; C: clang of wasi-sdk)"

// pageSize is WebAssembly's unit of memory.
const pageSize = 64 << 10

// Bounds of what is said about one module: names of authors are long, and there may be thousands.
const (
	maxNames  = 5
	maxFaults = 50
)

// check finds everything because of which a module cannot run, whatever its code does. host are the functions of wasi, pages is
// the most memory that it may have.
func check(b []byte, host map[string]signature, pages uint64) []string {
	if fault := checkBeginning(b); fault != "" {
		return []string{fault}
	}
	m, err := parse(b)
	if err != nil {
		return []string{fmt.Sprintf("is no WebAssembly module that can be read: %v: %s", err, howToBuild)}
	}
	faults := slices.Concat(m.checkImports(host), m.checkStart(), m.checkMemories(pages))
	if more := len(faults) - maxFaults; more > 0 {
		faults = append(faults[:maxFaults], fmt.Sprintf("and %d more", more))
	}
	return faults
}

func checkBeginning(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte(magic+moduleVersion)):
		return ""
	case bytes.HasPrefix(b, []byte(magic+"\x0d\x00\x01\x00")):
		return "is a component (WASI preview 2), and only modules can run: " + howToBuild
	case bytes.HasPrefix(b, []byte(magic)):
		return "is a module of an unknown version of the format: " + howToBuild
	}
	return fmt.Sprintf("is no WebAssembly module, it begins with %q: %s", b[:min(len(b), 8)], howToBuild)
}

// checkImports gives one fault for each foreign module, and one for each function of wasi that is not there.
func (m *module) checkImports(host map[string]signature) []string {
	var faults []string
	foreign := make(map[string][]string)
	for _, i := range m.imports {
		want, ok := host[i.name]
		switch {
		case i.module != wasi:
			foreign[i.module] = append(foreign[i.module], i.name)
		case i.kind != kindFunction:
			faults = append(faults, fmt.Sprintf("imports the %s %s, and there are only functions: %s", i.kind, clip(wasi+"."+i.name), howToBuild))
		case !ok:
			faults = append(faults, fmt.Sprintf("imports the function %s, which does not exist: %s", clip(wasi+"."+i.name), howToBuild))
		case i.function != want:
			faults = append(faults, fmt.Sprintf("imports the function %s with other parameters or results than it has: %s", clip(wasi+"."+i.name), howToBuild))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(foreign)) {
		faults = append(faults, fmt.Sprintf("imports from %q (%s), and only %s is there: %s", clip(name), list(foreign[name]), wasi, remedy(name)))
	}
	return faults
}

// remedy says what to do about the imports of a foreign module, by what makes such ones.
func remedy(name string) string {
	switch {
	case name == "env":
		return "is it built for the browser (Emscripten), or does it use a function that was not linked? " + howToBuild
	case name == "go" || name == "gojs":
		return "it is built for a browser (GOOS=js): build it with GOOS=wasip1 GOARCH=wasm go build"
	case name == "wbg" || strings.HasPrefix(name, "__wbindgen"):
		return "wasm-bindgen is for JavaScript: leave it out, and build with cargo build --target wasm32-wasip1"
	case name == "wasi_unstable":
		return "it is built with an old toolchain: use one that builds for wasm32-wasip1"
	case strings.HasPrefix(name, "wasi:"):
		return "it is made for components (WASI preview 2): " + howToBuild
	}
	return howToBuild
}

func list(names []string) string {
	var shown []string
	for _, n := range names[:min(len(names), maxNames)] {
		shown = append(shown, clip(n))
	}
	if more := len(names) - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(shown, ", ")
}

// clip makes an author's name short, and keeps it on its line.
func clip(name string) string {
	name = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '?'
		}
		return c
	}, name)
	if len(name) > 60 {
		return strings.ToValidUTF8(name[:60], "") + "…"
	}
	return name
}

func (m *module) checkStart() []string {
	start, ok := m.exports["_start"]
	switch {
	case !ok:
		return []string{"exports no function _start, so nothing would run: is it a library (a reactor)? " + howToBuild}
	case start.kind != kindFunction || int(start.index) >= len(m.functions):
		return []string{"exports a _start that is no function: " + howToBuild}
	case m.functions[start.index] != signature{}:
		return []string{"exports a _start with parameters or results: " + howToBuild}
	}
	return nil
}

func (m *module) checkMemories(pages uint64) []string {
	var faults []string
	if len(m.memories) > 1 {
		faults = append(faults, fmt.Sprintf("has %d memories, and can have one: build it without multi-memory", len(m.memories)))
	}
	for _, mem := range m.memories {
		if mem.shared {
			faults = append(faults, "shares its memory between threads, and there are none: build it without threads")
		}
		if mem.wide {
			faults = append(faults, "has a memory of 64-bit addresses: build it for wasm32, not wasm64")
		}
		if mem.min > pages {
			faults = append(faults, fmt.Sprintf("needs %s of memory to start, and may have %s: link it with less (wasm-ld --initial-memory), or raise memory in [limits]",
				megabytes(mem.min), megabytes(pages)))
		}
	}
	return faults
}

// megabytes rounds up what is needed or allowed in pages.
func megabytes(pages uint64) string { return fmt.Sprintf("%.1f MB", float64(pages)*pageSize/1e6) }
