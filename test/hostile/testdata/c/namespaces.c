// wall: privileges
// tries: a user namespace of its own, where it has every capability
// ends core: exit 0
// ends native: exit 0 or signal SYS
#include "hostile.h"
#include <sched.h>

int main(void) {
	trying("clone with namespaces");
	for (int flag = 0; flag < 3; flag++) {
		int flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWUSER | CLONE_NEWNET};
		long pid = syscall(SYS_clone, flags[flag] | SIGCHLD, 0, 0, 0, 0);
		if (pid == 0) _exit(0);
		refused("clone", pid);
	}
	return 0;
}
