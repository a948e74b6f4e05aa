// wall: descriptors
// tries: to find a descriptor that somebody forgot: of the stage, the broker, the daemon, the host
// ends: exit 0
#include "hostile.h"

int main(void) {
	trying("descriptors 3 to 4095");
	int found = 0;
	for (int fd = 3; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0) {
			struct stat st;
			fstat(fd, &st);
			BROKE("descriptor %d is open, of mode %o", fd, st.st_mode);
			found++;
		}
	if (!found) held("none");
	trying("to make a directory of what stdin, stdout and stderr are");
	for (int fd = 0; fd < 3; fd++) refused("fchdir", fchdir(fd));
	return 0;
}
