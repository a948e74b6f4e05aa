// wall: processes
// tries: to read and write its init's memory, by /proc and by the calls for it
// runs: proc vm
// ends core proc: exit 0
// ends core vm: signal SYS
// ends native: exit 0 or signal SYS
#include "hostile.h"
#include <sys/uio.h>

int main(int argc, char **argv) {
	char buf[64];
	struct iovec l = {buf, 64}, r = {(void *)0x400000, 64};
	if (is(argc, argv, "vm")) {
		trying("process_vm_readv");
		refused("process_vm_readv", process_vm_readv(1, &l, 1, &r, 1, 0));
		return 0;
	}
	static const char *files[] = {"/proc/1/mem", "/proc/1/maps", "/proc/1/environ", "/proc/2/mem", "/proc/self/../1/auxv", 0};
	for (const char **f = files; *f; f++) {
		trying("%s", *f);
		int fd = open(*f, O_RDONLY);
		refused(*f, fd < 0 ? -1 : (long)read(fd, buf, 1) - (lseek(fd, 0, SEEK_CUR) == 0));
	}
	trying("/proc/1/mem for writing");
	refused("/proc/1/mem", open("/proc/1/mem", O_RDWR));
	return 0;
}
