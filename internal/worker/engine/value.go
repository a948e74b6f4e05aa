package engine

import (
	"math"
	"strings"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

// Undefined is the JavaScript value undefined.
func Undefined() Value { return Value{Ftag: lib.EJS_TAG_UNDEFINED} }

// Null is the JavaScript value null.
func Null() Value { return Value{Ftag: lib.EJS_TAG_NULL} }

// Bool makes a JavaScript boolean.
func Bool(b bool) Value {
	v := Value{Ftag: lib.EJS_TAG_BOOL}
	if b {
		setPayload(&v, 1)
	}
	return v
}

// Number makes a JavaScript number.
func Number(f float64) Value {
	v := Value{Ftag: lib.EJS_TAG_FLOAT64}
	setPayload(&v, math.Float64bits(f))
	return v
}

func setPayload(v *Value, bits uint64) { *(*uint64)(unsafe.Pointer(v)) = bits }
func payload(v Value) uint64           { return *(*uint64)(unsafe.Pointer(&v)) }
func pointerOf(v Value) uintptr        { return uintptr(payload(v)) }
func isException(v Value) bool         { return v.Ftag == lib.EJS_TAG_EXCEPTION }

// IsString reports whether v is a string.
func (vm *VM) IsString(v Value) bool {
	return v.Ftag == lib.EJS_TAG_STRING || v.Ftag == lib.EJS_TAG_STRING_ROPE
}

// IsObject reports whether v is an object.
func (vm *VM) IsObject(v Value) bool { return v.Ftag == lib.EJS_TAG_OBJECT }

// Dup takes one more reference on v.
func (vm *VM) Dup(v Value) Value { return lib.XDupValue(vm.tls, vm.ctx, v) }

// Free gives a reference back.
func (vm *VM) Free(v Value) { lib.XFreeValue(vm.tls, vm.ctx, v) }

// String makes a JavaScript string; what is not UTF-8 in s becomes U+FFFD.
func (vm *VM) String(s string) Value {
	s = strings.ToValidUTF8(s, "\uFFFD")
	p := vm.cString(s)
	defer libc.Xfree(vm.tls, p)
	return lib.XJS_NewStringLen(vm.tls, vm.ctx, p, libc.Tsize_t(len(s)))
}

// GoString converts v as String(v) does in JavaScript; a lone surrogate becomes U+FFFD.
func (vm *VM) GoString(v Value) (string, error) {
	plen := vm.tls.Alloc(8)
	defer vm.tls.Free(8)
	p := lib.XJS_ToCStringLen2(vm.tls, vm.ctx, plen, v, 0)
	if p == 0 {
		return "", vm.TakeException()
	}
	defer lib.XJS_FreeCString(vm.tls, vm.ctx, p)
	return wellFormed(string(memory(p, *(*libc.Tsize_t)(unsafe.Add(nil, plen))))), nil
}

// wellFormed replaces the three bytes that QuickJS writes for a lone surrogate by the three of U+FFFD.
func wellFormed(s string) string {
	if strings.IndexByte(s, 0xed) < 0 {
		return s
	}
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == 0xed && b[i+1] >= 0xa0 {
			copy(b[i:], "\uFFFD")
		}
	}
	return string(b)
}

func memory(p uintptr, n libc.Tsize_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(nil, p)), int(n))
}

// Float converts v as Number(v) does.
func (vm *VM) Float(v Value) (float64, error) {
	p := vm.tls.Alloc(8)
	defer vm.tls.Free(8)
	if lib.XJS_ToFloat64(vm.tls, vm.ctx, p, v) < 0 {
		return 0, vm.TakeException()
	}
	return *(*float64)(unsafe.Add(nil, p)), nil
}

// Truth converts v as Boolean(v) does.
func (vm *VM) Truth(v Value) bool { return lib.XJS_ToBool(vm.tls, vm.ctx, v) > 0 }

