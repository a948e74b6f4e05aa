package wasm

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tetratelabs/wazero/experimental"
)

// linearMemory is a module's memory, outside of Go's heap: there, all of it would count as used, so that our garbage could grow
// as large before it is collected, and Go may clear it, and so take it all, before the module does.
type linearMemory []byte

// reserve reserves the most that a module may have. A page is taken when it is first touched. The memory lasts as long as the process.
func reserve(_, most uint64) experimental.LinearMemory {
	if most == 0 {
		return linearMemory{}
	}
	b, err := unix.Mmap(-1, 0, int(most), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		panic(fmt.Errorf("reserve %d bytes of memory: %w", most, err)) // wazero's interface knows no error
	}
	return linearMemory(b)
}

// Reallocate implements experimental.LinearMemory.
func (m linearMemory) Reallocate(size uint64) []byte { return m[:size] }

// Free implements experimental.LinearMemory.
func (m linearMemory) Free() {}
