/* What programs ask of malloc, one pattern at a time, to compare allocators with each other.
 *
 * Arguments: the pattern and the number of operations. An operation is one malloc and, sooner or later, one free.
 *   lifo      sixteen blocks, freed youngest first
 *   fifo      a queue of 1,000 blocks
 *   random    a window of 1,000 blocks of 16 to 1,015 bytes, of which a random one is replaced
 *   large     the same with 64 blocks of 1 to 64 KiB
 *   grow      a buffer that realloc grows by half from 16 bytes to 64 KiB
 *   threads   `random` on two threads, each with a window of its own
 *   handover  one thread allocates, another one frees
 *   resident  100,000 blocks of 16 to 1,015 bytes, all written to, of which a random one is replaced
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 1000, LARGE_WINDOW = 64, QUEUE = 4096 };

static long operations;

static uint64_t next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* A block that a program writes to; the first word is enough to touch it. */
static void *block(size_t bytes) {
    uint64_t *made = malloc(bytes);
    if (!made) abort();
    *made = bytes;
    return made;
}

static void lifo(void) {
    void *blocks[16];
    for (long i = 0; i < operations / 16; i++) {
        for (int j = 0; j < 16; j++) blocks[j] = block(24 + j % 4 * 32);
        for (int j = 15; j >= 0; j--) free(blocks[j]);
    }
}

static void fifo(void) {
    void *blocks[WINDOW] = {0};
    for (long i = 0; i < operations; i++) {
        free(blocks[i % WINDOW]);
        blocks[i % WINDOW] = block(16 + i % 7 * 48);
    }
    for (int i = 0; i < WINDOW; i++) free(blocks[i]);
}

static void replace(long count, int window, size_t least, size_t span, uint64_t seed) {
    void *blocks[WINDOW] = {0};
    for (long i = 0; i < count; i++) {
        void **place = &blocks[next(&seed) % window];
        free(*place);
        *place = block(least + next(&seed) % span);
    }
    for (int i = 0; i < window; i++) free(blocks[i]);
}

static void resident(void) {
    enum { BLOCKS = 100000 };
    static void *blocks[BLOCKS];
    uint64_t seed = 1;
    for (long i = 0; i < operations; i++) {
        void **place = &blocks[i < BLOCKS ? i : (long)(next(&seed) % BLOCKS)];
        size_t bytes = 16 + next(&seed) % 1000;
        free(*place);
        *place = memset(block(bytes), 1, bytes);
    }
    for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
}

static void grow(void) {
    for (long i = 0; i < operations; i++) {
        size_t bytes = 16;
        char *buffer = block(bytes);
        for (; bytes < 65536 && i < operations; bytes += bytes / 2, i++) {
            buffer = realloc(buffer, bytes + bytes / 2);
            if (!buffer) abort();
            buffer[bytes] = 1;
        }
        free(buffer);
    }
}

static void *other(void *seed) {
    replace(operations / 2, WINDOW, 16, 1000, (uintptr_t)seed);
    return NULL;
}

static void threads(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, other, (void *)7)) abort();
    other((void *)1);
    pthread_join(thread, NULL);
}

static _Atomic(void *) queue[QUEUE];

static void *consume(void *unused) {
    for (long i = 0; i < operations; i++) {
        void *made;
        while (!(made = atomic_exchange_explicit(&queue[i % QUEUE], NULL, memory_order_acquire))) sched_yield();
        free(made);
    }
    return unused;
}

static void handover(void) {
    pthread_t thread;
    uint64_t seed = 1;
    if (pthread_create(&thread, NULL, consume, NULL)) abort();
    for (long i = 0; i < operations; i++) {
        while (atomic_load_explicit(&queue[i % QUEUE], memory_order_relaxed)) sched_yield();
        atomic_store_explicit(&queue[i % QUEUE], block(16 + next(&seed) % 240), memory_order_release);
    }
    pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    if (argc != 3) return 1;
    operations = atol(argv[2]);
    if (!strcmp(argv[1], "lifo")) lifo();
    else if (!strcmp(argv[1], "fifo")) fifo();
    else if (!strcmp(argv[1], "random")) replace(operations, WINDOW, 16, 1000, 1);
    else if (!strcmp(argv[1], "large")) replace(operations, LARGE_WINDOW, 1024, 64512, 1);
    else if (!strcmp(argv[1], "grow")) grow();
    else if (!strcmp(argv[1], "threads")) threads();
    else if (!strcmp(argv[1], "handover")) handover();
    else if (!strcmp(argv[1], "resident")) resident();
    else return 1;
    return 0;
}
