// wall: storage
// tries: folders in folders, 3,000 deep, so that whoever walks them runs out of something; and one more than is kept
// runs core: 3000 12
// runs native: 3000 20
// ends: exit 0
// folder: refused deep|no space
#include "hostile.h"

int main(int argc, char **argv) {
	home();
	int most = argc > 1 ? atoi(argv[1]) : 3000, n = 0;
	trying("%d folders deep", most);
	for (; n < most && mkdir("d", 0700) == 0 && chdir("d") == 0; n++) {}
	note("%d deep: %s", n, strerror(errno));
	return 0;
}
