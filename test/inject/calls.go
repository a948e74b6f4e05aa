//go:build linux && (amd64 || arm64)

package inject

import (
	"maps"

	"golang.org/x/sys/unix"
)

// where says which argument of a call tells the file.
type where int

const (
	byFile   where = iota // the first, an open file
	byName                // a name, at kind.at
	byFolder              // an open folder, at kind.at, and a name
)

// kind is what is known of a call.
type kind struct {
	name   string
	effect Effect
	where  where
	at     int
	flags  int // the argument that has the flags of an open; 0: it is none
}

// calls are those that the filter hands over.
var calls = func() map[int]kind {
	all := map[int]kind{
		unix.SYS_READ:            {name: "read"},
		unix.SYS_PREAD64:         {name: "pread64"},
		unix.SYS_GETDENTS64:      {name: "getdents64"},
		unix.SYS_WRITE:           {name: "write", effect: Write},
		unix.SYS_PWRITE64:        {name: "pwrite64", effect: Write},
		unix.SYS_WRITEV:          {name: "writev", effect: Space},
		unix.SYS_PWRITEV:         {name: "pwritev", effect: Space},
		unix.SYS_FALLOCATE:       {name: "fallocate", effect: Space},
		unix.SYS_FTRUNCATE:       {name: "ftruncate", effect: Space},
		unix.SYS_FSYNC:           {name: "fsync", effect: Sync},
		unix.SYS_FDATASYNC:       {name: "fdatasync", effect: Sync},
		unix.SYS_SYNCFS:          {name: "syncfs", effect: Sync},
		unix.SYS_SYNC_FILE_RANGE: {name: "sync_file_range", effect: Sync},
		unix.SYS_FCHMOD:          {name: "fchmod", effect: Change},
		unix.SYS_COPY_FILE_RANGE: {name: "copy_file_range", effect: Space}, // the source, which is in the same folder
		unix.SYS_OPENAT:          {name: "openat", where: byFolder, flags: 2},
		unix.SYS_OPENAT2:         {name: "openat2", where: byFolder, flags: 2},
		unix.SYS_MKDIRAT:         {name: "mkdirat", effect: Space, where: byFolder},
		unix.SYS_UNLINKAT:        {name: "unlinkat", effect: Change, where: byFolder},
		unix.SYS_RENAMEAT:        {name: "renameat", effect: Space, where: byFolder, at: 2},
		unix.SYS_RENAMEAT2:       {name: "renameat2", effect: Space, where: byFolder, at: 2},
		unix.SYS_LINKAT:          {name: "linkat", effect: Space, where: byFolder, at: 2},
		unix.SYS_SYMLINKAT:       {name: "symlinkat", effect: Space, where: byFolder, at: 1},
		unix.SYS_FCHMODAT:        {name: "fchmodat", effect: Change, where: byFolder},
	}
	maps.Copy(all, older)
	return all
}()
