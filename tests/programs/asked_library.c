/* A library whose code keeps a block of 7777 bytes in memory that outlives it. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void asked_work(void) {
    void **memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory[1] = memset(malloc(7777), 0, 7777);
}
