// wall: end
// tries: to outlive its run: forks twice, in a session of its own, with no file open, deaf to signals
// runs: fork stay
// ends core fork: exit 0
// ends core stay: exit 0
// ends native: exit 0
#include "hostile.h"

int main(int argc, char **argv) {
	trying("to leave a daemon behind");
	int pid = fork();
	if (pid < 0) {
		held("fork: %s", strerror(errno));
		if (is(argc, argv, "stay")) fcntl(0, F_SETFL, O_NONBLOCK);
		return 0;
	}
	if (pid > 0) return 0;
	setsid();
	if (fork() > 0) _exit(0);
	for (int s = 1; s < 65; s++) signal(s, SIG_IGN);
	for (int fd = 0; fd < 256; fd++) close(fd);
	for (int n = 0; n < 3600; n++) sleep(1);
	_exit(0);
}
