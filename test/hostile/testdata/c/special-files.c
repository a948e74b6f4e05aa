// wall: storage
// tries: FIFOs, sockets and devices in its folder: whoever opens them waits for ever, or opens the host's disk
// runs: fifo device socket
// ends core fifo: signal SYS
// ends core device: signal SYS
// ends core socket: exit 0
// ends native: exit 0 or signal SYS
// folder native fifo: kept or refused symbolic|socket|pipe|device
// folder native socket: kept or refused symbolic|socket|pipe|device
#include "hostile.h"
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

int main(int argc, char **argv) {
	home();
	trying("%s", argc > 1 ? argv[1] : "fifo");
	if (is(argc, argv, "device")) {
		refused("mknod of a disk", mknod("disk", S_IFBLK | 0666, makedev(254, 0)));
		refused("mknod of /dev/mem", mknod("mem", S_IFCHR | 0666, makedev(1, 1)));
	} else if (is(argc, argv, "socket")) {
		struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "socket"};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (fd < 0 || bind(fd, (void *)&a, sizeof a) < 0) held("socket: %s", strerror(errno));
	} else if (mkfifo("fifo", 0600) < 0)
		held("mkfifo: %s", strerror(errno));
	return 0;
}
