// wall: ipc
// tries: the daemon's and the broker's abstract unix sockets, which are in no file system
// ends core: exit 0
// ends native: exit 0
#include "hostile.h"
#include <sys/socket.h>
#include <sys/un.h>

int main(void) {
	trying("@mayfly-hostile");
	struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "\0mayfly-hostile"};
	socklen_t n = sizeof a.sun_family + 15;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0) held("socket: %s", strerror(errno));
	else refused("connect", connect(fd, (void *)&a, n));
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
		trying("to connect a pair to somebody else");
		refused("connect a pair", connect(pair[0], (void *)&a, n));
		char buf[4] = "fd";
		struct iovec io = {buf, 2};
		char control[CMSG_SPACE(sizeof(int))] = {0};
		struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
		if (sendmsg(pair[0], &m, 0) < 0) held("send a descriptor: %s", strerror(errno));
	}
	return 0;
}
