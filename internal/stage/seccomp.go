package stage

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
	"mayfly/internal/stage/takedown"
)

// assembleProfile makes the filter of a seccomp profile for this process.
//
// Profiles are allow-lists. What is not on the list fails with EPERM, as does every call of a foreign architecture (int 0x80)
// and every call of the x32 numbers, so that a library's optional call costs nothing; clone3, whose flags a filter cannot see,
// fails with ENOSYS, and libraries fall back to clone. The calls of deadly, which no program of ours makes by accident, kill the
// process with SIGSYS: that ends an attack at its first try, and the run's record says so.
func assembleProfile(name string) ([]unix.SockFilter, error) {
	if takedown.Down("seccomp-" + takedown.Wall(name)) {
		return []unix.SockFilter{ret(actionAllow)}, nil
	}
	rules, err := profile(name, os.Getpid())
	if err != nil {
		return nil, err
	}
	program, err := assemble(rules)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %s: %w", name, err)
	}
	return program, nil
}

// profile are the rules of that name for a process with the given pid, the only one that it may signal. Calls with conditions
// come first: the kernel remembers which calls are allowed whatever their arguments are, and runs no filter for them.
func profile(name string, pid int) ([]rule, error) {
	if name == wire.ProfileNative {
		return nativeProfile(), nil
	}
	rules := append(commonConditions(), confinedConditions(uint64(pid))...)
	always, kill := common(), deadly()
	switch name {
	case wire.ProfileWorker:
		kill = append(kill, workerDeadly()...)
	case wire.ProfileWASM:
		rules = append(rules, allow(unix.SYS_MPROTECT, equal(2, unix.PROT_READ|unix.PROT_EXEC))) // wazero seals the code that it has made
		kill = append(kill, workerDeadly()...)
	case wire.ProfileCore:
		rules = append(rules, coreConditions()...)
		always = append(always, unix.SYS_CONNECT, unix.SYS_SHUTDOWN, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME)
	default:
		return nil, fmt.Errorf("no seccomp profile %q", name)
	}
	rules = append(rules, each(actionAllow, always)...)
	rules = append(rules, rule{number: unix.SYS_CLONE3, action: actionNoSys})
	return append(rules, each(actionKill, kill)...), nil
}

// each makes one rule without conditions for each call.
func each(action uint32, numbers []uint32) []rule {
	var rules []rule
	for _, n := range numbers {
		rules = append(rules, rule{number: n, action: action})
	}
	return rules
}

// common are the calls of the Go runtime, of musl and Rust's standard library, and of SQLite on files, that are allowed whatever
// their arguments are.
func common() []uint32 {
	return slices.Concat([]uint32{
		// memory; mmap, mprotect and madvise are in commonConditions
		unix.SYS_BRK, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MEMBARRIER,
		// threads and signals of its own; clone and futex are in commonConditions
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST,
		unix.SYS_SET_TID_ADDRESS, unix.SYS_RSEQ, unix.SYS_GETTID, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK,
		unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_RESTART_SYSCALL,
		// time
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
		unix.SYS_TIMES, unix.SYS_GETRUSAGE,
		// who am I
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETGROUPS,
		unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETRANDOM, unix.SYS_UMASK,
		// open files
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_PREADV,
		unix.SYS_PWRITEV, unix.SYS_LSEEK, unix.SYS_CLOSE, unix.SYS_DUP, unix.SYS_DUP3, unix.SYS_FSTAT, unix.SYS_FSYNC,
		unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_FADVISE64, unix.SYS_FLOCK, unix.SYS_FCHMOD,
		unix.SYS_COPY_FILE_RANGE, unix.SYS_SENDFILE, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT,
		unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL, unix.SYS_PSELECT6, unix.SYS_GETDENTS64, unix.SYS_FCHDIR, unix.SYS_FSTATFS,
		// files by name; renameat2 is in commonConditions
		unix.SYS_OPENAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_READLINKAT,
		unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_TRUNCATE,
		unix.SYS_CHDIR, unix.SYS_GETCWD,
	}, commonArch())
}

// namespaceFlags are the clone flags that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// fionbio makes a descriptor non-blocking, ioctl_list(2).
const fionbio = 0x5421

// The operations of futex(2), without those on priority inheritance, and what may be added to them.
const (
	futexWaitWake   = 0 | 1 | 3 // the bits of FUTEX_WAIT, FUTEX_WAKE and FUTEX_REQUEUE
	futexWaitBitset = 9
	futexWakeBitset = 10
	futexPrivate    = 128
	futexRealtime   = 256
)

