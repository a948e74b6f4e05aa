package stage

import (
	"slices"

	"golang.org/x/sys/unix"
)

// nativeProfile is for programs that nobody has built for us: interpreters, and what they start. They have processes, executable
// memory and sockets of the internet and unix families, but none of the calls by which the kernel was broken out of before. What is
// not on the list fails: calls that libraries try first and do without, with ENOSYS, all others with EPERM.
func nativeProfile() []rule {
	rules := append(commonConditions(), nativeConditions()...)
	rules = append(rules, each(actionAllow, slices.Concat(common(), native(), nativeArchCalls()))...)
	rules = append(rules, each(actionNoSys, []uint32{
		unix.SYS_CLONE3, unix.SYS_OPENAT2, unix.SYS_FCHMODAT2, unix.SYS_EPOLL_PWAIT2, unix.SYS_FUTEX_WAITV, unix.SYS_PIDFD_OPEN,
		unix.SYS_MEMFD_CREATE, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	})...)
	return append(rules, each(actionKill, nativeDeadly())...)
}

// nativeDeadly are the deadly calls but for those that harmless programs try.
func nativeDeadly() []uint32 {
	harmless := []uint32{
		unix.SYS_EXECVE, unix.SYS_IO_URING_SETUP, unix.SYS_MEMFD_CREATE, unix.SYS_MKNODAT, unix.SYS_PERSONALITY, unix.SYS_CAPSET,
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
	}
	return slices.DeleteFunc(deadly(), func(n uint32) bool { return slices.Contains(harmless, n) })
}

// native are the calls that these programs may make beyond common, whatever the arguments are.
func native() []uint32 {
	return []uint32{
		// processes and signals
		unix.SYS_EXECVE, unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_TGKILL, unix.SYS_SETPGID, unix.SYS_GETPGID,
		unix.SYS_GETSID, unix.SYS_SETSID, unix.SYS_GETPRIORITY, unix.SYS_SETPRIORITY, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_GETPARAM,
		unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_GET_PRIORITY_MAX, unix.SYS_SCHED_GET_PRIORITY_MIN, unix.SYS_GETCPU,
		unix.SYS_RT_SIGPENDING, unix.SYS_RT_SIGSUSPEND, unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
		unix.SYS_SIGNALFD4, unix.SYS_GETITIMER, unix.SYS_SETITIMER, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_GETTIME,
		unix.SYS_TIMER_GETOVERRUN, unix.SYS_TIMER_DELETE, unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME,
		unix.SYS_GETRLIMIT, unix.SYS_SETRLIMIT, unix.SYS_GETRESUID, unix.SYS_GETRESGID, unix.SYS_CAPGET, unix.SYS_CLOSE_RANGE,
		// memory that can be executed: interpreters compile
		unix.SYS_MPROTECT, unix.SYS_MSYNC, unix.SYS_MINCORE,
		// files
		unix.SYS_SYMLINKAT, unix.SYS_LINKAT, unix.SYS_FCHOWNAT, unix.SYS_GETXATTR, unix.SYS_LGETXATTR, unix.SYS_FGETXATTR, unix.SYS_LISTXATTR,
		unix.SYS_LLISTXATTR, unix.SYS_FLISTXATTR, unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_INOTIFY_RM_WATCH,
		// sockets; socket, socketpair and their options are in nativeConditions
		unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_SHUTDOWN, unix.SYS_GETSOCKNAME,
		unix.SYS_GETPEERNAME, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG, unix.SYS_SENDTO, unix.SYS_RECVFROM,
		// a program may confine itself further
		unix.SYS_LANDLOCK_CREATE_RULESET, unix.SYS_LANDLOCK_ADD_RULE, unix.SYS_LANDLOCK_RESTRICT_SELF,
	}
}

// Requests of ioctl_list(2) about descriptors and terminals; a terminal cannot be typed into with them (TIOCSTI).
const (
	fioclex   = 0x5451
	fionclex  = 0x5450
	fionread  = 0x541b
	tcgets    = 0x5401
	tiocgwinz = 0x5413
)

