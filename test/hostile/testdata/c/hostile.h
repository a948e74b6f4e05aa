// What every hostile program has: it says on its stderr what it tries, that it was held, or that it BROKE out.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline void say(const char *how, const char *format, va_list args) {
	char line[1024];
	int n = snprintf(line, sizeof line, "%s: ", how);
	n += vsnprintf(line + n, sizeof line - n - 2, format, args);
	if (n > (int)sizeof line - 2) n = sizeof line - 2;
	line[n++] = '\n';
	if (write(2, line, n)) {}
}

#define SAYS(name, how)                                        \
	__attribute__((format(printf, 1, 2), unused)) static void name(const char *format, ...) { \
		va_list args;                                          \
		va_start(args, format);                                \
		say(how, format, args);                                \
		va_end(args);                                          \
	}
SAYS(trying, "trying")
SAYS(held, "held")
SAYS(BROKE, "BROKE")
SAYS(note, "note")

// refused says whether a call was: r is what it returned.
__attribute__((unused)) static void refused(const char *what, long r) {
	if (r < 0)
		held("%s: %s", what, strerror(errno));
	else
		BROKE("%s gave %ld", what, r);
}

__attribute__((unused)) static int is(int argc, char **argv, const char *variant) {
	return argc > 1 && strcmp(argv[1], variant) == 0;
}

// The folders that a program may write, on every path; those that are not there are skipped.
__attribute__((unused)) static const char *folders[] = {"/account", "/files", "/storage", "/tmp", 0};

__attribute__((unused)) static const char *home(void) {
	for (const char **f = folders; *f; f++)
		if (chdir(*f) == 0) return *f;
	return "/";
}
