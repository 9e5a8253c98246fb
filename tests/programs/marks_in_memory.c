/* Sets a mark when most is resident and another when all of it has gone back, with nothing between to wait for.
 *
 * At `full` 1,000 blocks of 3,000 bytes lie in the break, all of them written to, and a block of 8 MiB has a mapping of
 * its own of which the first half is; at `empty` every block has been freed.
 *
 * With the argument `hidden` nobody but root may look at the process. With a second one it
 * waits for half a second instead of setting the first mark, and sends its recorder SIGUSR1 before if that is `signal`.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "../../xalloc-preload/include/xalloc.h"

enum { BLOCKS = 1000 };
static char *small[BLOCKS], *large;

static void sleep_for(long ns) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ns;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) {}
}

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "hidden")) prctl(PR_SET_DUMPABLE, 0);
    large = malloc(8 << 20);
    memset(large, 1, 4 << 20);
    for (int i = 0; i < BLOCKS; i++) small[i] = memset(malloc(3000), 1, 3000);
    if (count > 2) {
        if (!strcmp(arguments[2], "signal")) kill(getppid(), SIGUSR1);
        sleep_for(500000000);
    } else {
        xalloc_marker("full");
    }
    for (int i = 0; i < BLOCKS; i++) free(small[i]);
    free(large);
    xalloc_marker("empty");
    return 0;
}
