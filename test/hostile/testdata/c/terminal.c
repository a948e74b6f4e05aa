// wall: processes
// tries: to type into the terminal of whoever started it
// ends: exit 0
#include "hostile.h"
#include <sys/ioctl.h>

int main(void) {
	trying("TIOCSTI");
	for (int fd = 0; fd < 3; fd++) {
		refused("TIOCSTI", ioctl(fd, TIOCSTI, "x"));
		refused("TIOCLINUX", ioctl(fd, 0x541C, "\3"));
		refused("TIOCSCTTY", ioctl(fd, TIOCSCTTY, 1));
	}
	refused("/dev/tty", open("/dev/tty", O_RDWR));
	refused("/dev/console", open("/dev/console", O_RDWR));
	refused("/dev/pts/0", open("/dev/pts/0", O_RDWR | O_NOCTTY));
	return 0;
}
