package stage

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

// buildSystem adds to the new root what programs of the host need:
//
//	/usr             the host's, read-only: an overlay of it, so that locks on its files are the sandbox's own; where the kernel
//	                 cannot, the mount itself
//	/bin, /lib, …    the host's links into /usr
//	/etc             passwd, group, hosts, nsswitch.conf and resolv.conf of our own: there is one user, and names are only what is in
//	                 hosts; and of the host: what the linker and TLS libraries read
//	/dev             null, zero, full, random, urandom; an empty shm, for bubblewrap to mount /tmp at
//	/proc            of our own pid namespace; bubblewrap needs to see one that nothing hides in order to mount its own
func buildSystem(origins []wire.Origin) error {
	for _, build := range []func() error{buildUsr, func() error { return buildEtc(origins) }, buildDev, buildProc} {
		if err := build(); err != nil {
			return fmt.Errorf("system root: %w", err)
		}
	}
	return nil
}

func buildUsr() error {
	const usr = newRoot + wire.SystemRoot
	for _, dir := range []string{emptyDir, usr} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := overlay(usr, wire.SystemRoot); err != nil {
		if err := bindReadOnly(wire.SystemRoot, usr); err != nil {
			return err
		}
	}
	for _, name := range systemLinks() {
		target, err := os.Readlink("/" + name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || !strings.HasPrefix(strings.TrimPrefix(target, "/"), "usr/") {
			return fmt.Errorf("/%s is no link into /usr: Debian 12 or newer is needed (package usrmerge)", name)
		}
		if err := os.Symlink(strings.TrimPrefix(target, "/"), filepath.Join(newRoot, name)); err != nil {
			return err
		}
	}
	return nil
}

func systemLinks() []string { return []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} }

// bindReadOnly shows a directory or file of the host at another place, with all that is mounted below it.
func bindReadOnly(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("make %s read-only: %w", to, err)
	}
	return nil
}

func buildEtc(origins []wire.Origin) error {
	const etc = newRoot + "/etc"
	if err := os.MkdirAll(etc+"/ssl", 0o755); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n"
	for i, o := range origins {
		hosts += netip.AddrFrom4(wire.OriginAddr(i)).String() + " " + o.Name + "\n"
	}
	for name, text := range map[string]string{
		"passwd":        fmt.Sprintf("nobody:x:%d:%d:nobody:/tmp:/bin/sh\n", UID, UID),
		"group":         fmt.Sprintf("nogroup:x:%d:\n", UID),
		"hosts":         hosts,
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
		"resolv.conf":   "# Names are in /etc/hosts.\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return showEtc("ld.so.cache", "alternatives", "mime.types", "ssl/certs", "ssl/openssl.cnf")
}

// showEtc shows some of the host's /etc: by an overlay of it, as for /usr, which is not left behind.
func showEtc(names ...string) error {
	const view = newRoot + "/.etc"
	if err := os.Mkdir(view, 0o755); err != nil {
		return err
	}
	from := view
	if err := overlay(view, "/etc"); err != nil {
		from = "/etc"
	}
	for _, name := range names {
		if err := bindFromEtc(from, name); err != nil {
			return err
		}
	}
	if from == view {
		if err := unix.Unmount(view, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("let the view of /etc go: %w", err)
		}
	}
	return os.Remove(view)
}

// overlay shows a directory of the host, read-only, with files that are the sandbox's own to lock.
func overlay(at, dir string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_RDONLY
	return unix.Mount("overlay", at, "overlay", flags, "lowerdir="+emptyDir+":"+dir)
}

// emptyDir makes an overlay of a single directory one of two.
const emptyDir = newRoot + "/.empty"

// bindFromEtc shows one of the host's, if it has it.
func bindFromEtc(etc, name string) error {
	from, to := filepath.Join(etc, name), filepath.Join(newRoot, "etc", name)
	info, err := os.Stat(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(to, 0o755)
	} else {
		err = os.WriteFile(to, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return bindReadOnly(from, to)
}

func buildDev() error {
	const dev = newRoot + "/dev"
	if err := os.MkdirAll(dev+"/shm", 0o755); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		to := filepath.Join(dev, name)
		if err := os.WriteFile(to, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", name, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

func buildProc() error {
	const proc = newRoot + "/proc"
	if err := os.Mkdir(proc, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", mountFlags(), ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}
