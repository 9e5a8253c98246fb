/* A thread waits for every signal there is and says which ones come, as servers do. None comes, so it says nothing.
 *
 * It keeps a block of 2,222 bytes on its stack; one of 3,333 bytes is lost.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keep.h"
#include "lose.h"

static int of_thread[2];

static void *wait_for_all(void *unused) {
    void *volatile kept = made(2222);
    char path[64];
    /* Where the thread can be seen to wait. */
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", (int)gettid());
    if (write(of_thread[1], path, sizeof path) != sizeof path) return unused;
    sigset_t all;
    sigfillset(&all);
    for (int signal; sigwait(&all, &signal) == 0;) {
        printf("signal %d\n", signal);
        fflush(stdout);
    }
    return kept;
}

int main(void) {
    char path[64], call[64] = "";
    pthread_t thread;
    sigset_t all, before;
    if (pipe(of_thread)) return 1;
    lose(3333);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    if (pthread_create(&thread, NULL, wait_for_all, NULL)) return 1;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (read(of_thread[0], path, sizeof path) != sizeof path) return 1;
    /* rt_sigtimedwait is number 128. */
    while (strncmp(call, "128 ", 4)) {
        FILE *file = fopen(path, "r");
        if (!file || !fgets(call, sizeof call, file)) return 1;
        fclose(file);
    }
    return 0;
}
