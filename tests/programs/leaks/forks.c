/* Processes that come of one another; the classes are those of all of them together.
 *
 *   case           keep         lose         what is special
 *   child_leaks    freed        definite     a child makes it
 *   grandchild     freed        definite     a child's child makes it
 *   parent_leaks   inherited+reachable definite+inherited the parent had it before it forked
 *   child_frees    freed        inherited    the parent frees it, and the child; lost: the child does not
 *   child_thread   reachable    definite     a child makes it in a thread of its own, which waits
 *   spawned        reachable    definite     the parent runs another program meanwhile
 *   from_thread    reachable    definite     a second thread forks, and the child keeps it in that thread's frame
 */
#include "twins.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

static void in_child(int depth, void (*work)(void)) {
    pid_t child = fork();
    if (child) {
        waitpid(child, 0, 0);
        return;
    }
    if (depth > 1) in_child(depth - 1, work);
    else work();
    wipe();
    exit(0);
}

static void make(void) {
    void *made = block();
    if (keeps) free(made);
}
static void child_leaks(void) { in_child(1, make); }
static void grandchild(void) { in_child(2, make); }

/* Of a child that asks for nothing there is nothing to see. */
static void nothing(void) { free(block()); }
static void parent_leaks(void) {
    put(&slot);
    in_child(1, nothing);
}

static void free_slot(void) {
    nothing();
    if (keeps) free(slot);
}
static void child_frees(void) {
    slot = block();
    in_child(1, free_slot);
    free(slot);
}

static pthread_barrier_t barrier;
static void *waiting(void *argument) {
    void *volatile local = argument;
    put((void *)&local);
    wipe();
    pthread_barrier_wait(&barrier);
    for (;;) pause();
    return local;
}
static void with_thread(void) {
    pthread_t thread;
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&thread, 0, waiting, 0);
    pthread_barrier_wait(&barrier);
}
static void child_thread(void) { in_child(1, with_thread); }

static void spawned(void) {
    char *const words[] = {(char *)"true", 0};
    pid_t child;
    put(&slot);
    if (posix_spawn(&child, "/bin/true", 0, 0, words, environ)) abort();
    waitpid(child, 0, 0);
}

static void *forking(void *argument) {
    void *volatile local = argument;
    pid_t child = fork();
    if (!child) {
        put((void *)&local);
        wipe();
        exit(0);
    }
    waitpid(child, 0, 0);
    return 0;
}
static void from_thread(void) {
    pthread_t thread;
    pthread_create(&thread, 0, forking, 0);
    pthread_join(thread, 0);
}

PROGRAMS({"child_leaks", child_leaks}, {"grandchild", grandchild}, {"parent_leaks", parent_leaks},
         {"child_frees", child_frees}, {"child_thread", child_thread}, {"spawned", spawned},
         {"from_thread", from_thread})
