// wall: storage
// tries: to leave links in its folder, for the daemon to follow: to the host's files, out of the folder, to itself
// runs: symlink hardlink loop
// ends: exit 0
// folder core: kept
// folder native symlink: refused symbolic|socket|pipe|device
// folder native loop: refused symbolic|socket|pipe|device
// folder native hardlink: kept
#include "hostile.h"

int main(int argc, char **argv) {
	home();
	int fd = open("file", O_CREAT | O_WRONLY, 0600);
	if (write(fd, "x", 1) != 1) note("write: %s", strerror(errno));
	close(fd);
	trying("%s", argc > 1 ? argv[1] : "symlink");
	int r;
	if (is(argc, argv, "hardlink"))
		r = link("file", "again");
	else if (is(argc, argv, "loop"))
		r = symlink("loop", "loop") | symlink("..", "up");
	else
		r = symlink("/etc/shadow", "shadow") | symlink("../../../../keys", "keys");
	if (r < 0)
		held("%s", strerror(errno));
	else
		note("made");
	return 0;
}
