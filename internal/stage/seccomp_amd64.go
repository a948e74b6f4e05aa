package stage

import seccomp "github.com/elastic/go-seccomp-bpf"

// commonArch are the calls of common that only amd64 has: older forms, which musl and modernc.org/libc use.
func commonArch() []string {
	return []string{
		"newfstatat", "open", "creat", "stat", "lstat", "access", "readlink", "mkdir", "rmdir", "unlink", "rename", "chmod", "getdents", "utime",
		"utimes", "pipe", "dup2", "poll", "select", "epoll_create", "epoll_wait", "eventfd", "time",
	}
}

// conditionsArch allows a thread to set its own thread-local storage: ARCH_SET_FS.
func conditionsArch() []seccomp.NameWithConditions {
	return []seccomp.NameWithConditions{call("arch_prctl", equal(0, 0x1002))}
}
