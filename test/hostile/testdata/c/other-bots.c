// wall: others
// tries: to find what belongs to another bot or to the daemon: bundle, folder, account, key, mail, environment
// ends: exit 0
#include "hostile.h"
#include <dirent.h>

extern char **environ;

static void show(const char *path) {
	char buf[8192];
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0) return;
	long n = read(fd, buf, sizeof buf - 1);
	close(fd);
	if (n <= 0) return;
	for (long i = 0; i < n; i++)
		if (buf[i] < ' ') buf[i] = ' ';
	buf[n] = 0;
	if (strstr(buf, "CANARY")) BROKE("%s: %.300s", path, strstr(buf, "CANARY"));
}

int main(void) {
	char path[512];
	trying("the environment");
	for (char **e = environ; *e; e++)
		if (strstr(*e, "CANARY")) BROKE("%s", *e);
	trying("the folders of others");
	static const char *dirs[] = {"/bundle", "/storage", "/account", "/account/core", "/attachments", "/files", "/tmp", "/var/lib/mayfly/keys",
		"/var/lib/mayfly/bots", "/root", "/home", "/proc/1/cwd", "/proc/1/fd", "/proc/self/fd", "/dev/shm", 0};
	for (const char **d = dirs; *d; d++) {
		DIR *dir = opendir(*d);
		struct dirent *e;
		while (dir && (e = readdir(dir))) {
			snprintf(path, sizeof path, "%s/%s", *d, e->d_name);
			show(path);
		}
		if (dir) closedir(dir);
	}
	trying("the processes of others");
	for (int pid = 1; pid < 2000; pid++)
		for (const char **f = (const char *[]){"environ", "cmdline", "root/storage/note", "root/bundle/note", "cwd/note", "maps", 0}; *f; f++) {
			snprintf(path, sizeof path, "/proc/%d/%s", pid, *f);
			show(path);
		}
	held("looked");
	return 0;
}
