/* Records that stay lie between buffers that go.
 *
 * With the argument `fixed` the records come from a pool: slabs of 64 KiB, sizes rounded up to 16, freed ones used again.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../keep.h"

static int is_fixed;
static void *unused[64];
static char *slab;
static size_t left;

static void *from_pool(size_t size) {
    size = (size + 15) & ~(size_t)15;
    void *block = unused[size / 16];
    if (block) {
        unused[size / 16] = *(void **)block;
        return block;
    }
    if (left < size) {
        slab = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        left = 65536;
    }
    left -= size;
    return slab + left;
}

static void to_pool(void *block, size_t size) {
    size = (size + 15) & ~(size_t)15;
    *(void **)block = unused[size / 16];
    unused[size / 16] = block;
}

NOINLINE static void *what_if_record(size_t size) {
    return keep(is_fixed ? from_pool(size) : malloc(size));
}

static void drop(void *record, size_t size) {
    if (is_fixed) to_pool(record, size);
    else free(record);
}

static size_t size_of(int i) { return 24 + i * 7 % 200; }

int main(int count, char **arguments) {
    static void *records[30000], *buffers[300];
    is_fixed = count > 1 && !strcmp(arguments[1], "fixed");
    /* The heap begins before the pool does: what is mapped before is taken for the loader's. */
    keep(malloc(1));
    for (int i = 0; i < 30000; i++) {
        records[i] = what_if_record(size_of(i));
        free(buffers[i % 300]);
        buffers[i % 300] = keep(malloc(500 + i % 7 * 900));
        if (i % 3 == 0) {
            drop(records[i / 2], size_of(i / 2));
            records[i / 2] = what_if_record(size_of(i / 2));
        }
    }
    for (int i = 0; i < 300; i++) free(buffers[i]);
    for (int i = 0; i < 30000; i += 2) drop(records[i], size_of(i));
    return 0;
}
