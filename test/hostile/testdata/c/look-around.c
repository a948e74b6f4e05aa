// wall: files
// paths: core
// tries: to find any file that it was not given, by walking all that it can see
// ends: exit 0
#include "hostile.h"
#include <dirent.h>

static int seen;

static void walk(const char *dir, int depth) {
	DIR *d = depth > 12 || seen > 5000 ? 0 : opendir(dir);
	if (!d) return;
	struct dirent *e;
	while ((e = readdir(d)) && seen++ < 5000) {
		char path[4096];
		struct stat st;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
		snprintf(path, sizeof path, "%s/%s", strcmp(dir, "/") ? dir : "", e->d_name);
		if (lstat(path, &st) < 0) continue;
		if (S_ISDIR(st.st_mode))
			walk(path, depth + 1);
		else if (strncmp(path, "/account/", 9) && strncmp(path, "/files/", 7) && strncmp(path, "/tmp/", 5))
			BROKE("there is %s", path);
	}
	closedir(d);
}

int main(void) {
	trying("all that is below /");
	walk("/", 0);
	walk("..", 0);
	walk("/account/../..", 0);
	if (chdir("/account") == 0 && chdir("../..") == 0) walk(".", 0);
	held("looked at %d names", seen);
	return 0;
}
