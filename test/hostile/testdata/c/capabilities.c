// wall: privileges
// tries: to become somebody: uid 0, root's group, a capability, a file's other owner
// runs core: quiet chown
// runs native: quiet chown
// ends core: exit 0
// ends native: exit 0 or signal SYS
#include "hostile.h"
#include <sys/fsuid.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
	home();
	trying("%s", argc > 1 ? argv[1] : "quiet");
	int fd = open("mine", O_CREAT | O_RDWR, 0600);
	if (is(argc, argv, "chown")) {
		refused("fchown to 0", fchown(fd, 0, 0));
		refused("fchown to 1000", fchown(fd, 1000, 1000));
		refused("chown", chown("mine", 0, 0));
		refused("setxattr", syscall(SYS_fsetxattr, fd, "security.capability", "\1\0\0\2\377\377\377\377\0\0\0\0\377\377\377\377\0\0\0\0", 20, 0));
		return 0;
	}
	refused("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0));
	refused("securebits", prctl(PR_SET_SECUREBITS, 0, 0, 0, 0));
	refused("no_new_privs off", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
	refused("setfsuid", (setfsuid(0), setfsuid(-1) == 0) ? 0 : -1);
	if (geteuid() == 0 || getegid() == 0) BROKE("uid %d, gid %d", geteuid(), getegid());
	return 0;
}
