// wall: time
// tries: to outstay its time: asleep, deaf to every signal that can be blocked, stopped, or waiting for a pipe
// runs: asleep deaf stopped waiting
// limits: wall=1s
// ends: killed wall
// within: 4s
#include "hostile.h"

int main(int argc, char **argv) {
	trying("to stay for an hour, %s", argc > 1 ? argv[1] : "asleep");
	if (is(argc, argv, "deaf")) {
		sigset_t all;
		sigfillset(&all);
		sigprocmask(SIG_BLOCK, &all, 0);
		for (int s = 1; s < 65; s++) signal(s, SIG_IGN);
	}
	if (is(argc, argv, "stopped")) raise(SIGSTOP);
	if (is(argc, argv, "waiting")) {
		int fd[2];
		char c;
		if (pipe(fd) == 0 && read(fd[0], &c, 1) >= 0) note("the pipe has ended");
	}
	for (int n = 0; n < 3600; n++) sleep(1);
	BROKE("an hour is over");
}
