/* Four threads share one arena (arena_max=1) and meet at its lock all the time, with blocks that no thread's cache takes.
 *
 * Each makes blocks of 1,200 to 9,000 bytes, resizes some and gives every other block to the thread after it, which
 * frees it. They have their caches before the first of them begins, and go when the last is done: to get a cache is a
 * step of its own, between which and the first block others may be served.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 6000, KEPT = 64 };
static _Atomic(void *) handed[THREADS];
static pthread_barrier_t begin, end;
static atomic_int ready;

static void *work(void *argument) {
    unsigned me = (unsigned)(size_t)argument, seed = 1 + me;
    void *kept[KEPT] = {0};
    free(malloc(24));
    ready++;
    pthread_barrier_wait(&begin);
    for (int round = 0; round < ROUNDS; round++) {
        seed = seed * 1103515245 + 12345;
        size_t bytes = 1200 + (seed >> 8) % 7800;
        void **place = &kept[(seed >> 4) % KEPT];
        if (round % 3 == 0 && *place) {
            *place = realloc(*place, bytes);
            continue;
        }
        void *old = *place;
        *place = malloc(bytes);
        memset(*place, 1, 16);
        free(round % 2 ? atomic_exchange(&handed[(me + 1) % THREADS], old) : old);
        if (round % 16 == 0) free(atomic_exchange(&handed[me], NULL));
    }
    for (int i = 0; i < KEPT; i++) free(kept[i]);
    pthread_barrier_wait(&end);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    pthread_barrier_init(&begin, NULL, THREADS);
    pthread_barrier_init(&end, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, work, (void *)(size_t)i);
        while (ready <= i) sched_yield();
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 0;
}
