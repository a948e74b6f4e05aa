package stage

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What a filter can say to a system call, seccomp(2).
const (
	actionAllow = unix.SECCOMP_RET_ALLOW
	actionDeny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	actionNoSys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	actionKill  = unix.SECCOMP_RET_KILL_PROCESS
)

// rule is the action for one system call when all of its conditions hold. A call may have several rules, and the first that
// holds counts; when none does, the call is denied.
type rule struct {
	number uint32
	action uint32
	when   []condition
}

// condition is one about an argument, counted from 0, in all its 64 bits.
type condition struct {
	arg   uint32
	test  uint16 // BPF_JEQ or BPF_JSET
	value uint64
	not   bool // it holds when the test does not
}

func allow(number uint32, when ...condition) rule { return rule{number, actionAllow, when} }

// equal holds when the argument is value.
func equal(arg uint32, value uint64) condition { return condition{arg, unix.BPF_JEQ, value, false} }

// has holds when the argument has the bit, one of the lower 32.
func has(arg uint32, bit uint64) condition { return condition{arg, unix.BPF_JSET, bit, false} }

// none holds when the argument has none of the bits.
func none(arg uint32, bits uint64) condition { return condition{arg, unix.BPF_JSET, bits, true} }

// The offsets in what a filter sees, struct seccomp_data of seccomp(2), on little-endian machines.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// toNext stands in a jump for the distance to the end of the rule.
const toNext = 255

// errFilter is wrapped when rules make no filter: a mistake of ours.
var errFilter = errors.New("seccomp filter cannot be assembled")

// assemble makes one classic BPF program of the rules. A call is looked up by its number, once: after a number has matched,
// every way ends in an action. (Filters that go on to the next call's number with an argument in the accumulator take that
// argument for a number.)
func assemble(rules []rule) ([]unix.SockFilter, error) {
	program := []unix.SockFilter{
		load(offsetArch),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nativeArch, Jt: 1},
		ret(actionDeny),
		load(offsetNumber),
	}
	done := make(map[uint32]bool)
	for _, r := range rules {
		if done[r.number] {
			continue
		}
		done[r.number] = true
		code, err := decide(r.number, rules)
		if err != nil {
			return nil, err
		}
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: r.number, Jf: uint8(len(code))})
		program = append(program, code...)
	}
	if len(program) >= unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%w: %d instructions", errFilter, len(program))
	}
	return append(program, ret(actionDeny)), nil
}

// decide is what is to be done once the number is known: it ends in an action, whatever the arguments are.
func decide(number uint32, rules []rule) ([]unix.SockFilter, error) {
	var code []unix.SockFilter
	final := false // there was a rule without conditions
	for _, r := range rules {
		if r.number != number {
			continue
		}
		if final {
			return nil, fmt.Errorf("%w: a rule for call %d after one without conditions", errFilter, number)
		}
		code = append(code, r.code()...)
		final = len(r.when) == 0
	}
	if !final {
		code = append(code, ret(actionDeny))
	}
	if len(code) >= toNext {
		return nil, fmt.Errorf("%w: the rules for call %d take %d instructions", errFilter, number, len(code))
	}
	return code, nil
}

// code tests one rule: its conditions, its action; a condition that does not hold jumps behind it.
func (r rule) code() []unix.SockFilter {
	var code []unix.SockFilter
	for _, c := range r.when {
		low, high := uint32(c.value), uint32(c.value>>32)
		if c.test == unix.BPF_JEQ || high != 0 {
			code = append(code, load(offsetArgs+8*c.arg+4), c.jump(high))
		}
		code = append(code, load(offsetArgs+8*c.arg), c.jump(low))
	}
	code = append(code, ret(r.action))
	for i := range code {
		rest := uint8(len(code) - 1 - i)
		if code[i].Jt == toNext {
			code[i].Jt = rest
		}
		if code[i].Jf == toNext {
			code[i].Jf = rest
		}
	}
	return code
}

func (c condition) jump(half uint32) unix.SockFilter {
	j := unix.SockFilter{Code: unix.BPF_JMP | c.test | unix.BPF_K, K: half}
	if c.not {
		j.Jt = toNext
	} else {
		j.Jf = toNext
	}
	return j
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// loadFilter installs the program on every thread of this process.
func loadFilter(program []unix.SockFilter) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	thread, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install the filter: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("install the filter: thread %d has another one", thread)
	}
	return nil
}
