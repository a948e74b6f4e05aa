// wall: files
// tries: to write where it may not: into the root, beside and in place of its folders
// ends: exit 0
#include "hostile.h"

int main(void) {
	trying("files in the root");
	refused("open /new", open("/new", O_CREAT | O_WRONLY, 0600));
	refused("mkdir /new", mkdir("/new", 0700));
	refused("mkdir /proc", mkdir("/proc2", 0700));
	refused("chmod /", chmod("/", 0777));
	refused("unlink /usr/bin/sh", unlink("/usr/bin/sh"));
	trying("to move folders");
	refused("rename /tmp", rename("/tmp", "/tmp2"));
	refused("rmdir /tmp", rmdir("/tmp"));
	if (access("/bundle", F_OK) == 0) {
		refused("open /bundle/new", open("/bundle/new", O_CREAT | O_WRONLY, 0600));
		refused("chmod /bundle", chmod("/bundle", 0777));
	}
	return 0;
}