// ArrayBuffer makes an ArrayBuffer that holds a copy of b.
func (vm *VM) ArrayBuffer(b []byte) (Value, error) {
	p := vm.cString(string(b))
	defer libc.Xfree(vm.tls, p)
	v := lib.XJS_NewArrayBufferCopy(vm.tls, vm.ctx, p, libc.Tsize_t(len(b)))
	if isException(v) {
		return v, vm.TakeException()
	}
	return v, nil
}

// Bytes copies the content of an ArrayBuffer.
func (vm *VM) Bytes(v Value) ([]byte, error) {
	psize := vm.tls.Alloc(8)
	defer vm.tls.Free(8)
	p := lib.XJS_GetArrayBuffer(vm.tls, vm.ctx, psize, v)
	if p == 0 && lib.XJS_HasException(vm.tls, vm.ctx) != 0 {
		return nil, vm.TakeException()
	}
	n := *(*libc.Tsize_t)(unsafe.Add(nil, psize))
	if p == 0 || n == 0 {
		return []byte{}, nil
	}
	return append([]byte(nil), memory(p, n)...), nil
}

// Get reads a property. A getter that throws gives undefined.
func (vm *VM) Get(object Value, name string) Value {
	p := vm.cString(name)
	defer libc.Xfree(vm.tls, p)
	v := lib.XJS_GetPropertyStr(vm.tls, vm.ctx, object, p)
	if isException(v) {
		vm.Free(lib.XJS_GetException(vm.tls, vm.ctx))
		return Undefined()
	}
	return v
}

// Object makes an empty object.
func (vm *VM) Object() Value { return lib.XJS_NewObject(vm.tls, vm.ctx) }

// Set defines a plain property and takes over v.
func (vm *VM) Set(object Value, name string, v Value) {
	p := vm.cString(name)
	defer libc.Xfree(vm.tls, p)
	if lib.XJS_DefinePropertyValueStr(vm.tls, vm.ctx, object, p, v, lib.MJS_PROP_C_W_E) < 0 {
		vm.Free(lib.XJS_GetException(vm.tls, vm.ctx))
	}
}

// HostFunc is a Go function that scripts call. The arguments are borrowed, the result passes to the engine. An error is
// thrown: an *Exception as it is, any other as an Error, or as a TypeError if it is a TypeError.
type HostFunc func(args []Value) (Value, error)

// TypeError is an error that scripts see as their TypeError.
type TypeError string

func (e TypeError) Error() string { return string(e) }

// Func makes a JavaScript function that calls f. Missing arguments up to length are undefined.
func (vm *VM) Func(name string, length int, f HostFunc) Value {
	call := func(_ *libc.TLS, _ uintptr, _ Value, argc int32, argv uintptr) Value {
		args := append([]Value(nil), unsafe.Slice((*Value)(unsafe.Add(nil, argv)), int(argc))...)
		for len(args) < length {
			args = append(args, Undefined())
		}
		v, err := f(args)
		if err != nil {
			return vm.throw(err)
		}
		return v
	}
	p := vm.cString(name)
	defer libc.Xfree(vm.tls, p)
	return lib.XJS_NewCFunction2(vm.tls, vm.ctx, vm.pointer(call), p, int32(length), lib.EJS_CFUNC_generic, 0)
}

// PromiseState says how far a promise is.
type PromiseState int

// The states of a promise.
const (
	Pending   PromiseState = lib.EJS_PROMISE_PENDING
	Fulfilled PromiseState = lib.EJS_PROMISE_FULFILLED
	Rejected  PromiseState = lib.EJS_PROMISE_REJECTED
)

// PromiseState returns the state of the promise v.
func (vm *VM) PromiseState(v Value) PromiseState {
	return PromiseState(lib.XJS_PromiseState(vm.tls, vm.ctx, v))
}

// PromiseResult returns the value or the reason of a settled promise.
func (vm *VM) PromiseResult(v Value) Value { return lib.XJS_PromiseResult(vm.tls, vm.ctx, v) }
