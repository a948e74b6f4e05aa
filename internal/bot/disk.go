package bot

import (
	"errors"
	"fmt"
	"syscall"
)

// DiskError adds to an error of the disk under a path what an operator can do about it. Other errors are returned as they are.
func DiskError(err error, path string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: free some space under %s", err, path)
	case errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: the disk under %s fails: the kernel's log (dmesg) says why", err, path)
	}
	return err
}
