// wall: files
// tries: the files of the host that give most away, and those of the kernel that a wrong uid may write
// ends: exit 0
#include "hostile.h"

int main(void) {
	static const char *reading[] = {"/etc/shadow", "/root/.bashrc", "/root/.ssh/id_rsa", "/var/log/syslog", "/proc/kcore", "/proc/kallsyms",
		"/proc/1/environ", "/proc/1/root/etc/passwd", "/proc/keys", "/proc/sysvipc/shm", "/proc/timer_list", "/dev/mem", "/dev/kmsg",
		"/dev/vda", "/dev/sda", "/sys/kernel/debug", "/sys/fs/cgroup/cgroup.procs", "/run/systemd/private", "/var/lib/mayfly/ledger.db",
		"/etc/mayfly", "/host-file", "/host/etc/passwd", 0};
	static const char *writing[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
		"/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj", "/proc/1/mem", "/sys/kernel/uevent_helper",
		"/proc/sys/kernel/hostname", "/proc/irq/0/smp_affinity", "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/uinput",
		"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/proc/self/uid_map", "/etc/passwd", "/usr/bin/python3", 0};
	trying("to read");
	char text[4096];
	for (const char **p = reading; *p; p++) {
		int fd = open(*p, O_RDONLY | O_NONBLOCK);
		long n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		text[n > 0 ? n : 0] = 0;
		int addresses = strspn(text, "0") < 16;  // kallsyms without addresses, and a list that has a heading only
		int entries = !strstr(*p, "sysvipc") || (strchr(text, '\n') && strchr(text, '\n')[1]);
		if (n > 0 && addresses && entries)
			BROKE("%s can be read", *p);
		else
			held("%s: %s", *p, n < 0 ? strerror(errno) : "nothing in it");
	}
	trying("to write"); // only opened: nothing is written where a wall is down
	for (const char **p = writing; *p; p++) {
		int fd = open(*p, O_WRONLY | O_NONBLOCK);
		if (fd >= 0 && strcmp(*p, "/proc/self/oom_score_adj") == 0) {
			if (write(fd, "-1000", 5) == 5) BROKE("%s: never killed for want of memory", *p);
		} else
			refused(*p, fd);
	}
	return 0;
}
