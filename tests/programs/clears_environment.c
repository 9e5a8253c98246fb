/* Throws its environment away before it allocates.
 *
 * truth: in truth_work: allocations=10 allocated_bytes=1000 live_at_exit_bytes=1000
 */
#define _GNU_SOURCE
#include <stdlib.h>

#include "keep.h"

NOINLINE static void truth_work(void) {
    for (int i = 0; i < 10; i++) keep(malloc(100));
}

int main(void) {
    if (clearenv()) return 1;
    truth_work();
    return getenv("PATH") ? 2 : 0;
}
