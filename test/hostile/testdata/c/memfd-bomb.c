// wall: memory
// tries: to take 2 GB in files that have no name and lie in no folder
// ends core: signal SYS
// ends native: killed memory or exit 0
#include "hostile.h"

int main(void) {
	static char block[1 << 20];
	trying("memfd_create");
	int fd = memfd_create("bomb", 0);
	if (fd < 0) {
		held("memfd_create: %s", strerror(errno));
		return 0;
	}
	for (int n = 0; n < 2048; n++)
		if (write(fd, block, sizeof block) < 0) {
			held("after %d MB: %s", n, strerror(errno));
			return 0;
		}
	BROKE("2 GB in a memfd");
}
