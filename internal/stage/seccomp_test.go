package stage

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"mayfly/internal/sandbox/wire"
)

const testPID = 7

// machine is a profile's BPF program, to be run as the kernel would.
func machine(t *testing.T, profileName string) *bpf.VM {
	t.Helper()
	rules, err := profile(profileName, testPID)
	if err != nil {
		t.Fatal(err)
	}
	return vmOf(t, rules)
}

func vmOf(t *testing.T, rules []rule) *bpf.VM {
	t.Helper()
	assembled, err := assemble(rules)
	if err != nil {
		t.Fatal(err)
	}
	var raw []bpf.RawInstruction
	for _, f := range assembled {
		raw = append(raw, bpf.RawInstruction{Op: f.Code, Jt: f.Jt, Jf: f.Jf, K: f.K})
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("instructions that x/net/bpf does not know")
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
	yes   = uint32(0x7fff0000) // SECCOMP_RET_ALLOW
	deny  = uint32(0x00050001) // SECCOMP_RET_ERRNO with EPERM
	noSys = uint32(0x00050026) // SECCOMP_RET_ERRNO with ENOSYS
	kill  = uint32(0x80000000) // SECCOMP_RET_KILL_PROCESS
)

func TestProfiles(t *testing.T) {
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	const tcp = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	tests := []struct {
		call         string
		args         []uint64
		worker, core uint32
	}{
		{"read", nil, yes, yes},
		{"openat", nil, yes, yes},
		{"clone", []uint64{thread}, yes, yes},
		{"clone", []uint64{uint64(unix.SIGCHLD)}, deny, deny},
		{"clone", []uint64{unix.CLONE_VM | unix.CLONE_VFORK}, deny, deny},
		{"clone", []uint64{thread | unix.CLONE_NEWNET}, deny, deny},
		{"clone", []uint64{unix.CLONE_NEWUSER}, deny, deny},
		{"clone3", nil, noSys, noSys},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, yes, yes},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, deny, deny},
		{"mmap", []uint64{0, 4096, unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}, yes, yes},
		{"mmap", []uint64{0, 4096, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB}, deny, deny},
		{"madvise", []uint64{0, 4096, unix.MADV_DONTNEED}, yes, yes},
		{"madvise", []uint64{0, 4096, unix.MADV_MERGEABLE}, deny, deny},
		{"futex", []uint64{0, 128}, yes, yes},        // FUTEX_WAIT_PRIVATE
		{"futex", []uint64{0, 129}, yes, yes},        // FUTEX_WAKE_PRIVATE
		{"futex", []uint64{0, 137}, yes, yes},        // FUTEX_WAIT_BITSET_PRIVATE
		{"futex", []uint64{0, 6}, deny, deny},        // FUTEX_LOCK_PI
		{"futex", []uint64{0, 11 | 128}, deny, deny}, // FUTEX_WAIT_REQUEUE_PI
		{"renameat2", nil, yes, yes},
		{"renameat2", []uint64{0, 0, 0, 0, unix.RENAME_WHITEOUT}, deny, deny},
		{"mprotect", []uint64{0, 4096, unix.PROT_EXEC}, deny, deny},
		{"tgkill", []uint64{testPID, 9, 6}, yes, yes},
		{"tgkill", []uint64{1, 1, 15}, deny, deny},
		{"tgkill", []uint64{testPID | 1<<32, 9, 6}, deny, deny},
		{"kill", []uint64{testPID, 9}, deny, deny},
		{"tkill", []uint64{1, 15}, deny, deny},
		{"fcntl", []uint64{3, unix.F_SETLK}, yes, yes},
		{"fcntl", []uint64{3, unix.F_SETPIPE_SZ}, deny, deny},
		{"fcntl", []uint64{3, unix.F_SETOWN}, deny, deny},
		{"prlimit64", []uint64{0, unix.RLIMIT_NOFILE, 0}, yes, yes},
		{"prlimit64", []uint64{1, unix.RLIMIT_NOFILE, 0}, deny, deny},
		{"prctl", []uint64{unix.PR_SET_NAME}, yes, yes},
		{"prctl", []uint64{unix.PR_SET_DUMPABLE}, deny, deny},
		{"ioctl", []uint64{0, unix.TIOCSTI}, deny, deny},
		{"ioctl", []uint64{0, fionbio}, deny, yes},
		{"linkat", nil, deny, deny},
		{"symlinkat", nil, deny, deny},
		{"shmget", nil, deny, deny},
		{"io_uring_enter", nil, deny, deny},
		{"sched_setaffinity", nil, deny, deny},
		{"listen", nil, deny, deny},
		{"bind", nil, deny, deny},
		{"connect", nil, deny, yes},
		{"sendto", []uint64{3, 0, 0, unix.MSG_NOSIGNAL}, deny, yes},
		{"sendto", []uint64{3, 0, 0, unix.MSG_OOB}, deny, deny},
		{"recvfrom", nil, deny, yes},
		{"recvfrom", []uint64{3, 0, 0, unix.MSG_OOB}, deny, deny},
		{"sendmsg", nil, deny, deny},
		{"recvmsg", nil, deny, deny},
		{"setsockopt", []uint64{3, unix.IPPROTO_TCP, unix.TCP_NODELAY}, deny, yes},
		{"setsockopt", []uint64{3, unix.IPPROTO_TCP, unix.TCP_ULP}, deny, deny},
		{"setsockopt", []uint64{3, unix.IPPROTO_TCP, unix.TCP_REPAIR}, deny, deny},
		{"setsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}, deny, deny},
		{"setsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_RCVBUF}, deny, deny},
		{"getsockopt", []uint64{3, unix.SOL_SOCKET, unix.SO_ERROR}, deny, yes},
		{"getsockopt", []uint64{3, unix.IPPROTO_TCP, unix.TCP_ZEROCOPY_RECEIVE}, deny, deny},
		{"socket", []uint64{unix.AF_INET, tcp}, kill, yes},
		{"socket", []uint64{unix.AF_INET, unix.SOCK_DGRAM}, kill, deny},
		{"socket", []uint64{unix.AF_INET6, tcp}, kill, deny},
		{"socket", []uint64{unix.AF_UNIX, tcp}, kill, deny},
		{"socket", []uint64{unix.AF_NETLINK, unix.SOCK_RAW}, kill, deny},
		{"socket", []uint64{unix.AF_VSOCK, unix.SOCK_STREAM}, kill, deny},
		{"socketpair", []uint64{unix.AF_UNIX, tcp}, kill, yes},
		{"execveat", []uint64{binaryFD, 0, 0, 0, unix.AT_EMPTY_PATH}, kill, yes},
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
	for _, name := range []string{wire.ProfileWorker, wire.ProfileCore, wire.ProfileWASM, wire.ProfileNative} {
		vm := machine(t, name)
		for number := range uint32(600) {
			if got := verdict(t, vm, uint32(arch.I386.ID), number); got != deny {
				t.Errorf("%s: call %d of i386: got %#x, want EPERM", name, number, got)
			}
			if got := verdict(t, vm, uint32(arch.X86_64.ID), number|0x40000000); got != deny {
				t.Errorf("%s: call %d of x32: got %#x, want EPERM", name, number, got)
			}
		}
	}
}

// TestArgumentsAreNoNumbers gives calls that are allowed with some arguments only the wrong ones, among them the number of every
// other call: a filter that takes them for calls lets a program fork and make memory executable.
func TestArgumentsAreNoNumbers(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) uint32 { return uint32(info.SyscallNames[name]) }
	for _, name := range []string{wire.ProfileWorker, wire.ProfileCore, wire.ProfileWASM} {
		vm := machine(t, name)
		for n := range uint64(1024) {
			for _, other := range []uint64{0, 1, 3, 7, unix.PR_SET_NAME, testPID, UID, 0x1002, n} {
				for _, tt := range []struct {
					call string
					args []uint64
				}{
					{"clone", []uint64{n, other, other, other, other}},
					{"mmap", []uint64{other, other, n | unix.PROT_EXEC, other}},
					{"mprotect", []uint64{other, other, n | unix.PROT_EXEC, other}},
					{"tgkill", []uint64{n | 1<<10, other, other, other}},
					{"fcntl", []uint64{other, n | 1<<12, other, other}},
					{"prctl", []uint64{n | 1<<10, other, other, other}},
				} {
					if name == wire.ProfileWASM && sealsCode(tt.call, tt.args) {
						continue
					}
					if got := verdict(t, vm, uint32(info.ID), number(tt.call), tt.args...); got != deny {
						t.Fatalf("%s: %s %#x: got %#x, want EPERM", name, tt.call, tt.args, got)
					}
				}
			}
		}
	}
}

// sealsCode reports whether a call makes memory executable and, by that, no longer writable.
func sealsCode(call string, args []uint64) bool {
	return call == "mprotect" && len(args) > 2 && args[2] == unix.PROT_READ|unix.PROT_EXEC
}

// TestWASMOnlySealsCode: in all else, the profile says to every call what the worker's says.
func TestWASMOnlySealsCode(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	worker, wasm := machine(t, wire.ProfileWorker), machine(t, wire.ProfileWASM)
	sealed := 0
	for number := range 600 {
		for flags := range uint64(64) {
			args := []uint64{flags, flags, flags, flags, flags}
			want, got := verdict(t, worker, uint32(info.ID), uint32(number), args...), verdict(t, wasm, uint32(info.ID), uint32(number), args...)
			if sealsCode(info.SyscallNumbers[number], args) && want == deny && got == yes {
				sealed++
			} else if got != want {
				t.Errorf("%s %#x: got %#x, want the worker's %#x", info.SyscallNumbers[number], flags, got, want)
			}
		}
	}
	if sealed != 1 {
		t.Errorf("code was sealed by %d calls, want 1", sealed)
	}
	for _, prot := range []uint64{unix.PROT_EXEC, unix.PROT_WRITE | unix.PROT_EXEC, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC,
		unix.PROT_READ | unix.PROT_EXEC | 1<<32, unix.PROT_READ | unix.PROT_EXEC | unix.PROT_GROWSDOWN} {
		for _, call := range []string{"mprotect", "mmap", "pkey_mprotect"} {
			if got := verdict(t, wasm, uint32(info.ID), uint32(info.SyscallNames[call]), 0, 4096, prot); got != deny {
				t.Errorf("%s %#x: got %#x, want EPERM", call, prot, got)
			}
		}
	}
}

func TestConditions(t *testing.T) {
	const big = 1<<40 | 1<<3
	vm := vmOf(t, []rule{
		allow(1, equal(0, big), none(1, big)),
		allow(1, has(2, 4)),
		allow(2),
		{number: 3, action: actionNoSys},
	})
	tests := []struct {
		number uint32
		args   []uint64
		want   uint32
	}{
		{1, []uint64{big, 0}, yes},
		{1, []uint64{big, ^uint64(big)}, yes},
		{1, []uint64{big, 1 << 3}, deny},
		{1, []uint64{big, 1 << 40}, deny},
		{1, []uint64{1 << 3, 0}, deny},
		{1, []uint64{1 << 40, 0}, deny},
		{1, []uint64{0, 0, 12}, yes},
		{1, []uint64{0, 0, 8}, deny},
		{1, []uint64{2, 2, 2}, deny}, // no argument is a number
		{2, []uint64{3}, yes},
		{3, nil, noSys},
		{4, nil, deny},
	}
	for _, tt := range tests {
		if got := verdict(t, vm, nativeArch, tt.number, tt.args...); got != tt.want {
			t.Errorf("call %d %#x: got %#x, want %#x", tt.number, tt.args, got, tt.want)
		}
	}
	for _, rules := range [][]rule{{allow(1), allow(1, has(0, 1))}, slices.Repeat([]rule{allow(1, has(0, 1))}, 100)} {
		if _, err := assemble(rules); !errors.Is(err, errFilter) {
			t.Errorf("%d rules: got %v, want errFilter", len(rules), err)
		}
	}
}

// TestEveryCallIsListedOnce: in two lists, a call would be allowed or killed by the order of the lists.
func TestEveryCallIsListedOnce(t *testing.T) {
	for _, name := range []string{wire.ProfileWorker, wire.ProfileCore, wire.ProfileWASM, wire.ProfileNative} {
		rules, err := profile(name, testPID)
		if err != nil {
			t.Fatal(err)
		}
		actions := make(map[uint32]uint32)
		for _, r := range rules {
			if action, ok := actions[r.number]; ok && (action != r.action || len(r.when) == 0) {
				t.Errorf("%s: call %d is in two lists", name, r.number)
			}
			actions[r.number] = r.action
		}
	}
}

func TestUnknownProfile(t *testing.T) {
	if _, err := profile("none", testPID); err == nil {
		t.Error("an unknown profile gave a policy")
	}
}
