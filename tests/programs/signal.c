/* A signal handler that allocates, called a hundred times; its stack goes on through the frame of the signal.
 *
 * truth: summary: allocations=100 allocated_bytes=7700 frees=0 live_at_exit_bytes=7700 live_at_exit_blocks=100
 * truth: in truth_handler: allocations=100 allocated_bytes=7700
 * truth: in truth_raise: allocations=100 allocated_bytes=7700
 */
#include <signal.h>
#include <stdlib.h>

#include "keep.h"

NOINLINE static void truth_handler(int number) {
    (void)number;
    keep(malloc(77));
}

NOINLINE static void truth_raise(void) {
    for (int i = 0; i < 100; i++) raise(SIGUSR1);
}

int main(void) {
    struct sigaction action = {.sa_handler = truth_handler};
    if (sigaction(SIGUSR1, &action, NULL)) return 1;
    truth_raise();
    return 0;
}
