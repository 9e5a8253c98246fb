/* The story that textbooks tell of brk and mmap, with thresholds fixed at 128 KiB.
 *
 * A = 30 KiB and B = 40 KiB come from the break, C = 200 KiB is a mapping of its own, D = 100 KiB raises the break again.
 * Freeing C unmaps it at once. Freeing B returns nothing, because D lies above it. Freeing D joins it with B (140 KiB) and
 * with the top, and the top is trimmed, down to the 128 KiB that glibc leaves as padding. Setting a threshold also turns
 * off their adaptation, which would otherwise raise both when C is freed.
 *
 * truth: summary: allocations=4 frees=3 allocated_bytes=378880 peak_live_bytes=378880
 * truth: summary: live_at_exit_bytes=30720 live_at_exit_blocks=1
 */
#include <malloc.h>
#include <stdlib.h>

#include "keep.h"

int main(void) {
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    keep(malloc(30 * 1024));
    void *b = keep(malloc(40 * 1024));
    void *c = keep(malloc(200 * 1024));
    void *d = keep(malloc(100 * 1024));
    free(c);
    free(b);
    free(d);
    return 0;
}
