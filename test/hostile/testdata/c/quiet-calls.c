// wall: calls
// tries: calls that no program needs and that are to fail: clocks, modules, notification, priorities, memory of others
// runs core: all
// runs native: some
// ends: exit 0
#include "hostile.h"
#include <sched.h>
#include <sys/prctl.h>

#define REFUSED(name, ...) refused(#name, syscall(SYS_##name, ##__VA_ARGS__))

int main(int argc, char **argv) {
	static char page[4096];
	struct timespec ts = {1, 0};
	struct sched_param rt = {50};
	trying("what sets the host's state");
	REFUSED(settimeofday, &ts, 0);
	REFUSED(clock_settime, CLOCK_REALTIME, &ts);
	REFUSED(sethostname, "broken", 6);
	REFUSED(setdomainname, "broken", 6);
	REFUSED(syslog, 3, page, sizeof page);
	REFUSED(acct, "/tmp/acct");
#ifdef __x86_64__
	REFUSED(iopl, 3);
	REFUSED(ioperm, 0x80, 1, 1);
	REFUSED(modify_ldt, 0, page, 16);
#endif
	REFUSED(vhangup);
	REFUSED(fanotify_init, 0, 0);
	REFUSED(sched_setscheduler, 0, SCHED_FIFO, &rt);
	REFUSED(mlockall, 3);
	REFUSED(migrate_pages, 0, 64, page, page);
	REFUSED(lookup_dcookie, 0, page, sizeof page);
	REFUSED(clone3, page, 88);
	if (is(argc, argv, "some")) return 0;
	trying("what is of no use to core");
	REFUSED(adjtimex, page);
	REFUSED(setpriority, 0, 0, -20);
	REFUSED(sched_setattr, 0, page, 0);
	REFUSED(ioprio_set, 1, 0, 0x2001);
	REFUSED(inotify_init1, 0);
	REFUSED(name_to_handle_at, -100, "/", page, page, 0);
	REFUSED(mlock, page, sizeof page);
	REFUSED(mbind, page, 4096, 0, 0, 0, 0);
	REFUSED(move_pages, 0, 0, 0, 0, 0, 0);
	REFUSED(vmsplice, 1, 0, 0, 0);
	REFUSED(splice, 0, 0, 1, 0, 1, 0);
	REFUSED(tee, 0, 1, 1, 0);
	REFUSED(pidfd_open, 1, 0);
	REFUSED(timer_create, 0, 0, page);
	REFUSED(setsid);
	REFUSED(seccomp, 1, 8 /* a listener */, page);
	REFUSED(prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
	REFUSED(prctl, PR_SET_SECCOMP, 2, page, 0, 0);
	REFUSED(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0);
	REFUSED(prlimit64, 1, 7, 0, page);
	REFUSED(process_madvise, 0, page, 0, 0, 0);
	return 0;
}
