// wall: pids
// tries: to start 400 processes that stay, or threads
// runs: fork vfork clone threads
// ends: exit 0
#include "hostile.h"
#include <pthread.h>
#include <sched.h>

enum { wanted = 400, allowed = 100 };

static void *stay(void *x) { sleep(3600); return x; }
static int child(void *x) { sleep(3600); return x != 0; }

static int start(const char *how) {
	static char stacks[wanted][4096] __attribute__((aligned(16)));
	static int n;
	n++;
	if (strcmp(how, "threads") == 0) {
		pthread_t t;
		pthread_attr_t a;
		pthread_attr_init(&a);
		pthread_attr_setstacksize(&a, 16 << 10);
		int e = pthread_create(&t, &a, stay, 0);
		errno = e;
		return e ? -1 : 1;
	}
	if (strcmp(how, "clone") == 0) return clone(child, stacks[n - 1] + 4096, SIGCHLD, 0);
	if (strcmp(how, "vfork") == 0) {
		int pid = vfork();
		if (pid == 0) _exit(0);
		return pid;
	}
	int pid = fork();
	if (pid == 0) { sleep(3600); _exit(0); }
	return pid;
}

int main(int argc, char **argv) {
	const char *how = argc > 1 ? argv[1] : "fork";
	trying("%s, %d times", how, wanted);
	int n = 0;
	while (n < wanted && start(how) >= 0) n++;
	if (n > allowed && strcmp(how, "vfork") != 0)
		BROKE("%d of %s", n, how);
	else
		held("%d of %s: %s", n, how, strerror(errno));
	_exit(0);
}
