package engine

import (
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

func setValue(p uintptr, v Value) { *(*Value)(unsafe.Add(nil, p)) = v }

// Module is a compiled module with all that it imports.
type Module struct {
	def   uintptr
	value Value
}

// Compile parses the module source and loads what it imports, transitively, without running any of it.
func (vm *VM) Compile(name, source string) (*Module, error) {
	v, err := vm.eval(name, source, lib.MJS_EVAL_TYPE_MODULE|lib.MJS_EVAL_FLAG_COMPILE_ONLY)
	if err != nil {
		return nil, err
	}
	return &Module{def: pointerOf(v), value: v}, nil
}

// Run links and evaluates m, once. It returns the promise of its evaluation; an error is one of linking.
func (vm *VM) Run(m *Module) (Value, error) {
	v := lib.XJS_EvalFunction(vm.tls, vm.ctx, m.value)
	if isException(v) {
		return v, vm.TakeException()
	}
	return v, nil
}

// Namespace returns the module namespace object of m, which must have been linked.
func (vm *VM) Namespace(m *Module) (Value, error) {
	v := lib.XJS_GetModuleNamespace(vm.tls, vm.ctx, m.def)
	if isException(v) {
		return v, vm.TakeException()
	}
	return v, nil
}

// onResolve is the engine's module normalizer: it returns a string of the engine's own memory, or 0 with an exception.
func (vm *VM) onResolve(_ *libc.TLS, _ uintptr, base, specifier, _ uintptr) uintptr {
	name, err := vm.loader.Resolve(goString(base), goString(specifier))
	if err != nil {
		vm.throw(err)
		return 0
	}
	p := vm.cString(name)
	defer libc.Xfree(vm.tls, p)
	return lib.Xjs_strdup(vm.tls, vm.ctx, p)
}

// onLoad is the engine's module loader: it returns the module's definition, or 0 with an exception.
func (vm *VM) onLoad(_ *libc.TLS, _ uintptr, cname, _ uintptr) uintptr {
	name := goString(cname)
	source, err := vm.loader.Load(name)
	if err != nil {
		vm.throw(err)
		return 0
	}
	p := vm.cString(source)
	defer libc.Xfree(vm.tls, p)
	flags := int32(lib.MJS_EVAL_TYPE_MODULE | lib.MJS_EVAL_FLAG_COMPILE_ONLY)
	v := lib.XJS_Eval(vm.tls, vm.ctx, p, libc.Tsize_t(len(source)), cname, flags)
	if isException(v) {
		if v = vm.compileFailed(name); isException(v) {
			return 0
		}
	}
	def := pointerOf(v)
	vm.Free(v)
	return def
}

// compileFailed asks the loader whether an empty module may stand for one that does not compile.
func (vm *VM) compileFailed(name string) Value {
	thrown := lib.XJS_GetException(vm.tls, vm.ctx)
	if !vm.loader.CompileFailed(vm.Exception(thrown)) {
		return lib.XJS_Throw(vm.tls, vm.ctx, thrown)
	}
	vm.Free(thrown)
	v, err := vm.eval(name, "", lib.MJS_EVAL_TYPE_MODULE|lib.MJS_EVAL_FLAG_COMPILE_ONLY)
	if err != nil {
		return vm.throw(err)
	}
	return v
}

func goString(p uintptr) string {
	if p == 0 {
		return ""
	}
	return wellFormed(libc.GoString(p))
}
