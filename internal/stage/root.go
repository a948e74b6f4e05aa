package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// mountFlags hold for everything of the root but what is there to be executed.
func mountFlags() uintptr {
	if takedown.Down(takedown.MountFlags) {
		return 0
	}
	return unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
}

// newRoot is where the root is built, before it is pivoted into.
const newRoot = "/tmp"

// buildRoot replaces the process's whole view of the file system by a tmpfs with the directories in it. Launchers that have
// been started come along: pivot_root moves every process of the mount namespace.
func buildRoot(spec wire.Spec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", newRoot, "tmpfs", mountFlags(), "size=128k,nr_inodes=128,mode=0755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	if takedown.Down(takedown.EmptyRoot) {
		if err := showHost(newRoot + "/host"); err != nil {
			return err
		}
	}
	for _, d := range spec.Dirs {
		if err := mountDir(filepath.Join(newRoot, d.Path), d); err != nil {
			return err
		}
	}
	if spec.System {
		if err := buildSystem(spec.Origins); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let the host's root go: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("sandbox")); err != nil && !takedown.Down(takedown.UTSNamespace) {
		return err
	}
	if takedown.Down(takedown.ReadOnlyRoot) {
		return nil
	}
	return readOnly("/", mountFlags())
}

// dirFlags are the mount flags of a directory of the Spec.
func dirFlags(d wire.Dir) uintptr {
	if d.Exec {
		return mountFlags() &^ unix.MS_NOEXEC
	}
	return mountFlags()
}

// showHost puts the host's tree into the sandbox. Only a wall that is down calls it.
func showHost(at string) error {
	return errors.Join(os.Mkdir(at, 0o755), unix.Mount("/", at, "", unix.MS_BIND|unix.MS_REC, ""))
}

func mountDir(at string, d wire.Dir) error {
	if err := os.Mkdir(at, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", d.Path, err)
	}
	size, inodes := d.Size, d.Inodes
	if takedown.Down(takedown.DirSize) {
		size = 0 // none
	}
	if takedown.Down(takedown.DirInodes) {
		inodes = 0
	}
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700", size, inodes)
	if err := unix.Mount("tmpfs", at, "tmpfs", dirFlags(d), options); err != nil {
		return fmt.Errorf("mount %s: %w", d.Path, err)
	}
	return nil
}

// readOnly makes the tmpfs mounted at dir read-only, the file system and not only this mount of it. It fails with EBUSY while
// a file is open for writing.
func readOnly(dir string, flags uintptr) error {
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", dir, err)
	}
	return nil
}
