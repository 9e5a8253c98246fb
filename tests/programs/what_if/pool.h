/* The pool that a fix would put in the place of malloc: slabs of 64 KiB, sizes rounded up to 16, freed blocks used again,
 * and mappings above 32 KiB.
 */
#include <stddef.h>
#include <sys/mman.h>

enum { SLAB = 65536, SMALLEST_MAPPING = 32768 + 1 };

static void *unused[SMALLEST_MAPPING / 16 + 1];
static char *slab;
static size_t left;

static void *mapped(size_t size) {
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *from_pool(size_t size) {
    if (size >= SMALLEST_MAPPING) return mapped((size + 4095) & ~(size_t)4095);
    size = (size + 15) & ~(size_t)15;
    void *block = unused[size / 16];
    if (block) {
        unused[size / 16] = *(void **)block;
        return block;
    }
    if (left < size) {
        slab = mapped(SLAB);
        left = SLAB;
    }
    left -= size;
    return slab + left;
}

static void to_pool(void *block, size_t size) {
    if (size >= SMALLEST_MAPPING) {
        munmap(block, (size + 4095) & ~(size_t)4095);
        return;
    }
    size = (size + 15) & ~(size_t)15;
    *(void **)block = unused[size / 16];
    unused[size / 16] = block;
}
