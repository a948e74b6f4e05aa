// wall: memory
// tries: to hold memory in the kernel's buffers: of pipes, made as large as they go, and of sockets
// runs: pipes sockets
// ends: exit 0 or killed memory
#include "hostile.h"
#include <sys/socket.h>

int main(int argc, char **argv) {
	static char block[64 << 10];
	const char *what = argc > 1 ? argv[1] : "pipes";
	trying("%s, full of bytes", what);
	long sum = 0;
	int pairs = 0, fd[2];
	for (; pairs < 500; pairs++) {
		if (is(argc, argv, "sockets") ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) : pipe2(fd, O_NONBLOCK)) break;
		fcntl(fd[1], F_SETPIPE_SZ, 1 << 20);
		int big = 64 << 20;
		setsockopt(fd[0], SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
		setsockopt(fd[1], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
		for (long n; (n = write(fd[1], block, sizeof block)) > 0;) sum += n;
	}
	if (pairs >= 400)
		BROKE("%d pairs", pairs);
	else if (sum > 256L << 20)
		BROKE("%ld bytes in %d %s", sum, pairs, what);
	else
		held("%ld bytes in %d %s: %s", sum, pairs, what, strerror(errno));
	return 0;
}
