package stage

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_AARCH64

// commonArch are the calls of common that go by another name on arm64: newfstatat, by that of its table.
func commonArch() []uint32 { return []uint32{unix.SYS_FSTATAT} }

func conditionsArch() []rule { return nil }

func nativeArchCalls() []uint32 { return nil }
