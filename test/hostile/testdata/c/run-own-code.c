// wall: calls
// paths: core
// tries: to bring code of its own: memory to write and to execute, an executable in its folder
// runs: memory file descriptor
// ends core memory: exit 0
// ends core file: signal SYS
// ends core descriptor: exit 0
#include "hostile.h"

int main(int argc, char **argv) {
	home();
	static char code[4096] __attribute__((aligned(4096)));
	trying("%s", argc > 1 ? argv[1] : "memory");
	if (is(argc, argv, "memory")) {
		void *p = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANON, -1, 0);
		refused("mmap", p == MAP_FAILED ? -1 : 0);
		refused("mprotect", mprotect(code, 4096, PROT_READ | PROT_EXEC));
		refused("shmat", syscall(SYS_shmat, 0, 0, 0100000));
		refused("pkey_mprotect", syscall(SYS_pkey_mprotect, code, 4096, PROT_EXEC, -1));
		refused("remap_file_pages", syscall(SYS_remap_file_pages, code, 4096, 0, 0, 0));
		return 0;
	}
	int fd = open("code", O_CREAT | O_RDWR, 0755);
	if (write(fd, "#!/bin/sh\n", 10) != 10) return 1;
	fchmod(fd, 0755);
	close(fd);
	fd = open("code", O_RDONLY);
	void *p = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	refused("mmap of a file", p == MAP_FAILED ? -1 : 0);
	char *none[] = {0};
	if (is(argc, argv, "descriptor")) {
		refused("execveat", syscall(SYS_execveat, fd, "", none, none, AT_EMPTY_PATH));
		refused("execveat of 4", dup2(fd, 4) < 0 ? -1 : syscall(SYS_execveat, 4, "", none, none, AT_EMPTY_PATH));
		return 0;
	}
	refused("execve", execve("code", none, none));
	return 0;
}