// Operations of futex(2) that glibc has beyond those of commonConditions. Those on priority inheritance stay out.
const (
	futexCmpRequeue = 4
	futexWakeOp     = 5
)

// nativeConditions are the calls that these programs may make with some arguments only.
func nativeConditions() []rule {
	rules := []rule{
		allow(unix.SYS_MMAP, none(3, unix.MAP_HUGETLB)), // huge pages are in no memory limit
		allow(unix.SYS_CLONE, none(0, namespaceFlags|unix.CLONE_PTRACE|unix.CLONE_UNTRACED)),
		allow(unix.SYS_MKNODAT, none(2, unix.S_IFMT&^unix.S_IFIFO)), // FIFOs, which scripts speak to their servers by
		allow(unix.SYS_PRLIMIT64, equal(0, 0)),                      // its own limits: those that are hard cannot be raised
	}
	for _, request := range []uint64{fionbio, fioclex, fionclex, fionread, tcgets, tiocgwinz} {
		rules = append(rules, allow(unix.SYS_IOCTL, equal(1, request)))
	}
	for _, operation := range []uint64{futexCmpRequeue, futexWakeOp, futexWaitBitset, futexWakeBitset} {
		for _, flags := range []uint64{0, futexPrivate, futexRealtime, futexPrivate | futexRealtime} {
			rules = append(rules, allow(unix.SYS_FUTEX, equal(1, operation|flags)))
		}
	}
	for _, option := range []uint64{unix.PR_GET_NAME, unix.PR_SET_PDEATHSIG, unix.PR_GET_PDEATHSIG, unix.PR_GET_DUMPABLE, unix.PR_CAPBSET_READ,
		unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_SET_TIMERSLACK} {
		rules = append(rules, allow(unix.SYS_PRCTL, equal(0, option)))
	}
	return append(rules, socketConditions()...)
}

// socketConditions allow TCP, UDP and unix sockets, and the options that programs set on them.
func socketConditions() []rule {
	var rules []rule
	for kind, protocol := range map[uint64]uint64{unix.SOCK_STREAM: unix.IPPROTO_TCP, unix.SOCK_DGRAM: unix.IPPROTO_UDP} {
		rules = append(rules, allow(unix.SYS_SOCKETPAIR, equal(0, unix.AF_UNIX), socketType(kind)))
		rules = append(rules, allow(unix.SYS_SOCKET, equal(0, unix.AF_UNIX), socketType(kind)))
		for _, family := range []uint64{unix.AF_INET, unix.AF_INET6} {
			rules = append(rules, allow(unix.SYS_SOCKET, equal(0, family), socketType(kind), equal(2, protocol)))
			rules = append(rules, allow(unix.SYS_SOCKET, equal(0, family), socketType(kind), equal(2, 0)))
		}
	}
	level := func(level uint64, options ...uint64) {
		for _, o := range options {
			rules = append(rules, allow(unix.SYS_SETSOCKOPT, equal(1, level), equal(2, o)), allow(unix.SYS_GETSOCKOPT, equal(1, level), equal(2, o)))
		}
	}
	level(unix.SOL_SOCKET, unix.SO_REUSEADDR, unix.SO_REUSEPORT, unix.SO_KEEPALIVE, unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF,
		unix.SO_LINGER, unix.SO_RCVTIMEO, unix.SO_SNDTIMEO, unix.SO_RCVTIMEO_NEW, unix.SO_SNDTIMEO_NEW, unix.SO_ERROR, unix.SO_TYPE,
		unix.SO_ACCEPTCONN, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_PEERCRED)
	level(unix.IPPROTO_TCP, unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT, unix.TCP_QUICKACK,
		unix.TCP_DEFER_ACCEPT)
	level(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	level(unix.IPPROTO_IP, unix.IP_TOS)
	return rules
}
