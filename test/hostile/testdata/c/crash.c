// wall: dumps
// tries: to be dumped: a file of its memory in the host's core folder, or the host's handler started as root
// runs: abort segv
// ends abort: signal ABRT
// ends segv: signal SEGV
#include "hostile.h"
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
	home();
	trying("%s", argc > 1 ? argv[1] : "abort");
	struct rlimit l = {RLIM_INFINITY, RLIM_INFINITY};
	refused("setrlimit core", setrlimit(RLIMIT_CORE, &l));
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	static char secret[1 << 20];
	memset(secret, 's', sizeof secret);
	if (is(argc, argv, "segv")) *(volatile int *)8 = 1;
	abort();
}
