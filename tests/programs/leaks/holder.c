/* A library with places for a pointer, for libraries.c. */
#include <stdlib.h>
#include <string.h>

static void *variable, *freed;
static __thread void *own[512];

static __attribute__((noinline)) void *make(void) {
    void *made = malloc(7777);
    memset(made, 0, 7777);
    return made;
}

struct holder {
    void **variable, **own, *(*make)(void), **freed;
};

struct holder holder(void) { return (struct holder){&variable, &own[100], make, &freed}; }

__attribute__((destructor)) static void leave(void) { free(freed); }
