package engine

import (
	"errors"
	"fmt"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

// Exception is what a script threw, taken out of the engine.
type Exception struct {
	Name    string // "TypeError"; empty if the value thrown was no Error
	Message string // of the Error, or the value as a string
	Stack   string // a frame a line, "    at f (main.js:3:9)", innermost first; empty if the value was no Error
}

func (e *Exception) Error() string {
	switch {
	case e.Name == "":
		return e.Message
	case e.Message == "":
		return e.Name
	}
	return e.Name + ": " + e.Message
}

// TakeException removes the pending exception and returns it as an *Exception.
func (vm *VM) TakeException() error {
	v := lib.XJS_GetException(vm.tls, vm.ctx)
	lib.XJS_SetUncatchableException(vm.tls, vm.ctx, 0)
	defer vm.Free(v)
	return vm.Exception(v)
}

// Exception describes a value that was thrown or that a promise was rejected with. It is never nil.
func (vm *VM) Exception(v Value) *Exception {
	if lib.XJS_IsError(vm.tls, vm.ctx, v) == 0 {
		return &Exception{Message: vm.describe(v)}
	}
	return &Exception{Name: vm.stringProperty(v, "name", "Error"), Message: vm.stringProperty(v, "message", ""), Stack: vm.stringProperty(v, "stack", "")}
}

func (vm *VM) stringProperty(object Value, name, absent string) string {
	v := vm.Get(object, name)
	defer vm.Free(v)
	if !vm.IsString(v) {
		return absent
	}
	s, err := vm.GoString(v)
	if err != nil {
		return absent
	}
	return s
}

// describe writes a thrown value that is no Error: a string in quotes, an object as JSON, anything else as String does.
func (vm *VM) describe(v Value) string {
	if vm.IsObject(v) {
		json := lib.XJS_JSONStringify(vm.tls, vm.ctx, v, Undefined(), Undefined())
		defer vm.Free(json)
		if isException(json) {
			vm.Free(lib.XJS_GetException(vm.tls, vm.ctx))
			return "an object"
		}
		s, err := vm.GoString(json)
		if err != nil {
			return "an object"
		}
		return s
	}
	s, err := vm.GoString(v)
	if err != nil {
		return "a value that cannot be written"
	}
	if vm.IsString(v) {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// throw makes err the pending exception and returns the value that says so.
func (vm *VM) throw(err error) Value {
	var e *Exception
	var te TypeError
	switch {
	case errors.As(err, &e) && e.Name == "SyntaxError":
		return vm.throwAs(vm.syntaxError, e.Message, e.Stack)
	case errors.As(err, &e):
		return vm.throwAs(vm.errorClass, e.Message, e.Stack)
	case errors.As(err, &te):
		return vm.throwAs(vm.typeError, err.Error(), "")
	}
	return vm.throwAs(vm.errorClass, err.Error(), "")
}

func (vm *VM) throwAs(class Value, message, stack string) Value {
	argv := vm.tls.Alloc(valueSize)
	defer vm.tls.Free(valueSize)
	text := vm.String(message)
	defer vm.Free(text)
	setValue(argv, text)
	v := lib.XJS_CallConstructor(vm.tls, vm.ctx, class, 1, argv)
	if isException(v) {
		return v
	}
	if stack != "" {
		p := vm.cString("stack")
		defer libc.Xfree(vm.tls, p)
		lib.XJS_DefinePropertyValueStr(vm.tls, vm.ctx, v, p, vm.String(stack), lib.MJS_PROP_WRITABLE|lib.MJS_PROP_CONFIGURABLE)
	}
	return lib.XJS_Throw(vm.tls, vm.ctx, v)
}
