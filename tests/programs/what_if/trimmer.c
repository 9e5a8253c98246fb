/* Three phases, each of which leaves free memory below what it keeps and then sleeps; each begins half a second after a
 * whole second of the program's life.
 *
 * With the argument `fixed` it calls malloc_trim(0) in each sleep, at the whole second.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../keep.h"

static struct timespec began;

static void sleep_until(long halves) {
    struct timespec until = {began.tv_sec + halves / 2, began.tv_nsec + halves % 2 * 500000000};
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)) {}
}

int main(int count, char **arguments) {
    int is_fixed = count > 1 && !strcmp(arguments[1], "fixed");
    static char *blocks[300];
    /* The heap keeps what is freed, as one whose threshold has moved does. */
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int phase = 0; phase < 3; phase++) {
        for (int i = 0; i < 300; i++) blocks[i] = keep(malloc(5000 + 1000 * phase));
        for (int i = 20; i < 300; i++) free(blocks[i]);
        keep(malloc(1 << 20));
        sleep_until(2 * phase + 2);
        if (is_fixed) malloc_trim(0);
        sleep_until(2 * phase + 3);
    }
    return 0;
}
