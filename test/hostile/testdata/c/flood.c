// wall: output
// tries: to drown whoever reads: 256 MB on stdout or stderr, one line without end, or messages nobody asked for
// runs: stdout stderr line answers
// limits: wall=2s
// ends: done broken or killed wall or signal PIPE or signal KILL or exit 1
// quiet
#include "hostile.h"

int main(int argc, char **argv) {
	static char block[64 << 10];
	int fd = is(argc, argv, "stderr") ? 2 : 1;
	trying("256 MB of %s", argc > 1 ? argv[1] : "stdout");
	memset(block, 'x', sizeof block);
	if (!is(argc, argv, "line"))
		for (unsigned i = 99; i < sizeof block; i += 100) block[i] = '\n';
	if (is(argc, argv, "answers")) {
		const char *answer = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":[[[[[]]]]]}\n";
		unsigned n = strlen(answer), i = 0;
		for (; i + n < sizeof block; i += n) memcpy(block + i, answer, n);
		memset(block + i, ' ', sizeof block - i - 1);
		block[sizeof block - 1] = '\n';
	}
	for (int n = 0; n < 4096; n++)
		if (write(fd, block, sizeof block) < 0) return 1;
	return 0;
}
