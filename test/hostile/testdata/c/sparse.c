// wall: storage
// tries: a file of 1 TB that takes no room, and then many of the largest size that goes, so that all together are announced as more
// than there may be
// runs: one many
// ends: exit 0
// folder one: kept
// folder many: refused too large|more than|over
#include "hostile.h"

int main(int argc, char **argv) {
	signal(SIGXFSZ, SIG_IGN);
	home();
	int fd = open("sparse", O_CREAT | O_RDWR, 0600);
	trying("a file of 1 TB");
	refused("ftruncate", ftruncate(fd, 1L << 40));
	refused("write at 1 TB", pwrite(fd, "x", 1, 1L << 40));
	if (is(argc, argv, "one")) return 0;
	for (int n = 0; n < 16; n++) {
		char name[32];
		snprintf(name, sizeof name, "sparse%d", n);
		int fd = open(name, O_CREAT | O_RDWR, 0600);
		for (long size = 512L << 20; size > 4096; size /= 2)
			if (ftruncate(fd, size) == 0) break;
		close(fd);
	}
	return 0;
}
