package stage

import (
	"encoding/binary"
	"slices"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

const testPID = 7

// machine is a profile's BPF program, to be run as the kernel would.
func machine(t *testing.T, profileName string) *bpf.VM {
	t.Helper()
	policy, err := profile(profileName, testPID)
	if err != nil {
		t.Fatal(err)
	}
	program, err := policy.Assemble()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// verdict is what the program says to one system call. Its input is struct seccomp_data: number, architecture, instruction
// pointer, six arguments. The VM reads big endian and the kernel natively, but the halves of an argument stand as on the
// little-endian machines that we run on.
func verdict(t *testing.T, vm *bpf.VM, archID, number uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[0:], number)
	binary.BigEndian.PutUint32(data[4:], archID)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	r, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(r)
}

const (
	allow = uint32(seccomp.ActionAllow)
	deny  = uint32(seccomp.ActionErrno) | uint32(unix.EPERM)
	noSys = uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)
	kill  = uint32(seccomp.ActionKillProcess)
)

func TestProfiles(t *testing.T) {
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	const tcp = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	tests := []struct {
		call         string
		args         []uint64
		worker, core uint32
	}{
		{"read", nil, allow, allow},
		{"openat", nil, allow, allow},
		{"clone", []uint64{thread}, allow, allow},
		{"clone", []uint64{uint64(unix.SIGCHLD)}, deny, deny},
		{"clone", []uint64{unix.CLONE_VM | unix.CLONE_VFORK}, deny, deny},
		{"clone", []uint64{thread | unix.CLONE_NEWNET}, deny, deny},
		{"clone", []uint64{unix.CLONE_NEWUSER}, deny, deny},
		{"clone3", nil, noSys, noSys},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow, allow},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, deny, deny},
		{"mprotect", []uint64{0, 4096, unix.PROT_EXEC}, deny, deny},
		{"tgkill", []uint64{testPID, 9, 6}, allow, allow},
		{"tgkill", []uint64{1, 1, 15}, deny, deny},
		{"tgkill", []uint64{testPID | 1<<32, 9, 6}, deny, deny},
		{"kill", []uint64{testPID, 9}, deny, deny},
		{"tkill", []uint64{1, 15}, deny, deny},
		{"fcntl", []uint64{3, unix.F_SETLK}, allow, allow},
		{"fcntl", []uint64{3, unix.F_SETPIPE_SZ}, deny, deny},
		{"fcntl", []uint64{3, unix.F_SETOWN}, deny, deny},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 0}, allow, allow},
		{"prlimit64", []uint64{1, unix.RLIMIT_NOFILE, 0}, deny, deny},
		{"prctl", []uint64{unix.PR_SET_NAME}, allow, allow},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, deny, deny},
		{"ioctl", []uint64{0, unix.TIOCSTI}, deny, deny},
		{"ioctl", []uint64{0, fionbio}, deny, allow},
		{"linkat", nil, deny, deny},
		{"symlinkat", nil, deny, deny},
		{"shmget", nil, deny, deny},
		{"io_uring_enter", nil, deny, deny},
		{"sched_setaffinity", nil, deny, deny},
		{"listen", nil, deny, deny},
		{"bind", nil, deny, deny},
		{"connect", nil, deny, allow},
		{"socket", []uint64{unix.AF_INET, tcp}, kill, allow},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_DGRAM}, kill, deny},
		{"socket", []uint64{unix.AF_INET6, tcp}, kill, deny},
		{"socket", []uint64{unix.AF_UNIX, tcp}, kill, deny},
		{"socket", []uint64{unix.AF_NETLINK, unix.SOCK_RAW}, kill, deny},
		{"socket", []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, kill, deny},
		{"socketpair", []uint64{unix.AF_UNIX, tcp}, kill, allow},
		{"execveat", []uint64{binaryFD, 0, 0, 0, unix.AT_EMPTY_PATH}, kill, allow},
		{"execveat", []uint64{5, 0, 0, 0, unix.AT_EMPTY_PATH}, kill, deny},
		{"execveat", []uint64{binaryFD, 0, 0, 0, 0}, kill, deny},
		{"execve", nil, kill, kill},
		{"ptrace", nil, kill, kill},
		{"unshare", nil, kill, kill},
		{"mount", nil, kill, kill},
		{"io_uring_setup", nil, kill, kill},
		{"memfd_create", nil, kill, kill},
		{"keyctl", nil, kill, kill},
		{"bpf", nil, kill, kill},
	}
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	worker, core := machine(t, wire.ProfileWorker), machine(t, wire.ProfileCore)
	for _, tt := range tests {
		number, ok := info.SyscallNames[tt.call]
		if !ok {
			t.Errorf("no system call %q", tt.call)
			continue
		}
		if got := verdict(t, worker, uint32(info.ID), uint32(number), tt.args...); got != tt.worker {
			t.Errorf("worker: %s %x: got %#x, want %#x", tt.call, tt.args, got, tt.worker)
		}
		if got := verdict(t, core, uint32(info.ID), uint32(number), tt.args...); got != tt.core {
			t.Errorf("core: %s %x: got %#x, want %#x", tt.call, tt.args, got, tt.core)
		}
	}
}

func TestForeignCallsAreDenied(t *testing.T) {
	for _, name := range []string{wire.ProfileWorker, wire.ProfileCore} {
		vm := machine(t, name)
		for number := range uint32(600) {
			if got := verdict(t, vm, uint32(arch.I386.ID), number); got != deny {
				t.Errorf("%s: call %d of i386: got %#x, want EPERM", name, number, got)
			}
			if got := verdict(t, vm, uint32(arch.X86_64.ID), number|0x40000000); got != noSys {
				t.Errorf("%s: call %d of x32: got %#x, want ENOSYS", name, number, got)
			}
		}
	}
}

// TestNamesExistOnARM64 checks the lists that are for both architectures against the one that the tests do not run on.
func TestNamesExistOnARM64(t *testing.T) {
	names := append(slices.Concat(deadly(), network()), "clone3", "execveat", "socket", "socketpair", "ioctl", "setsockopt")
	older := commonArch()
	for _, n := range common() {
		if !slices.Contains(older, n) {
			names = append(names, n)
		}
	}
	for _, n := range names {
		if _, ok := arch.AARCH64.SyscallNames[n]; !ok {
			t.Errorf("arm64 has no %s", n)
		}
	}
}

func TestUnknownProfile(t *testing.T) {
	if _, err := profile("none", testPID); err == nil {
		t.Error("an unknown profile gave a policy")
	}
}
