/* Zero sizes, calloc, reallocarray, the memalign family, overflow.
 *
 * A block of 0 bytes is a block. pvalloc counts what was asked for, not what it rounds up to. free(NULL) is nothing.
 *
 * truth: summary: allocations=11 frees=4 allocated_bytes=3632 failed_allocations=3 temporary_allocations=1
 * truth: summary: peak_live_bytes=3632 live_at_exit_bytes=3632 live_at_exit_blocks=7 unknown_frees=0
 * truth: in truth_zero: allocations=4 allocated_bytes=0 temporary_allocations=1 live_at_exit_blocks=0
 * truth: in truth_arrays: allocations=2 allocated_bytes=2000 live_at_exit_bytes=2000 reallocations=0
 * truth: in truth_aligned: allocations=5 allocated_bytes=1632 live_at_exit_bytes=1632 live_at_exit_blocks=5
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>

#include "keep.h"

NOINLINE static int truth_zero(void) {
    void *blocks[] = {keep(malloc(0)), keep(calloc(0, 8)), keep(calloc(8, 0)), keep(realloc(NULL, 0))};
    for (int i = 0; i < 4; i++) {
        if (!blocks[i]) return 0;
        for (int j = 0; j < i; j++)
            if (blocks[i] == blocks[j]) return 0;
    }
    for (int i = 0; i < 4; i++) free(blocks[i]);
    free(NULL);
    return 1;
}

NOINLINE static int truth_arrays(void) {
    char *cleared = keep(calloc(10, 100));
    for (int i = 0; i < 1000; i++)
        if (cleared[i]) return 0;
    return keep(reallocarray(NULL, 20, 50)) != NULL;
}

static int aligned(void *block, size_t alignment, size_t size) {
    keep(block);
    return block && (uintptr_t)block % alignment == 0 && malloc_usable_size(block) >= size;
}

NOINLINE static int truth_aligned(void) {
    void *block = NULL;
    if (!aligned(memalign(64, 100), 64, 100)) return 0;
    if (!aligned(aligned_alloc(256, 512), 256, 512)) return 0;
    if (posix_memalign(&block, 4096, 1000) != 0 || !aligned(block, 4096, 1000)) return 0;
    if (!aligned(valloc(10), 4096, 10)) return 0;
    return aligned(pvalloc(10), 4096, 4096);
}

NOINLINE static int truth_failed(void) {
    volatile size_t too_much = (size_t)PTRDIFF_MAX + 1, half = SIZE_MAX / 2;
    errno = 0;
    if (malloc(too_much) || errno != ENOMEM) return 0;
    errno = 0;
    if (calloc(half, 3) || errno != ENOMEM) return 0;
    errno = 0;
    return !reallocarray(NULL, half, 3) && errno == ENOMEM;
}

int main(void) {
    if (!truth_zero()) return 1;
    if (!truth_arrays()) return 2;
    if (!truth_aligned()) return 3;
    if (!truth_failed()) return 4;
    return 0;
}
