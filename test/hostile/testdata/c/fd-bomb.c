// wall: descriptors
// tries: to have a hundred thousand open files, and to raise the limit first
// ends: exit 0
#include "hostile.h"
#include <sys/resource.h>

int main(void) {
	trying("to raise the limit");
	struct rlimit l = {1 << 20, 1 << 20};
	refused("setrlimit", setrlimit(RLIMIT_NOFILE, &l));
	trying("to open 100,000 files");
	int n = 0;
	while (n < 100000 && dup(2) >= 0) n++;
	if (n > 300)
		BROKE("%d files are open", n);
	else
		held("%d files: %s", n, strerror(errno));
	return 0;
}
