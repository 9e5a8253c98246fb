/* Eight threads; each frees half of its own blocks and half of its neighbour's.
 *
 * Every thread makes 1,000 blocks of 64 bytes and 3 of 100 that stay. Then all wait for each other, and each frees the
 * even blocks of its own and the odd ones of the next thread.
 *
 * truth: in truth_worker: allocations=8024 allocated_bytes=514400 temporary_allocations=0
 * truth: in truth_worker: live_at_exit_bytes=2400 live_at_exit_blocks=24
 * truth: 8 threads: allocations=1003 allocated_bytes=64300 frees=1000 foreign_frees=500 temporary_allocations=0
 * truth: 8 threads: live_at_exit_bytes=300
 * truth: summary: dropped_events=0 unknown_frees=0 implied_frees=0 processes=1
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "keep.h"

enum { THREADS = 8, BLOCKS = 1000 };

static void *blocks[THREADS][BLOCKS];
static pthread_barrier_t all_made;

NOINLINE static void truth_worker(size_t self) {
    for (int i = 0; i < BLOCKS; i++) blocks[self][i] = keep(malloc(64));
    for (int i = 0; i < 3; i++) keep(malloc(100));
    pthread_barrier_wait(&all_made);
    for (int i = 0; i < BLOCKS; i++) free(blocks[i % 2 == 0 ? self : (self + 1) % THREADS][i]);
}

static void *run(void *self) {
    truth_worker((size_t)(uintptr_t)self);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    pthread_attr_t small_stack;
    pthread_attr_init(&small_stack);
    pthread_attr_setstacksize(&small_stack, 256 * 1024);
    pthread_barrier_init(&all_made, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], &small_stack, run, (void *)(uintptr_t)i)) return 1;
    for (size_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 0;
}
