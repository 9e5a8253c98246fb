/* Allocates and frees until it is killed, and counts in a file what it has done.
 *
 * Arguments: a file of 16 bytes, mapped shared: its process id, then the number of allocations that have returned; the
 * microseconds of pause after each allocation, none if that is missing; and the number of allocations after which it
 * kills itself, never if that is missing. The count is raised after each allocation, so the truth is: allocations =
 * count, or one more. Should nobody kill it, it ends after a minute.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keep.h"

enum { WINDOW = 64 };

int main(int argc, char **argv) {
    void *window[WINDOW] = {0};
    int file = argc > 1 ? open(argv[1], O_RDWR) : -1;
    volatile uint64_t *words = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    useconds_t pause_us = argc > 2 ? (useconds_t)atoi(argv[2]) : 0;
    uint64_t last = argc > 3 ? strtoull(argv[3], NULL, 10) : UINT64_MAX;
    if (words == MAP_FAILED) return 1;
    alarm(60);
    words[0] = (uint64_t)getpid();
    for (uint64_t count = 0;; count++) {
        free(window[count % WINDOW]);
        window[count % WINDOW] = keep(malloc(16 + count % 1000));
        words[1] = count + 1;
        if (count + 1 == last) raise(SIGKILL);
        if (pause_us) usleep(pause_us);
    }
}
