// wall: network
// tries: sockets of every family: netlink, packet, raw, vsock, the kernel's crypto, bluetooth; and to listen
// runs core: families listen udp
// runs native: families
// ends: exit 0 or signal SYS
#include "hostile.h"
#include <netinet/in.h>
#include <sys/socket.h>

static void family(const char *name, int domain, int type, int protocol) {
	trying("%s", name);
	refused(name, socket(domain, type, protocol));
}

int main(int argc, char **argv) {
	if (is(argc, argv, "udp")) {
		family("udp", AF_INET, SOCK_DGRAM, 0);
		family("tcp by IPv6", AF_INET6, SOCK_STREAM, 0);
		family("unix", AF_UNIX, SOCK_STREAM, 0);
		return 0;
	}
	if (is(argc, argv, "listen")) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8080)};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		trying("to listen");
		refused("bind", bind(fd, (void *)&a, sizeof a));
		refused("listen", listen(fd, 1));
		refused("accept", accept4(fd, 0, 0, 0));
		return 0;
	}
	family("netlink route", AF_NETLINK, SOCK_RAW, 0);
	family("netlink netfilter", AF_NETLINK, SOCK_RAW, 12);
	family("netlink audit", AF_NETLINK, SOCK_RAW, 9);
	family("packet", AF_PACKET, SOCK_RAW, 0x300);
	family("raw icmp", AF_INET, SOCK_RAW, 1);
	family("vsock", 40, SOCK_STREAM, 0);
	family("alg", 38, SOCK_SEQPACKET, 0);
	family("bluetooth", 31, SOCK_RAW, 1);
	family("can", 29, SOCK_RAW, 1);
	family("tipc", 30, SOCK_RDM, 0);
	family("rds", 21, SOCK_SEQPACKET, 0);
	family("xdp", 44, SOCK_RAW, 0);
	family("kcm", 41, SOCK_DGRAM, 0);
	family("mptcp", AF_INET, SOCK_STREAM, 262);
	family("sctp", AF_INET, SOCK_STREAM, 132);
	family("sctp by IPv6", AF_INET6, SOCK_STREAM, 132);
	family("smc by IP", AF_INET, SOCK_STREAM, 256);
	family("ping", AF_INET, SOCK_DGRAM, 1);
	family("udplite", AF_INET, SOCK_DGRAM, 136);
	family("smc", 43, SOCK_STREAM, 0);
	return 0;
}
