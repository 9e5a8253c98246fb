/* Loads a library that looks for its symbols in its own libraries first. It frees a block of the program's and allocates
 * one that the program frees; both loads must be served by one heap.
 *
 * truth: in truth_load: allocations=1 allocated_bytes=100
 * truth: in truth_deep: allocations=4 allocated_bytes=1400 live_at_exit_bytes=0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>

#include "keep.h"

#ifdef LIBRARY

NOINLINE static void *truth_deep(size_t size) { return keep(malloc(size)); }

static void *thread(void *argument) {
    free(argument);
    return truth_deep(500);
}

NOINLINE void *work(void *theirs) {
    pthread_t other;
    void *result = 0;
    free(theirs);
    if (pthread_create(&other, 0, thread, truth_deep(300))) return 0;
    free(truth_deep(100));
    pthread_join(other, &result);
    free(result);
    return truth_deep(500);
}

#else

NOINLINE static void *truth_load(void) { return keep(malloc(100)); }

int main(int argc, char **argv) {
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_DEEPBIND) : 0;
    if (!library) return 1;
    void *(*work)(void *) = (void *(*)(void *))dlsym(library, "work");
    void *block = work(truth_load());
    if (!block) return 2;
    free(block);
    return 0;
}

#endif
