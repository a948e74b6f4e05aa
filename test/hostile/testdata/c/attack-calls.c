// wall: calls
// tries: one call that only an attack makes; a handler for the signal is to save it
// runs: execve unshare setns ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd mount umount2 pivot_root chroot open_tree move_mount fsopen fsmount fsconfig fspick mount_setattr bpf perf_event_open userfaultfd io_uring_setup memfd_secret keyctl add_key request_key init_module finit_module delete_module kexec_load reboot swapon swapoff open_by_handle_at setuid setresuid setgroups capset personality quotactl
// ends core: signal SYS
// ends native: signal SYS or exit 0
#include "hostile.h"

#define CALL(name) {#name, SYS_##name}
static const struct { const char *name; long number; } calls[] = {
	CALL(execve), CALL(unshare), CALL(setns), CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev), CALL(kcmp),
	CALL(pidfd_getfd), CALL(mount), CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(open_tree), CALL(move_mount), CALL(fsopen),
	CALL(fsmount), CALL(fsconfig), CALL(fspick), {"mount_setattr", 442}, CALL(bpf), CALL(perf_event_open), CALL(userfaultfd),
	CALL(io_uring_setup), {"memfd_secret", 447}, CALL(keyctl), CALL(add_key), CALL(request_key), CALL(init_module),
	CALL(finit_module), CALL(delete_module), CALL(kexec_load), CALL(reboot), CALL(swapon), CALL(swapoff), CALL(open_by_handle_at),
	CALL(setuid), CALL(setresuid), CALL(setgroups), CALL(capset), CALL(personality), CALL(quotactl),
};

static void ignore(int s) { (void)s; }

int main(int argc, char **argv) {
	static char page[4096];
	signal(SIGSYS, ignore);
	for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
		if (!is(argc, argv, calls[i].name)) continue;
		trying("%s", calls[i].name);
		// Arguments that make no harm where the wall is down: pages of zeros, and bad magic numbers.
		long r = syscall(calls[i].number, 0, page, page, 0, 0, 0);
		if (strcmp(calls[i].name, "unshare") == 0) r = syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */);
		if (strcmp(calls[i].name, "personality") == 0) r = syscall(SYS_personality, 0xffffffff);
		if (strcmp(calls[i].name, "io_uring_setup") == 0) r = syscall(SYS_io_uring_setup, 8, page);
		if (strcmp(calls[i].name, "ptrace") == 0) r = syscall(SYS_ptrace, 0x4206 /* SEIZE */, 1, 0, 0);
		if (strcmp(calls[i].name, "keyctl") == 0) r = syscall(SYS_keyctl, 0, -4 /* the user's keyring */, 1);
		if (strcmp(calls[i].name, "add_key") == 0) r = syscall(SYS_add_key, "user", "mayfly-hostile", "x", 1, -4);
		if (r < 0)
			held("%s: %s", calls[i].name, strerror(errno));
		else
			BROKE("%s gave %ld", calls[i].name, r);
		return 0;
	}
	BROKE("no such call");
}
