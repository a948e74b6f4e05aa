package stage

import (
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

// TestNativeProfile holds what programs of the host may ask of the kernel.
func TestNativeProfile(t *testing.T) {
	tests := []struct {
		call string
		args []uint64
		want uint32
	}{
		{"execve", nil, yes},
		{"clone", []uint64{uint64(unix.SIGCHLD)}, yes},
		{"clone", []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, yes},
		{"clone", []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, deny},
		{"clone", []uint64{unix.CLONE_NEWNS}, deny},
		{"clone", []uint64{unix.CLONE_NEWNET}, deny},
		{"clone", []uint64{unix.CLONE_PTRACE}, deny},
		{"clone3", nil, noSys},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC, unix.MAP_PRIVATE}, yes},
		{"mmap", []uint64{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_HUGETLB}, deny},
		{"mprotect", []uint64{0, 4096, unix.PROT_EXEC}, yes},
		{"kill", nil, yes},
		{"futex", []uint64{0, 4 | 128}, yes}, // FUTEX_CMP_REQUEUE_PRIVATE
		{"futex", []uint64{0, 9 | 256}, yes}, // FUTEX_WAIT_BITSET, real time
		{"futex", []uint64{0, 6}, deny},      // FUTEX_LOCK_PI
		{"futex", []uint64{0, 11}, deny},     // FUTEX_WAIT_REQUEUE_PI
		{"futex", []uint64{0, 13 | 128}, deny},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 1}, yes},
		{"prlimit64", []uint64{1, unix.RLIMIT_NOFILE, 0}, deny},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, deny},
		{"prctl", []uint64{unix.PR_SET_PDEATHSIG}, yes},
		{"ioctl", []uint64{0, unix.TCGETS}, yes},
		{"ioctl", []uint64{0, unix.TIOCSTI}, deny},
		{"ioctl", []uint64{0, unix.TIOCLINUX}, deny},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_STREAM}, yes},
		{"socket", []uint64{unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}, yes},
		{"socket", []uint64{unix.AF_UNIX, unix.SOCK_STREAM}, yes},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_RAW}, deny},
		{"socket", []uint64{unix.AF_NETLINK, unix.SOCK_DGRAM}, deny},
		{"socket", []uint64{unix.AF_PACKET, unix.SOCK_DGRAM}, deny},
		{"socket", []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, deny},
		{"socket", []uint64{unix.AF_ALG, unix.SOCK_STREAM}, deny},
		{"setsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_REUSEADDR}, yes},
		{"setsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, deny},
		{"setsockopt", []uint64{3, unix.IPPROTO_TCP, unix.TCP_ULP}, deny},
		{"setsockopt", []uint64{3, unix.IPPROTO_IP, 64}, deny},
		{"memfd_create", nil, noSys},
		{"io_uring_setup", nil, noSys},
		{"openat2", nil, noSys},
		{"execveat", nil, deny},
		{"mknodat", []uint64{0, 0, unix.S_IFIFO | 0o600}, yes},
		{"mknodat", []uint64{0, 0, unix.S_IFSOCK | 0o600}, deny},
		{"mknodat", []uint64{0, 0, unix.S_IFCHR | 0o600}, deny},
		{"mknodat", []uint64{0, 0, unix.S_IFBLK | 0o600}, deny},
		{"setuid", nil, deny},
		{"capset", nil, deny},
		{"personality", nil, deny},
		{"shmget", nil, deny},
		{"msgget", nil, deny},
		{"splice", nil, deny},
		{"vmsplice", nil, deny},
		{"sync", nil, deny},
		{"syncfs", nil, deny},
		{"seccomp", nil, deny},
		{"ptrace", nil, kill},
		{"process_vm_writev", nil, kill},
		{"unshare", nil, kill},
		{"setns", nil, kill},
		{"mount", nil, kill},
		{"fsopen", nil, kill},
		{"open_tree", nil, kill},
		{"chroot", nil, kill},
		{"bpf", nil, kill},
		{"perf_event_open", nil, kill},
		{"userfaultfd", nil, kill},
		{"keyctl", nil, kill},
		{"add_key", nil, kill},
		{"open_by_handle_at", nil, kill},
		{"init_module", nil, kill},
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, wire.ProfileNative)
	for _, tt := range tests {
		number, ok := info.SyscallNames[tt.call]
		if !ok {
			t.Errorf("no system call %q", tt.call)
			continue
		}
		if got := verdict(t, vm, uint32(info.ID), uint32(number), tt.args...); got != tt.want {
			t.Errorf("%s %x: got %#x, want %#x", tt.call, tt.args, got, tt.want)
		}
	}
}
