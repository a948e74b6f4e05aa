// wall: processes
// tries: to end, stop or slow other processes: its init, its broker, other sandboxes
// runs core: init all others
// runs native: others
// ends: exit 0
#include "hostile.h"
#include <sys/resource.h>

int main(int argc, char **argv) {
	trying("signals to %s", argc > 1 ? argv[1] : "all");
	if (is(argc, argv, "init")) {
		refused("kill(1)", kill(1, SIGKILL));
		refused("tgkill(1)", syscall(SYS_tgkill, 1, 1, SIGTERM));
		refused("tkill(1)", syscall(SYS_tkill, 1, SIGKILL));
		refused("rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, 1, SIGTERM, 0));
		refused("prlimit", prlimit(1, RLIMIT_NOFILE, &(struct rlimit){0, 0}, 0));
		return 0;
	}
	if (is(argc, argv, "all")) {
		refused("kill(-1)", kill(-1, SIGKILL));
		refused("kill(0)", kill(0, SIGKILL));
		return 0;
	}
	int found = 0;
	for (int pid = 2; pid < 40000; pid++)
		if (pid != getpid() && kill(pid, 0) == 0) {
			note("process %d", pid);
			found++;
		}
	if (found > 8) BROKE("%d processes of others", found);
	else held("%d processes", found);
	return 0;
}
