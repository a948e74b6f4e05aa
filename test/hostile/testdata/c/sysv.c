// wall: ipc
// tries: shared memory, semaphores and queues of the host, and to leave some behind
// ends: exit 0
#include "hostile.h"
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

int main(void) {
	trying("the segment that the host has");
	int id = shmget(0x6d617966, 4096, 0);
	if (id >= 0) BROKE("the host's segment is %d", id);
	else held("shmget: %s", strerror(errno));
	trying("to leave some");
	if (shmget(0x6d617967, 1 << 20, IPC_CREAT | 0666) < 0) held("shmget: %s", strerror(errno));
	if (semget(0x6d617967, 10, IPC_CREAT | 0666) < 0) held("semget: %s", strerror(errno));
	if (msgget(0x6d617967, IPC_CREAT | 0666) < 0) held("msgget: %s", strerror(errno));
	if (mq_open("/mayfly-hostile", O_CREAT | O_RDWR, 0666, (struct mq_attr *)0) < 0) held("mq_open: %s", strerror(errno));
	return 0;
}
