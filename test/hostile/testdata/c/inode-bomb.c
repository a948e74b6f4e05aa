// wall: inodes
// tries: to make 60,000 files, directories or links
// runs: files directories links
// ends: exit 0 or killed memory
#include "hostile.h"

int main(int argc, char **argv) {
	char name[32];
	const char *what = argc > 1 ? argv[1] : "files";
	trying("60,000 %s in /tmp", what);
	if (chdir("/tmp")) return 1;
	int n = 0;
	for (; n < 60000; n++) {
		int r;
		snprintf(name, sizeof name, "bomb%d", n);
		if (is(argc, argv, "directories"))
			r = mkdir(name, 0700);
		else if (is(argc, argv, "links") && n > 0)
			r = link("bomb0", name);
		else if ((r = open(name, O_CREAT | O_WRONLY, 0600)) >= 0)
			close(r);
		if (r < 0) break;
	}
	if (n >= 25000)
		BROKE("%d %s", n, what);
	else
		held("%d %s: %s", n, what, strerror(errno));
	return 0;
}