// commonConditions are calls that are allowed with some arguments only.
func commonConditions() []rule {
	rules := []rule{
		allow(unix.SYS_FUTEX, none(1, ^uint64(futexWaitWake|futexPrivate|futexRealtime))),
		allow(unix.SYS_FUTEX, equal(1, futexWaitBitset|futexPrivate)),
		allow(unix.SYS_FUTEX, equal(1, futexWaitBitset|futexPrivate|futexRealtime)),
		allow(unix.SYS_FUTEX, equal(1, futexWakeBitset|futexPrivate)),
		allow(unix.SYS_PRCTL, equal(0, unix.PR_SET_NAME)),
		allow(unix.SYS_PRCTL, equal(0, unix.PR_SET_VMA)), // Go names its memory
		allow(unix.SYS_FCHOWN, equal(1, UID)),            // SQLite gives its journal the database's owner
		allow(unix.SYS_RENAMEAT2, none(4, ^uint64(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE))),
	}
	for _, advice := range []uint64{unix.MADV_WILLNEED, unix.MADV_DONTNEED, unix.MADV_FREE, unix.MADV_HUGEPAGE, unix.MADV_NOHUGEPAGE,
		unix.MADV_COLLAPSE} {
		rules = append(rules, allow(unix.SYS_MADVISE, equal(2, advice)))
	}
	for _, cmd := range []uint64{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
		unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW} {
		rules = append(rules, allow(unix.SYS_FCNTL, equal(1, cmd)))
	}
	return append(rules, conditionsArch()...)
}

// confinedConditions hold for programs that are one process of memory that cannot be executed.
func confinedConditions(pid uint64) []rule {
	return []rule{
		allow(unix.SYS_MMAP, none(2, unix.PROT_EXEC), none(3, unix.MAP_HUGETLB)), // huge pages are in no memory limit
		allow(unix.SYS_MPROTECT, none(2, unix.PROT_EXEC)),
		allow(unix.SYS_CLONE, has(0, unix.CLONE_THREAD), none(0, namespaceFlags|unix.CLONE_PTRACE|unix.CLONE_UNTRACED)),
		allow(unix.SYS_TGKILL, equal(0, pid)),
		allow(unix.SYS_PRLIMIT64, equal(0, 0), equal(2, 0)), // read its own limits
	}
}

// coreConditions are what deltachat-rpc-server needs beyond common: to be executed, once and by file descriptor (everything
// else that it can open is on a noexec file system), TCP by IPv4, and tokio's pair of unix sockets. Nothing can be listened at,
// no descriptor be sent, and what the kernel keeps for the few (out-of-band bytes, kernel TLS, zero copy) is not there.
func coreConditions() []rule {
	rules := []rule{
		allow(unix.SYS_EXECVEAT, equal(0, binaryFD), equal(4, unix.AT_EMPTY_PATH)),
		allow(unix.SYS_IOCTL, equal(1, fionbio)),
		allow(unix.SYS_SENDTO, none(3, unix.MSG_OOB|unix.MSG_ZEROCOPY|unix.MSG_FASTOPEN)),
		allow(unix.SYS_RECVFROM, none(3, unix.MSG_OOB|unix.MSG_ERRQUEUE)),
		allow(unix.SYS_GETSOCKOPT, equal(1, unix.SOL_SOCKET), equal(2, unix.SO_ERROR)),
	}
	for _, option := range []uint64{unix.SO_KEEPALIVE, unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		rules = append(rules, allow(unix.SYS_SETSOCKOPT, equal(1, unix.SOL_SOCKET), equal(2, option)))
	}
	for _, option := range []uint64{unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT} {
		rules = append(rules, allow(unix.SYS_SETSOCKOPT, equal(1, unix.IPPROTO_TCP), equal(2, option)))
	}
	for _, protocol := range []uint64{0, unix.IPPROTO_TCP} {
		rules = append(rules, allow(unix.SYS_SOCKET, equal(0, unix.AF_INET), socketType(unix.SOCK_STREAM), equal(2, protocol)))
	}
	return append(rules, allow(unix.SYS_SOCKETPAIR, equal(0, unix.AF_UNIX), socketType(unix.SOCK_STREAM)))
}

// socketType holds for a socket of that type, with any flags. (A type of no bits, which it also holds for, the kernel refuses.) The
// protocol is to be named besides: a stream may also be one of MPTCP, SCTP or SMC.
func socketType(kind uint64) condition {
	return none(1, ^(kind | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK))
}

// workerDeadly are deadly to programs that neither speak to anybody nor become another one.
func workerDeadly() []uint32 {
	return []uint32{unix.SYS_EXECVEAT, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR}
}

// deadly are the calls that only an attack makes.
func deadly() []uint32 {
	return []uint32{
		unix.SYS_EXECVE, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
		unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
		unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSCONFIG, unix.SYS_FSPICK,
		unix.SYS_MOUNT_SETATTR, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
		unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET, unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_INIT_MODULE,
		unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
		unix.SYS_MKNODAT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID,
		unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_CAPSET, unix.SYS_PERSONALITY, unix.SYS_QUOTACTL,
	}
}
