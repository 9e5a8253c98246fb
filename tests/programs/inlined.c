/* A function that exists only inside another one.
 *
 * truth: in truth_outer: allocations=6 allocated_bytes=600 live_at_exit_bytes=600
 * truth: in truth_inner: allocations=6 allocated_bytes=600 live_at_exit_bytes=600
 * truth: summary: allocations=6 allocated_bytes=600 stacks=4
 */
#include <stdlib.h>

#include "keep.h"

__attribute__((always_inline)) static inline void truth_inner(size_t size_bytes) { keep(malloc(size_bytes)); }

NOINLINE static void truth_outer(size_t size_bytes) {
    truth_inner(size_bytes);
    truth_inner(2 * size_bytes);
}

int main(void) {
    for (volatile int i = 0; i < 2; i++) truth_outer(50);
    truth_outer(100);
    return 0;
}
