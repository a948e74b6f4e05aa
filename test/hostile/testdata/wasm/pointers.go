// wall: calls
// tries: to have the host read and write outside of its memory: addresses and lengths that overflow
// runs: read write random path readdir args
// ends: exit 0 or exit 1 or exit 2 or signal ABRT

package main

import "unsafe"

//go:wasmimport wasi_snapshot_preview1 fd_read
func fdRead(fd int32, iovs unsafe.Pointer, n uint32, got *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 fd_write
func fdWrite(fd int32, iovs unsafe.Pointer, n uint32, got *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 random_get
func randomGet(at uint32, n uint32) uint32

//go:wasmimport wasi_snapshot_preview1 path_open
func pathOpen(fd int32, flags uint32, path uint32, n uint32, oflags uint32, rights uint64, inherit uint64, fdflags uint32, to uint32) uint32

//go:wasmimport wasi_snapshot_preview1 fd_readdir
func fdReaddir(fd int32, at uint32, n uint32, cookie uint64, used uint32) uint32

//go:wasmimport wasi_snapshot_preview1 args_get
func argsGet(argv, buf uint32) uint32

func pointers(variant string) {
	var got uint32
	for _, at := range []uint32{0, 0xfffffff0, 0xffffffff, 0x7fffffff, 0x80000000} {
		for _, n := range []uint32{1, 16, 0x7fffffff, 0x80000000, 0xffffffff} {
			say("trying", "%s at %#x, %d bytes", variant, at, n)
			iov := [4]uint32{at, n, at, n}
			var e uint32
			got = 0
			switch variant {
			case "read":
				e = fdRead(0, unsafe.Pointer(&iov), n, &got)
			case "write":
				e = fdWrite(2, unsafe.Pointer(&iov), n, &got)
			case "random":
				if at == 0 && n < 1000 {
					continue // its own memory
				}
				e = randomGet(at, n)
			case "path":
				e = pathOpen(3, 0, at, n, 0, 1<<62, 1<<62, 0, at)
			case "readdir":
				if at == 0 && n < 1000 {
					continue
				}
				e = fdReaddir(3, at, n, ^uint64(0), at)
			case "args":
				if at == 0 {
					continue
				}
				e = argsGet(at, n)
			}
			if e == 0 && n > 16 && at > 0x7ffffff0 && (got > 0 || variant != "read" && variant != "write") {
				say("BROKE", "%s at %#x, %d bytes", variant, at, n)
			}
		}
	}
	say("held", "all")
}
