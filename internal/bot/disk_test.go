package bot

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestDiskError(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOSPC: "free some space under /state", syscall.EDQUOT: "free some space under /state",
		syscall.EIO: "the disk under /state fails", syscall.EROFS: "the disk under /state fails", syscall.ENOENT: "no such file or directory",
	} {
		given := fmt.Errorf("write: %w", &fs.PathError{Op: "write", Path: "x", Err: errno})
		if err := DiskError(given, "/state"); !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q in it", errno, err, want)
		}
	}
	if DiskError(nil, "/state") != nil {
		t.Error("an error was made of none")
	}
}
