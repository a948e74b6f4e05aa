// wall: privileges
// tries: to leave a program that runs as its owner, for somebody on the host to start
// ends: exit 0
// folder: kept
#include "hostile.h"

int main(void) {
	home();
	trying("a setuid file");
	int fd = open("trap", O_CREAT | O_RDWR, 0777);
	if (write(fd, "#!/bin/sh\n", 10) != 10) return 1;
	if (fchmod(fd, 06777) < 0) held("fchmod: %s", strerror(errno));
	if (chmod("trap", 06777) < 0) held("chmod: %s", strerror(errno));
	return 0;
}
