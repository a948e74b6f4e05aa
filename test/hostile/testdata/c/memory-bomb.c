// wall: memory
// tries: to take 2 GB, and to touch it
// runs: heap shared stack
// ends: killed memory
#include "hostile.h"

static void stack(long left) {
	volatile char page[64 << 10];
	for (unsigned i = 0; i < sizeof page; i += 4096) page[i] = 1;
	if (left > 0) stack(left - (long)sizeof page);
	page[0] = 2;
}

int main(int argc, char **argv) {
	const long most = 2L << 30, step = 1 << 20;
	trying("%ld bytes of %s", most, argc > 1 ? argv[1] : "heap");
	if (is(argc, argv, "stack")) {
		char *area = mmap(0, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
		for (long n = 0; area != MAP_FAILED && n < most; n += 4096) area[n] = 1;
		if (area == MAP_FAILED) stack(most);
	}
	for (long n = 0; n < most; n += step) {
		int flags = MAP_ANON | (is(argc, argv, "shared") ? MAP_SHARED : MAP_PRIVATE);
		char *p = mmap(0, step, PROT_READ | PROT_WRITE, flags, -1, 0);
		if (p == MAP_FAILED) {
			held("after %ld: %s", n, strerror(errno));
			return 1;
		}
		memset(p, 1, step);
	}
	BROKE("took %ld bytes", most);
}
