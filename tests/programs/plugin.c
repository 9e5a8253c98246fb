/* A library to be loaded; built twice, with other names for its functions (CONSTRUCTOR, WORK, DESTRUCTOR). */
#include <stdlib.h>

#include "keep.h"

static void *of_the_constructor;

__attribute__((constructor)) NOINLINE static void CONSTRUCTOR(void) { of_the_constructor = keep(malloc(500)); }

__attribute__((destructor)) NOINLINE static void DESTRUCTOR(void) { free(of_the_constructor); }

NOINLINE void WORK(int blocks, int size_bytes);
void WORK(int blocks, int size_bytes) {
    for (int i = 0; i < blocks; i++) keep(malloc(size_bytes));
}
