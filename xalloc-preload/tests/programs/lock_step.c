/* Four threads that take turns, so that each run asks for the same in the same order: blocks of all sizes, of which some
 * are given back by the thread after the one that made them, and in the end by the main thread, which then goes on by itself.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 3000, WINDOW = 400 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static int ended[THREADS];
/* Threads that may end: what the end of one gives back falls into nobody's turn. */
static int released;
static void *blocks[WINDOW];

static uint64_t next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void work(uint64_t *state) {
    for (int i = 0; i < 20; i++) {
        void **place = &blocks[next(state) % WINDOW];
        uint64_t dice = next(state) % 1000;
        size_t bytes = dice < 700 ? 1 + next(state) % 200 : dice < 980 ? 1 + next(state) % 4000 : 1 + next(state) % 200000;
        if (*place && dice % 4 == 0) {
            *place = realloc(*place, bytes);
            if (!*place) abort();
        } else {
            free(*place);
            *place = dice % 7 == 0 ? calloc(1, bytes) : dice % 11 == 0 ? memalign(256, bytes) : malloc(bytes);
            if (!*place) abort();
        }
        memset(*place, 1, bytes);
    }
}

static void pass_on(int me) {
    do turn = (turn + 1) % THREADS;
    while (ended[turn] && turn != me);
    pthread_cond_broadcast(&changed);
}

static void *serve(void *argument) {
    int me = (int)(intptr_t)argument % THREADS, rounds = (int)(intptr_t)argument / THREADS;
    uint64_t state = (uint64_t)(intptr_t)argument + 1;
    for (int round = 0; round < rounds; round++) {
        pthread_mutex_lock(&lock);
        while (turn != me) pthread_cond_wait(&changed, &lock);
        work(&state);
        if (round + 1 == rounds) ended[me] = 1;
        pass_on(me);
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&lock);
    while (released <= me) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *start(int me, int rounds) { return (void *)(intptr_t)(me + rounds * THREADS); }

int main(void) {
    pthread_t threads[THREADS];
    /* All are made before the first works: nobody asks for anything meanwhile. */
    pthread_mutex_lock(&lock);
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, serve, start(i, ROUNDS / (1 + i % 2)))) abort();
    }
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < THREADS; i++) {
        pthread_mutex_lock(&lock);
        /* Not before all have done their work. */
        while (!(ended[0] && ended[1] && ended[2] && ended[3])) pthread_cond_wait(&changed, &lock);
        released = i + 1;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        pthread_join(threads[i], NULL);
    }
    uint64_t state = THREADS;
    for (int round = 0; round < ROUNDS; round++) work(&state);
    for (int i = 0; i < WINDOW; i++) free(blocks[i]);
    return 0;
}
