/* One block 500 calls deep, one 3,000 calls deep: more than a stack keeps.
 *
 * truth: summary: allocations=2 allocated_bytes=3500 live_at_exit_bytes=3500 live_at_exit_blocks=2
 * truth: in truth_bottom: allocations=2 allocated_bytes=3500
 */
#include <stdlib.h>

#include "keep.h"

NOINLINE static void truth_bottom(int depth) { keep(malloc(depth)); }

NOINLINE static int truth_descend(int left, int depth) {
    if (left == 0) {
        truth_bottom(depth);
        return 0;
    }
    return truth_descend(left - 1, depth) + 1;
}

int main(void) {
    return truth_descend(500, 500) + truth_descend(3000, 3000) == 3500 ? 0 : 1;
}
