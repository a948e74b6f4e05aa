package engine

import (
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

// reserve is what the heap may grow by, once, when its limit is reached: without it there would be no memory for the
// exception that tells the script's author where.
const reserve = 1 << 20

// overhead is what QuickJS counts for the bookkeeping of one allocation.
const overhead = 8

// newRuntime makes a runtime that allocates as QuickJS does by default, but notices the heap limit.
func (vm *VM) newRuntime() uintptr {
	p := vm.tls.Alloc(int(unsafe.Sizeof(lib.TJSMallocFunctions{})))
	defer vm.tls.Free(int(unsafe.Sizeof(lib.TJSMallocFunctions{})))
	*(*lib.TJSMallocFunctions)(unsafe.Add(nil, p)) = lib.TJSMallocFunctions{
		Fjs_malloc:             vm.pointer(vm.malloc),
		Fjs_free:               vm.pointer(vm.free),
		Fjs_realloc:            vm.pointer(vm.realloc),
		Fjs_malloc_usable_size: vm.pointer(usableSize),
	}
	return lib.XJS_NewRuntime2(vm.tls, p, 0)
}

// OutOfMemory reports whether the heap limit was ever reached.
func (vm *VM) OutOfMemory() bool { return vm.exhausted }

// within reports whether more bytes fit below the limit of s; the first time that they do not, the reserve is opened.
func (vm *VM) within(s *lib.TJSMallocState, more libc.Tsize_t) bool {
	if s.Fmalloc_size+more <= s.Fmalloc_limit {
		return true
	}
	if !vm.exhausted {
		vm.exhausted = true
		s.Fmalloc_limit += reserve
	}
	return false
}

func (vm *VM) malloc(tls *libc.TLS, state uintptr, size libc.Tsize_t) uintptr {
	s := (*lib.TJSMallocState)(unsafe.Add(nil, state))
	if !vm.within(s, size) {
		return 0
	}
	p := libc.Xmalloc(tls, size)
	if p != 0 {
		s.Fmalloc_count++
		s.Fmalloc_size += usableSize(tls, p) + overhead
	}
	return p
}

func (vm *VM) free(tls *libc.TLS, state, p uintptr) {
	if p == 0 {
		return
	}
	s := (*lib.TJSMallocState)(unsafe.Add(nil, state))
	s.Fmalloc_count--
	s.Fmalloc_size -= usableSize(tls, p) + overhead
	libc.Xfree(tls, p)
}

func (vm *VM) realloc(tls *libc.TLS, state, p uintptr, size libc.Tsize_t) uintptr {
	switch {
	case p == 0 && size == 0:
		return 0
	case p == 0:
		return vm.malloc(tls, state, size)
	case size == 0:
		vm.free(tls, state, p)
		return 0
	}
	s := (*lib.TJSMallocState)(unsafe.Add(nil, state))
	old := usableSize(tls, p)
	if size > old && !vm.within(s, size-old) {
		return 0
	}
	p = libc.Xrealloc(tls, p, size)
	if p != 0 {
		s.Fmalloc_size += usableSize(tls, p) - old
	}
	return p
}

func usableSize(tls *libc.TLS, p uintptr) libc.Tsize_t { return libc.Xmalloc_usable_size(tls, p) }
