// A timer's handler allocates while the program does: no libc allows that, the core's heap serves it.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
static volatile long handled;
static void *kept[64];
static void handle(int signal) {
    int at = handled++ % 64;
    free(kept[at]);
    kept[at] = malloc(50 + at);
    kept[at] = realloc(kept[at], 200);
    memset(kept[at], 1, 200);
}
int main(void) {
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &timer, NULL);
    static void *blocks[256];
    unsigned random = 1;
    for (long i = 0; i < 1000000; i++) {
        random = random * 1103515245 + 12345;
        int at = random >> 16 & 255;
        free(blocks[at]);
        blocks[at] = malloc((random >> 8) % 900);
    }
    timer.it_value.tv_usec = timer.it_interval.tv_usec = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    puts(handled > 10 ? "done" : "too few signals");
    return 0;
}
