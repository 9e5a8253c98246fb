/* Forty thread keys, taken before main; beyond the first 32, setting a value makes the C library allocate.
 *
 * The main thread's values stay (its destructors never run), the other thread's are freed by the keys' destructors.
 *
 * truth: in truth_value: allocations=80 allocated_bytes=1920 live_at_exit_bytes=960 live_at_exit_blocks=40
 * truth: summary: dropped_events=0 unknown_frees=0
 */
#include <pthread.h>
#include <stdlib.h>

#include "keep.h"

enum { KEYS = 40 };

static pthread_key_t keys[KEYS];

NOINLINE static void *truth_value(void) { return keep(malloc(24)); }

static void set_all(void) {
    for (int i = 0; i < KEYS; i++) pthread_setspecific(keys[i], truth_value());
}

__attribute__((constructor)) static void before_main(void) {
    for (int i = 0; i < KEYS; i++) pthread_key_create(&keys[i], free);
    set_all();
}

static void *run(void *nothing) {
    set_all();
    return nothing;
}

int main(void) {
    pthread_t thread;
    return pthread_create(&thread, NULL, run, NULL) || pthread_join(thread, NULL);
}
