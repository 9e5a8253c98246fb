// A timer's handler asks for alignments that there are not, while the program allocates.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
static volatile long handled, wrong;
static void handle(int signal) {
    void *block = (void *)1;
    wrong += posix_memalign(&block, 24, 100) != EINVAL;
    wrong += posix_memalign(&block, 4, 100) != EINVAL;
    wrong += posix_memalign(&block, 0, 100) != EINVAL;
    wrong += block != (void *)1;
    wrong += posix_memalign(&block, 64, 100) != 0 || (unsigned long)block % 64 != 0;
    free(block);
    handled++;
}
int main(void) {
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 500}, {0, 500}};
    setitimer(ITIMER_REAL, &timer, NULL);
    for (long i = 0; i < 100000000 && handled < 100; i++)
        free(malloc(i % 900));
    timer.it_value.tv_usec = timer.it_interval.tv_usec = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    puts(handled >= 100 && wrong == 0 ? "done" : "wrong");
    return 0;
}
