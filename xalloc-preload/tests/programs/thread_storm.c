// Threads whose first calls are interrupted again and again by handlers that allocate. Says how many blocks were bad.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCHES = 24, THREADS = 12 };
static atomic_int ready, go, bad;
static _Thread_local int depth;

static void use(size_t bytes) {
    unsigned char *block = malloc(bytes);
    if (!block) { bad++; return; }
    memset(block, (int)bytes, bytes);
    for (size_t i = 0; i < bytes; i++) if (block[i] != (unsigned char)bytes) { bad++; break; }
    free(block);
}
// Not deferred while it runs: the first call of a thread may itself be a handler's, and that is to be interrupted too.
static void handler(int signal) {
    (void)signal;
    if (depth > 3) return;
    depth++;
    use(40 + 16 * depth);
    depth--;
}
static void *work(void *argument) {
    use(100);
    ready++;
    while (!go) ;
    use(200);
    return argument;
}
int main(void) {
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_NODEFER };
    sigaction(SIGUSR1, &action, NULL);
    for (int batch = 0; batch < BATCHES; batch++) {
        pthread_t threads[THREADS];
        go = 0;
        for (int i = 0; i < THREADS; i++) {
            ready = 0;
            pthread_create(&threads[i], NULL, work, NULL);
            // So many at most, for each that comes before another has returned takes its share of the stack.
            for (int sent = 0; !ready && sent < 400; sent++) pthread_kill(threads[i], SIGUSR1);
            while (!ready) ;
        }
        go = 1;
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    }
    printf("%d bad\n", bad);
    return 42;
}
