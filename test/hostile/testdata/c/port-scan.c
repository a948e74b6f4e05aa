// wall: network
// tries: every port of its loopback: there must be none but those that the daemon serves
// ends: exit 0
// within: 20s
#include "hostile.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

int main(void) {
	trying("65,535 ports");
	int found = 0;
	for (int port = 1; port < 65536; port++) {
		if (port == 143 || port == 587) continue;
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd >= 0 && connect(fd, (void *)&a, sizeof a) == 0) {
			struct sockaddr_in me;
			socklen_t n = sizeof me;
			getsockname(fd, (void *)&me, &n);
			if (me.sin_port == a.sin_port) note("port %d answered itself", port); // TCP's simultaneous open
			else { BROKE("port %d", port); found++; }
		}
		close(fd);
	}
	if (!found) held("none answers");
	return 0;
}
