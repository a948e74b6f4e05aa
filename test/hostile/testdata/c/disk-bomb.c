// wall: disk
// tries: to fill every folder, and to find a way to more room than it has
// runs: write fallocate rename
// ends: exit 0 or killed memory
#include "hostile.h"

static long fill(const char *name, int allocate, long most) {
	static char block[256 << 10];
	long n = 0;
	for (int file = 0; file < 64; file++) {
		char path[64];
		snprintf(path, sizeof path, "%s%d", name, file);
		int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
		if (fd < 0) break;
		long r, had = n;
		while ((r = allocate ? (fallocate(fd, 0, n - had, sizeof block) ? -1 : (long)sizeof block) : write(fd, block, sizeof block)) > 0 &&
		       n < most)
			n += r;
		close(fd);
	}
	return n;
}

int main(int argc, char **argv) {
	trying("to fill the folders");
	signal(SIGXFSZ, SIG_IGN);
	for (const char **f = folders; *f; f++) {
		if (chdir(*f)) continue;
		if (argc > 1 && !is(argc, argv, "write") && strcmp(*f, "/tmp")) continue;
		long most = (strcmp(*f, "/account") ? 100L : 210L) << 20;
		long n = fill("bomb", is(argc, argv, "fallocate"), most);
		if (is(argc, argv, "rename") && rename("bomb0", "moved0") == 0) n += fill("more", 0, most - n);
		if (n >= most)
			BROKE("%ld bytes in %s", n, *f);
		else
			held("%ld bytes in %s: %s", n, *f, strerror(errno));
	}
	return 0;
}
