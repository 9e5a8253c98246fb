/* Closes every file descriptor first, as daemons do, and allocates afterwards.
 *
 * truth: summary: allocations=1001 allocated_bytes=100100 frees=1000 live_at_exit_bytes=100 live_at_exit_blocks=1
 * truth: in truth_work: allocations=1000 temporary_allocations=1000
 */
#include <stdlib.h>
#include <unistd.h>

#include "keep.h"

NOINLINE static void truth_work(void) {
    for (int i = 0; i < 1000; i++) free(keep(malloc(100)));
}

int main(void) {
    keep(malloc(100));
    for (int fd = 0; fd < 4096; fd++) close(fd);
    truth_work();
    return 0;
}
