package stage

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_X86_64

// commonArch are the calls of common that only amd64 has: older forms, which musl and modernc.org/libc use.
func commonArch() []uint32 {
	return []uint32{
		unix.SYS_NEWFSTATAT, unix.SYS_OPEN, unix.SYS_CREAT, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK,
		unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_CHMOD, unix.SYS_GETDENTS, unix.SYS_UTIME,
		unix.SYS_UTIMES, unix.SYS_PIPE, unix.SYS_DUP2, unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_CREATE, unix.SYS_EPOLL_WAIT,
		unix.SYS_EVENTFD, unix.SYS_TIME,
	}
}

// conditionsArch allows a thread to set its own thread-local storage: ARCH_SET_FS.
func conditionsArch() []rule {
	return []rule{allow(unix.SYS_ARCH_PRCTL, equal(0, 0x1002))}
}

// nativeArchCalls are the older forms of the calls of native.
func nativeArchCalls() []uint32 {
	return []uint32{
		unix.SYS_FORK, unix.SYS_VFORK, unix.SYS_GETPGRP, unix.SYS_ALARM, unix.SYS_PAUSE, unix.SYS_SYMLINK, unix.SYS_LINK, unix.SYS_CHOWN,
		unix.SYS_LCHOWN, unix.SYS_INOTIFY_INIT, unix.SYS_SIGNALFD,
	}
}
