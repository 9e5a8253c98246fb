/* malloc and free in a loop: about 20 levels of calls, random sizes, 4 million allocations shared among the threads.
 *
 * Arguments: number of threads, allocations of all threads (4,000,000), rounds of arithmetic at each step (0). Each
 * thread keeps a window of 1,000 blocks and replaces a random one at each step.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { WINDOW = 1000, DEPTH = 18 };

static long threads = 1, allocations = 4000000, rounds = 0;

__attribute__((noinline)) static void *deep(int levels, size_t size_bytes) {
    void *block = levels ? deep(levels - 1, size_bytes) : malloc(size_bytes);
    __asm__ volatile("" : "+r"(block));
    return block;
}

static void *run(void *self) {
    static __thread void *window[WINDOW];
    uint64_t state = (uint64_t)(uintptr_t)self + 1, sum = 0;
    for (long i = 0; i < allocations / threads; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        void **place = &window[(state >> 33) % WINDOW];
        free(*place);
        *place = deep(DEPTH, 16 + (state >> 43) % 1000);
        sum += (uintptr_t)*place & 15;
        for (long round = 0; round < rounds; round++) sum = sum * 2862933555777941757u + 3037000493u;
    }
    for (int i = 0; i < WINDOW; i++) free(window[i]);
    return (void *)(uintptr_t)sum;
}

int main(int argc, char **argv) {
    pthread_t others[64];
    if (argc > 1) threads = atol(argv[1]);
    if (argc > 2) allocations = atol(argv[2]);
    if (argc > 3) rounds = atol(argv[3]);
    if (threads < 1 || threads > 64) return 1;
    for (int i = 1; i < threads; i++)
        if (pthread_create(&others[i], NULL, run, (void *)(uintptr_t)i)) return 2;
    run(NULL);
    for (int i = 1; i < threads; i++) pthread_join(others[i], NULL);
    return 0;
}
