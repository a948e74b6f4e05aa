// wall: network
// tries: to reach the host: the relay's port that signs for anybody, its mail ports, its name server, the cloud's metadata, the
// private network
// runs: reinjection loopback private metadata dns
// ends: exit 0 or signal SYS
#include "hostile.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

static void reach(const char *address, int port) {
	trying("%s port %d", address, port);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, address, &a.sin_addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int r = connect(fd, (void *)&a, sizeof a), e = 0;
	struct pollfd p = {fd, POLLOUT, 0};
	socklen_t n = sizeof e;
	if (r < 0 && errno == EINPROGRESS) {
		r = poll(&p, 1, 500) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) == 0 && e == 0 ? 0 : -1;
		errno = e;
	}
	if (r == 0) {
		BROKE("%s port %d", address, port);
		if (write(fd, "EHLO hostile\r\n", 14)) {}
	} else
		held("%s port %d: %s", address, port, strerror(errno));
	close(fd);
}

int main(int argc, char **argv) {
	if (is(argc, argv, "reinjection")) reach("127.0.0.1", 10025);
	if (is(argc, argv, "loopback")) { reach("127.0.0.1", 25); reach("127.0.0.1", 3128); reach("127.0.0.2", 10025); reach("0.0.0.0", 10025); }
	if (is(argc, argv, "private")) { reach("10.0.0.1", 80); reach("192.168.1.1", 80); reach("100.64.0.1", 80); }
	if (is(argc, argv, "metadata")) reach("169.254.169.254", 80);
	if (is(argc, argv, "dns")) {
		reach("127.0.0.53", 53);
		reach("10.0.0.1", 53);
		int fd = socket(AF_INET, SOCK_DGRAM, 0);
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53)};
		inet_pton(AF_INET, "127.0.0.53", &a.sin_addr);
		if (fd >= 0) {
			sendto(fd, "\1\2\1\0\0\1\0\0\0\0\0\0\4evil\4test\0\0\1\0\1", 27, 0, (void *)&a, sizeof a);
			note("sent a question");
		} else
			held("udp: %s", strerror(errno));
	}
	return 0;
}
