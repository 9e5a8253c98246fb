/* Every kind of request that moves the heap, so that serving the recorded ones again shows whether one was forgotten.
 *
 * Alignments, mallopt and malloc_trim, the program's own sbrk, and two threads one after the other: without any one of
 * these, the blocks behind it lie elsewhere.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../keep.h"

static void *thread(void *count) {
    void *blocks[64] = {0};
    for (uintptr_t i = 0; i < (uintptr_t)count; i++) {
        free(blocks[i % 64]);
        blocks[i % 64] = keep(malloc(16 + i * 37 % 3000));
    }
    return NULL;
}

static void churn(unsigned seed) {
    void *blocks[256] = {0};
    for (int i = 0; i < 4000; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned at = seed >> 8 & 255, size = seed >> 16 & 4095;
        switch (seed >> 28) {
        case 0: free(blocks[at]); blocks[at] = keep(calloc(3, size)); break;
        case 1: free(blocks[at]); blocks[at] = keep(memalign(64 << (size & 7), size)); break;
        case 2: free(blocks[at]); blocks[at] = keep(aligned_alloc(4096, size * 4)); break;
        case 3: free(blocks[at]); blocks[at] = NULL; if (posix_memalign(&blocks[at], 128, size)) abort(); break;
        case 4: free(blocks[at]); blocks[at] = keep(valloc(size)); break;
        case 5: free(blocks[at]); blocks[at] = keep(pvalloc(size)); break;
        case 6: free(blocks[at]); blocks[at] = keep(malloc(size * 100)); break;
        case 7: case 8: case 9: blocks[at] = keep(realloc(blocks[at], 1 + size * 2)); break;
        case 10: blocks[at] = keep(reallocarray(blocks[at], 7, 1 + size)); break;
        default: free(blocks[at]); blocks[at] = keep(malloc(size)); break;
        }
    }
    for (int at = 0; at < 256; at += 2) free(blocks[at]);
}

int main(void) {
    churn(1);
    mallopt(M_MXFAST, 64);
    mallopt(M_TRIM_THRESHOLD, 16 * 1024);
    churn(2);
    if (sbrk(12288) == (void *)-1) return 1;
    churn(3);
    malloc_trim(0);
    churn(4);
    mallopt(M_TOP_PAD, 64 * 1024);
    for (uintptr_t i = 0; i < 2; i++) {
        pthread_t other;
        if (pthread_create(&other, NULL, thread, (void *)(3000 + i))) return 1;
        pthread_join(other, NULL);
        churn(5 + i);
    }
    return 0;
}
