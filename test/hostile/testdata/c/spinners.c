// wall: cpu
// tries: to compute on 32 threads for ever; or in the kernel, by system calls; or on many threads that come and go
// runs: compute kernel shortlived
// limits: cpu=1s wall=20s
// ends: killed cpu
// within: 8s
#include "hostile.h"
#include <pthread.h>

static volatile int kernel;

static void *spin(void *x) {
	for (volatile uint64_t n = 1; n; n += 2)
		if (kernel) access("/none", R_OK);
	return x;
}

static volatile int alive;

static void *brief(void *x) {
	for (volatile int n = 0; n < 1000000; n++) {}
	__atomic_sub_fetch(&alive, 1, __ATOMIC_SEQ_CST);
	return x;
}

int main(int argc, char **argv) {
	trying("32 threads that compute");
	kernel = is(argc, argv, "kernel");
	pthread_t t;
	if (is(argc, argv, "shortlived"))
		for (;;)
			if (__atomic_add_fetch(&alive, 1, __ATOMIC_SEQ_CST) > 8 || pthread_create(&t, 0, brief, 0) || pthread_detach(t))
				__atomic_sub_fetch(&alive, 1, __ATOMIC_SEQ_CST);
	for (int n = 0; n < 31; n++) pthread_create(&t, 0, spin, 0);
	spin(0);
	BROKE("an odd number came to 0");
}
