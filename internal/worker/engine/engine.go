// Package engine is a thin binding of QuickJS (modernc.org/libquickjs, C translated to Go) for one virtual machine per process.
//
// It promises:
//   - a heap limit, a stack limit and an interrupt that script code cannot catch or outlive, but for native loops that never poll
//     (Array(1e9).join): only killing the process ends those;
//   - modules only through the Loader given, never from the file system and never from bytecode;
//   - no std or os module of QuickJS, no blocking Atomics.wait;
//   - exceptions as *Exception with the file, line and column of the script's own frame.
//
// It is the layer below modernc.org/quickjs because that one gives neither file names nor the rejection tracker.
// A VM belongs to one goroutine and is never closed: its process does one job, and the end of the process is the only way of
// giving its memory back that a script cannot get in the way of. Values are counted references: what a method returns is owned by the caller and is given
// back with Free, what a method takes is borrowed, if its comment says nothing else.
package engine

import (
	"errors"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

// ErrMemory means that the process could not get memory for the engine.
var ErrMemory = errors.New("no memory for the JavaScript engine")

// Value is a JavaScript value, a counted reference.
type Value = lib.TJSValue

const valueSize = int(unsafe.Sizeof(Value{}))

// Loader finds the modules that a script imports.
type Loader interface {
	// Resolve returns the name under which specifier, imported by the module base, is loaded.
	Resolve(base, specifier string) (name string, err error)
	// Load returns the JavaScript source of the module that Resolve named.
	Load(name string) (source string, err error)
	// CompileFailed is told of an imported module that does not compile. If it returns true, the import goes on with an
	// empty module, so that all errors of a program can be collected.
	CompileFailed(e *Exception) bool
}

// Rejection is a promise that was rejected while nothing handled it.
type Rejection struct {
	promise Value
	Reason  Value // borrowed from the VM
}

// VM is one JavaScript runtime with one realm.
type VM struct {
	tls         *libc.TLS
	rt, ctx     uintptr
	keep        []any // Go functions that the engine holds as bare addresses
	loader      Loader
	interrupt   func() bool
	interrupted bool
	exhausted   bool
	rejections  []Rejection
	errorClass  Value
	typeError   Value
	syntaxError Value
}

// New makes a VM whose heap holds at most heap bytes.
func New(heap int64, loader Loader) (*VM, error) {
	vm := &VM{tls: libc.NewTLS(), loader: loader}
	vm.rt = vm.newRuntime()
	if vm.rt == 0 {
		return nil, ErrMemory
	}
	lib.XJS_SetMemoryLimit(vm.tls, vm.rt, libc.Tsize_t(heap))
	lib.XJS_SetMaxStackSize(vm.tls, vm.rt, lib.MaxStackSlots)
	lib.XJS_SetCanBlock(vm.tls, vm.rt, 0)
	vm.ctx = lib.XJS_NewContext(vm.tls, vm.rt)
	if vm.ctx == 0 {
		return nil, ErrMemory
	}
	lib.XJS_SetInterruptHandler(vm.tls, vm.rt, vm.pointer(vm.onPoll), 0)
	lib.XJS_SetHostPromiseRejectionTracker(vm.tls, vm.rt, vm.pointer(vm.onRejection), 0)
	lib.XJS_SetModuleLoaderFunc(vm.tls, vm.rt, vm.pointer(vm.onResolve), vm.pointer(vm.onLoad), 0)
	vm.errorClass, vm.typeError, vm.syntaxError = vm.global("Error"), vm.global("TypeError"), vm.global("SyntaxError")
	return vm, nil
}

// pointer returns the address by which translated C code calls the Go function f, and keeps f alive.
func (vm *VM) pointer(f any) uintptr {
	vm.keep = append(vm.keep, f)
	return (*[2]uintptr)(unsafe.Pointer(&f))[1]
}

func (vm *VM) global(name string) Value {
	g := lib.XJS_GetGlobalObject(vm.tls, vm.ctx)
	defer vm.Free(g)
	return vm.Get(g, name)
}

// SetInterrupt makes script code end, with an exception that it cannot catch, once expired returns true. It is asked every
// few thousand steps of the script.
func (vm *VM) SetInterrupt(expired func() bool) { vm.interrupt = expired }

// Interrupted reports whether script code was ended by SetInterrupt's function.
func (vm *VM) Interrupted() bool { return vm.interrupted }

// SetHeapLimit changes the heap limit, in bytes.
func (vm *VM) SetHeapLimit(heap int64) {
	lib.XJS_SetMemoryLimit(vm.tls, vm.rt, libc.Tsize_t(heap))
}

func (vm *VM) onPoll(*libc.TLS, uintptr, uintptr) int32 {
	if vm.interrupt == nil || !vm.interrupt() {
		return 0
	}
	vm.interrupted = true
	return 1
}

func (vm *VM) onRejection(_ *libc.TLS, _ uintptr, promise, reason Value, handled int32, _ uintptr) {
	if handled == 0 {
		vm.rejections = append(vm.rejections, Rejection{vm.Dup(promise), vm.Dup(reason)})
		return
	}
	for i, r := range vm.rejections {
		if pointerOf(r.promise) == pointerOf(promise) {
			vm.rejections = append(vm.rejections[:i], vm.rejections[i+1:]...)
			vm.freeRejection(r)
			return
		}
	}
}

func (vm *VM) freeRejection(r Rejection) {
	vm.Free(r.promise)
	vm.Free(r.Reason)
}

// Rejections lists the promises that are rejected and that nothing handles, oldest first.
func (vm *VM) Rejections() []Rejection { return vm.rejections }

// RunJob runs one pending job (a promise reaction). It reports whether there was one; an exception of the job is returned.
func (vm *VM) RunJob() (bool, error) {
	pctx := vm.tls.Alloc(8)
	defer vm.tls.Free(8)
	switch r := lib.XJS_ExecutePendingJob(vm.tls, vm.rt, pctx); {
	case r < 0:
		return true, vm.TakeException()
	default:
		return r > 0, nil
	}
}

// Eval runs source as a strict classic script under the file name and returns its completion value.
func (vm *VM) Eval(name, source string) (Value, error) {
	return vm.eval(name, source, lib.MJS_EVAL_TYPE_GLOBAL|lib.MJS_EVAL_FLAG_STRICT)
}

func (vm *VM) eval(name, source string, flags int32) (Value, error) {
	cname, csource := vm.cString(name), vm.cString(source)
	defer libc.Xfree(vm.tls, cname)
	defer libc.Xfree(vm.tls, csource)
	v := lib.XJS_Eval(vm.tls, vm.ctx, csource, libc.Tsize_t(len(source)), cname, flags)
	if isException(v) {
		return v, vm.TakeException()
	}
	return v, nil
}

// cString copies s, with a NUL after it, to memory that the caller frees with libc.Xfree.
func (vm *VM) cString(s string) uintptr {
	p, err := libc.CString(s)
	if err != nil {
		panic(ErrMemory)
	}
	return p
}

// Call calls f with this undefined.
func (vm *VM) Call(f Value, args ...Value) (Value, error) {
	argv := vm.tls.Alloc(valueSize * (len(args) + 1))
	defer vm.tls.Free(valueSize * (len(args) + 1))
	copy(unsafe.Slice((*Value)(unsafe.Add(nil, argv)), len(args)), args)
	v := lib.XJS_Call(vm.tls, vm.ctx, f, Undefined(), int32(len(args)), argv)
	if isException(v) {
		return v, vm.TakeException()
	}
	return v, nil
}
