/* A heap full of holes, and what malloc_trim gives back of it.
 *
 * 400 blocks of 4,000 bytes, each followed by one of 24 bytes from keep_note; 60 blocks of 50,000 bytes, then 72 bytes from
 * plugin_register. The large ones are freed. Then the program prints the resident KiB of its heap before and after
 * malloc_trim(0); it asks the kernel with a buffer of its own, so that nothing else allocates.
 *
 * truth: summary: allocations=861 frees=460 allocated_bytes=4609672 live_at_exit_bytes=9672 live_at_exit_blocks=401
 */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keep.h"

static char text[1 << 18];

static long heap_kib(void) {
    int file = open("/proc/self/smaps", O_RDONLY);
    size_t length = 0;
    for (ssize_t got; (got = read(file, text + length, sizeof text - 1 - length)) > 0; length += (size_t)got) {
    }
    close(file);
    text[length] = 0;
    char *heap = strstr(text, "[heap]");
    return heap ? atol(strstr(heap, "Rss:") + 4) : -1;
}

NOINLINE static void *keep_note(void) { return memset(malloc(24), 1, 24); }
NOINLINE static void *plugin_register(void) { return memset(malloc(72), 2, 72); }

int main(void) {
    void *blocks[460];
    for (int nth = 0; nth < 400; nth++) {
        blocks[nth] = memset(malloc(4000), 3, 4000);
        keep(keep_note());
    }
    for (int nth = 400; nth < 460; nth++) {
        blocks[nth] = memset(malloc(50000), 4, 50000);
    }
    keep(plugin_register());
    for (int nth = 0; nth < 460; nth++) {
        free(blocks[nth]);
    }
    char line[64];
    long before = heap_kib();
    malloc_trim(0);
    int length = snprintf(line, sizeof line, "%ld %ld\n", before, heap_kib());
    return write(1, line, (size_t)length) != length;
}
