// wall: storage
// tries: names that are no text, look like a way out, or are too long
// runs: control latin backslash long partial colon
// ends: exit 0
// folder control: refused name|control|refused
// folder latin: refused name|UTF-8|refused
// folder backslash: kept or refused name|refused
// folder long: kept
// folder partial: kept or refused .
// folder colon: kept
#include "hostile.h"

int main(int argc, char **argv) {
	char longest[256];
	memset(longest, 'x', 255);
	longest[255] = 0;
	const char *name = longest;
	if (is(argc, argv, "control")) name = "new\nline\x1b[2J";
	if (is(argc, argv, "latin")) name = "\xff\xfe\xc0\xaf";
	if (is(argc, argv, "backslash")) name = "..\\..\\etc\\passwd";
	if (is(argc, argv, "partial")) name = ".mayfly-partial";
	if (is(argc, argv, "colon")) name = "...";
	home();
	trying("a file of %zu bytes' name", strlen(name));
	int fd = open(name, O_CREAT | O_WRONLY, 0600);
	if (fd < 0 || write(fd, "x", 1) != 1) note("%s", strerror(errno));
	return 0;
}
