// wall: calls
// tries: the kernel's other doors: the 32-bit ABI, whose numbers mean other calls, and the x32 numbers
// runs: int80 x32
// ends: exit 0 or signal SYS
#include "hostile.h"

int main(int argc, char **argv) {
	trying("%s", argc > 1 ? argv[1] : "int80");
#ifdef __x86_64__
	if (is(argc, argv, "x32")) {
		refused("getpid as x32", syscall(0x40000000 + SYS_getpid));
		refused("ptrace as x32", syscall(0x40000000 + 521, 0, 0, 0, 0));
		return 0;
	}
	static const struct { const char *name; int number; } calls[] = {{"getpid", 20}, {"keyctl", 288}, {"unshare", 310}, {"socketcall", 102}};
	for (unsigned i = 0; i < 4; i++) {
		int r;
		__asm__ volatile("int $0x80" : "=a"(r) : "a"(calls[i].number), "b"(0), "c"(0), "d"(0) : "memory", "r8", "r9", "r10", "r11");
		errno = -r;
		refused(calls[i].name, r < 0 ? -1 : r);
	}
#else
	held("this machine has no such door");
#endif
	return 0;
}
