// Allocates from 131,072 call stacks: each of 17 levels calls the next one from one of two places. With an argument,
// all descriptors are used up before.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static void descend(unsigned path, int levels) {
    if (levels == 0) {
        free(malloc(path % 500));
        __asm__ volatile("");
        return;
    }
    if (path & 1) {
        descend(path >> 1, levels - 1);
        __asm__ volatile("" ::: "memory");
    } else {
        descend(path >> 1, levels - 1);
        __asm__ volatile("nop" ::: "memory");
    }
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        while (open("/dev/null", O_RDONLY) >= 0) {
        }
    for (unsigned path = 0; path < 1 << 17; path++)
        descend(path, 17);
    puts("done");
    return 7;
}
