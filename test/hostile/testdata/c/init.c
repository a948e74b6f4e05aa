// wall: processes
// paths: native
// tries: the processes outside of its fence, which Landlock keeps: bubblewrap's, whose user it is
// ends: exit 0
#include "hostile.h"

int main(void) {
	trying("process 1");
	refused("kill(1, 0)", kill(1, 0));
	refused("rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, 1, 0, &(siginfo_t){.si_code = SI_QUEUE}));
	refused("/proc/1/mem", open("/proc/1/mem", O_RDONLY));
	return 0;
}
