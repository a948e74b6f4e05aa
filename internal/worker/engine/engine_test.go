package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// modules is a Loader over a map.
type modules map[string]string

func (m modules) Resolve(_, specifier string) (string, error) {
	return strings.TrimPrefix(specifier, "./"), nil
}

func (m modules) Load(name string) (string, error) {
	source, ok := m[name]
	if !ok {
		return "", fmt.Errorf("no module %s", name)
	}
	return source, nil
}

func (m modules) CompileFailed(*Exception) bool { return false }

func newVM(t *testing.T, m modules) *VM {
	t.Helper()
	vm, err := New(8<<20, m)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// run evaluates main.js and every job, and returns the error of either.
func run(t *testing.T, vm *VM, source string) error {
	t.Helper()
	m, err := vm.Compile("main.js", source)
	if err != nil {
		return err
	}
	promise, err := vm.Run(m)
	if err != nil {
		return err
	}
	for more := true; more; {
		if more, err = vm.RunJob(); err != nil {
			return err
		}
	}
	if vm.PromiseState(promise) == Rejected {
		return vm.Exception(vm.PromiseResult(promise))
	}
	return nil
}

func TestStringsSurviveBothWays(t *testing.T) {
	vm := newVM(t, nil)
	same := vm.Func("same", 1, func(args []Value) (Value, error) { return vm.Dup(args[0]), nil })
	for in, want := range map[string]string{"": "", "a\x00b": "a\x00b", "ü€😀": "ü€😀", "\xff": "\uFFFD", "\xed\xa0\x80": "\uFFFD"} {
		v, err := vm.Call(same, vm.String(in))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := vm.GoString(v); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	v, err := vm.Eval("x.js", `"a\ud800b\ud83d\ude00"`)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := vm.GoString(v); err != nil || got != "a\uFFFDb😀" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBytesSurviveBothWays(t *testing.T) {
	vm := newVM(t, nil)
	for _, in := range []string{"", "\x00\xff", strings.Repeat("x", 1<<20)} {
		v, err := vm.ArrayBuffer([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := vm.Bytes(v); err != nil || string(got) != in {
			t.Errorf("%d bytes became %d, %v", len(in), len(got), err)
		}
	}
	if _, err := vm.Bytes(Number(1)); err == nil {
		t.Error("a number has bytes")
	}
}

func TestHostErrorsAreThrown(t *testing.T) {
	vm := newVM(t, nil)
	long := strings.Repeat("long ", 200)
	for want, err := range map[string]error{
		"Error: " + long:      errors.New(long),
		"TypeError: wrong":    TypeError("wrong"),
		"SyntaxError: broken": &Exception{Name: "SyntaxError", Message: "broken", Stack: "    at x.js:1:2\n"},
	} {
		f := vm.Func("f", 0, func([]Value) (Value, error) { return Undefined(), err })
		var e *Exception
		if _, thrown := vm.Call(f); !errors.As(thrown, &e) || e.Error() != want {
			t.Errorf("%v, want %s", thrown, want)
		}
	}
}

func TestHeapLimitLeavesRoomForItsException(t *testing.T) {
	for _, source := range []string{"const a = []\nfor (;;) a.push({n: a.length})", "\nnew Uint8Array(9e6)", "const a = []\nfor (;;) a.push('x'.repeat(1e5) + a.length)"} {
		vm := newVM(t, nil)
		var e *Exception
		if err := run(t, vm, source); !errors.As(err, &e) || e.Message != "out of memory" || !strings.Contains(e.Stack, "(main.js:2:") || !vm.OutOfMemory() {
			t.Errorf("%s: %#v", source, err)
		}
	}
}

func TestInterruptCannotBeCaught(t *testing.T) {
	vm := newVM(t, nil)
	end := time.Now().Add(50 * time.Millisecond)
	vm.SetInterrupt(func() bool { return time.Now().After(end) })
	_, err := vm.Eval("main.js", "for (;;) { try { for (;;) {} } catch {} finally {} }")
	if err == nil || !vm.Interrupted() {
		t.Errorf("%v", err)
	}
}

func TestStackLimit(t *testing.T) {
	if err := run(t, newVM(t, nil), "const f = () => f() + 1; f()"); err == nil || err.Error() != "InternalError: stack overflow" {
		t.Errorf("%v", err)
	}
}

func TestRejectionsAreTracked(t *testing.T) {
	vm := newVM(t, nil)
	if err := run(t, vm, "Promise.reject(1).catch(() => {}); Promise.reject(new Error('lost'))"); err != nil {
		t.Fatal(err)
	}
	if r := vm.Rejections(); len(r) != 1 || vm.Exception(r[0].Reason).Error() != "Error: lost" {
		t.Errorf("%v", r)
	}
}

func TestModulesComeFromTheLoaderOnly(t *testing.T) {
	m := modules{"a.js": "export const a = 1"}
	if err := run(t, newVM(t, m), "import { a } from './a.js'; if (a !== 1) throw new Error('a')"); err != nil {
		t.Error(err)
	}
	for _, specifier := range []string{"std", "os", "/etc/passwd", "engine.go", "main.js.so"} {
		if err := run(t, newVM(t, m), fmt.Sprintf("import %q", specifier)); err == nil || !strings.Contains(err.Error(), "no module") {
			t.Errorf("%s: %v", specifier, err)
		}
	}
}

func TestThrownValues(t *testing.T) {
	for source, want := range map[string]string{
		"throw 'x'":                      `"x"`,
		"throw {a: 1}":                   `{"a":1}`,
		"throw null":                     "null",
		"throw undefined":                "undefined",
		"throw Symbol('s')":              "a value that cannot be written",
		"const o = {}; o.o = o; throw o": "an object",
		"throw new (class E extends TypeError{})":                                     "TypeError",
		"throw Object.defineProperty(new Error('x'), 'message', {get() { throw 1 }})": "Error",
	} {
		if err := run(t, newVM(t, nil), source); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}
