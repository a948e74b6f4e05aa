// benign
// What a program does that means no harm. It shows that a path works, and how long the next run takes.
#include "hostile.h"

int main(void) {
	trying("nothing");
	home();
	int fd = open("note", O_CREAT | O_WRONLY | O_TRUNC, 0600);
	return write(fd, "hello", 5) != 5;
}
