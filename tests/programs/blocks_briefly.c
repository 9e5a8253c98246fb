/* Eight threads block all signals for a moment and let them in for a moment, on and on, as a thread does that makes others.
 *
 * The program ends while they are at it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "keep.h"

static int started;

static void compute(long for_ns) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    long end_ns = used.tv_sec * 1000000000 + used.tv_nsec + for_ns;
    while (used.tv_sec * 1000000000 + used.tv_nsec < end_ns) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
}

static void *block_and_let_in(void *unused) {
    sigset_t all, before;
    sigfillset(&all);
    for (;;) {
        pthread_sigmask(SIG_BLOCK, &all, &before);
        __atomic_add_fetch(&started, 1, __ATOMIC_RELEASE);
        compute(200000);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        compute(200000);
    }
    return unused;
}

int main(void) {
    pthread_t thread;
    keep(malloc(100));
    for (int nth = 0; nth < 8; nth++)
        if (pthread_create(&thread, NULL, block_and_let_in, NULL)) return 1;
    while (__atomic_load_n(&started, __ATOMIC_ACQUIRE) < 16) {}
    return 0;
}
