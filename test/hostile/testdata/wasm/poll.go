// wall: ipc
// tries: to wait for descriptors and clocks that are not its, ten thousand at a time
// ends: exit 0 or exit 1 or exit 2 or signal ABRT

package main

import "unsafe"

//go:wasmimport wasi_snapshot_preview1 poll_oneoff
func pollOneoff(in, out unsafe.Pointer, n uint32, got *uint32) uint32

func poll(string) {
	const most = 10000
	in, out := make([]byte, 48*most), make([]byte, 32*most)
	for n := range most {
		in[48*n+8] = byte(n % 3) // clock, read, write
		in[48*n+16] = byte(n % 64)
	}
	var got uint32
	say("trying", "10,000 subscriptions")
	say("held", "errno %d, %d events", pollOneoff(unsafe.Pointer(&in[0]), unsafe.Pointer(&out[0]), most, &got), got)
}
