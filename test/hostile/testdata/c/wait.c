// benign
// Stays, to be looked at from outside.
#include "hostile.h"

int main(void) {
	trying("nothing");
	for (;;) sleep(3600);
}
