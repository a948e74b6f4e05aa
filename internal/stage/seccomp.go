package stage

import (
	"fmt"
	"os"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

// loadProfile installs a seccomp profile on all threads of this process, for good.
//
// Profiles are allow-lists. What is not on the list fails with EPERM, as does every call of a foreign architecture (int 0x80),
// so that a library's optional call costs nothing; clone3, whose flags a filter cannot see, fails with ENOSYS, and libraries
// fall back to clone. The calls of deadly, which no program of ours makes by accident, kill the process with SIGSYS: that ends
// an attack at its first try, and the run's record says so.
func loadProfile(name string) error {
	policy, err := profile(name, os.Getpid())
	if err != nil {
		return err
	}
	filter := seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}
	if err := seccomp.LoadFilter(filter); err != nil {
		return fmt.Errorf("seccomp profile %s: %w", name, err)
	}
	return nil
}

// profile is the policy of that name for a process with the given pid, the only one that it may signal.
func profile(name string, pid int) (seccomp.Policy, error) {
	allowed := seccomp.SyscallGroup{Names: common(), NamesWithCondtions: commonConditions(uint64(pid)), Action: seccomp.ActionAllow}
	kill := seccomp.SyscallGroup{Names: deadly(), Action: seccomp.ActionKillProcess}
	switch name {
	case wire.ProfileWorker:
		kill.Names = append(kill.Names, "execveat", "socket", "socketpair")
	case wire.ProfileCore:
		allowed.Names = append(allowed.Names, network()...)
		allowed.NamesWithCondtions = append(allowed.NamesWithCondtions, coreConditions()...)
	default:
		return seccomp.Policy{}, fmt.Errorf("no seccomp profile %q", name)
	}
	noSys := seccomp.SyscallGroup{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)}
	return seccomp.Policy{DefaultAction: seccomp.ActionErrno, Syscalls: []seccomp.SyscallGroup{allowed, noSys, kill}}, nil
}

// common are the calls of the Go runtime, of musl and Rust's standard library, and of SQLite on files.
func common() []string {
	return append([]string{
		// memory; mmap and mprotect are in commonConditions
		"brk", "munmap", "mremap", "madvise", "mincore", "membarrier",
		// threads and signals of its own
		"futex", "exit", "exit_group", "sched_yield", "sched_getaffinity", "set_robust_list", "set_tid_address", "rseq", "gettid",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
		// time
		"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "times", "getrusage",
		// who am I
		"getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "uname", "sysinfo", "getrandom", "umask",
		// open files
		"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "lseek", "close", "dup", "dup3", "fstat",
		"fsync", "fdatasync", "ftruncate", "fallocate", "fadvise64", "flock", "fchmod", "copy_file_range", "sendfile",
		"epoll_create1", "epoll_ctl", "epoll_pwait", "eventfd2", "pipe2", "ppoll", "pselect6", "getdents64", "fchdir", "fstatfs",
		// files by name
		"openat", "statx", "statfs", "faccessat", "faccessat2", "readlinkat", "mkdirat", "unlinkat", "renameat",
		"renameat2", "fchmodat", "utimensat", "truncate", "chdir", "getcwd",
	}, commonArch()...)
}

// namespaceFlags are the clone flags that make namespaces.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

// fionbio makes a descriptor non-blocking, ioctl_list(2).
const fionbio = 0x5421

// commonConditions are calls that are allowed with some arguments only.
func commonConditions(pid uint64) []seccomp.NameWithConditions {
	list := []seccomp.NameWithConditions{
		call("clone", bitsSet(0, unix.CLONE_THREAD), bitsNotSet(0, namespaceFlags|unix.CLONE_PTRACE|unix.CLONE_UNTRACED)),
		call("mmap", bitsNotSet(2, unix.PROT_EXEC)),
		call("mprotect", bitsNotSet(2, unix.PROT_EXEC)),
		call("tgkill", equal(0, pid)),
		call("prlimit64", equal(0, 0), equal(2, 0)), // read its own limits
		call("prctl", equal(0, unix.PR_SET_NAME)),
		call("prctl", equal(0, unix.PR_SET_VMA)), // Go names its memory
		call("fchown", equal(1, UID)),            // SQLite gives its journal the database's owner
	}
	for _, cmd := range []uint64{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL,
		unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW} {
		list = append(list, call("fcntl", equal(1, cmd)))
	}
	return append(list, conditionsArch()...)
}

// network are the calls on sockets that have been made; which can be made is in coreConditions. Nothing can be listened at.
func network() []string {
	return []string{"connect", "sendto", "sendmsg", "recvfrom", "recvmsg", "shutdown", "getsockname", "getpeername", "getsockopt"}
}

// coreConditions are what deltachat-rpc-server needs beyond common: to be executed, once and by file descriptor (everything
// else that it can open is on a noexec file system), TCP by IPv4, and tokio's pair of unix sockets.
func coreConditions() []seccomp.NameWithConditions {
	list := []seccomp.NameWithConditions{
		call("execveat", equal(0, binaryFD), equal(4, unix.AT_EMPTY_PATH)),
		call("ioctl", equal(1, fionbio)),
		call("setsockopt", equal(1, unix.IPPROTO_TCP)),
		call("setsockopt", equal(1, unix.SOL_SOCKET), equal(2, unix.SO_KEEPALIVE)),
		call("setsockopt", equal(1, unix.SOL_SOCKET), equal(2, unix.SO_RCVTIMEO)),
		call("setsockopt", equal(1, unix.SOL_SOCKET), equal(2, unix.SO_SNDTIMEO)),
	}
	for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
		list = append(list,
			call("socket", equal(0, unix.AF_INET), equal(1, unix.SOCK_STREAM|flags)),
			call("socketpair", equal(0, unix.AF_UNIX), equal(1, unix.SOCK_STREAM|flags)))
	}
	return list
}

// deadly are the calls that only an attack makes.
func deadly() []string {
	return []string{
		"execve", "unshare", "setns", "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd",
		"mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr",
		"bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "memfd_create", "memfd_secret", "keyctl", "add_key", "request_key",
		"init_module", "finit_module", "delete_module", "kexec_load", "reboot", "swapon", "swapoff", "mknodat", "open_by_handle_at",
		"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset", "personality", "quotactl",
	}
}

func call(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: conditions}
}

func equal(arg uint32, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: seccomp.Equal, Value: value}
}

func bitsSet(arg uint32, bits uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: seccomp.BitsSet, Value: bits}
}

func bitsNotSet(arg uint32, bits uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: seccomp.BitsNotSet, Value: bits}
}
