/* realloc: in place at the top of the heap, moved, shrunk, of nothing, to nothing, failed.
 *
 * A block that a realloc replaces before the thread allocates anything else is temporary: those of 1,000 and 50,000
 * bytes, and the 300 that are freed at once. When the block of 2,000 moves, it is given up before the new one counts.
 *
 * truth: summary: allocations=6 frees=5 allocated_bytes=63400 failed_allocations=1
 * truth: summary: reallocs_in_place=2 reallocs_moved=1 temporary_allocations=3 temporary_bytes=51300
 * truth: summary: peak_live_bytes=50100 live_at_exit_bytes=10000 live_at_exit_blocks=1 unknown_frees=0
 * truth: in truth_grow_in_place: allocations=2 allocated_bytes=3000 reallocations=1 live_at_exit_blocks=0
 * truth: in truth_move: allocations=1 allocated_bytes=50000 reallocations=1 peak_bytes=50000 live_at_exit_blocks=0
 * truth: in truth_shrink: allocations=1 allocated_bytes=10000 reallocations=1 live_at_exit_bytes=10000
 * truth: in truth_of_nothing: allocations=1 allocated_bytes=300 reallocations=0 temporary_allocations=1
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "keep.h"

NOINLINE static void *truth_grow_in_place(void) {
    void *block = keep(malloc(1000));
    return keep(realloc(block, 2000));
}

NOINLINE static void *truth_move(void *block) { return keep(realloc(block, 50000)); }

NOINLINE static void *truth_shrink(void *block) { return keep(realloc(block, 10000)); }

NOINLINE static int truth_of_nothing(void) {
    void *block = keep(realloc(NULL, 300));
    return realloc(block, 0) == NULL;
}

NOINLINE static int truth_failed(void *block) {
    volatile size_t too_much = PTRDIFF_MAX;
    errno = 0;
    return realloc(block, too_much) == NULL && errno == ENOMEM;
}

int main(void) {
    char *block = truth_grow_in_place();
    void *above = keep(malloc(100));
    block[1999] = 'x';
    block = truth_move(block);
    if (block[1999] != 'x') return 1;
    block = truth_shrink(block);
    if (!truth_failed(block)) return 2;
    if (block[1999] != 'x') return 3;
    if (!truth_of_nothing()) return 4;
    free(above);
    return 0;
}
