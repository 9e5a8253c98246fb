/* What the programs share whose leaks are known: the block that each is about, ways to keep it and to lose it, and `main`.
 *
 * Arguments: a case and `keep` or `lose`. The block of 7,777 bytes is what the case is about; `lose` drops the only
 * pointer to it, if the case does not say otherwise. A file states its truth in its header, a line a case:
 *
 *   case           keep         lose         what is special
 *
 * A class is what a scan says of the block: `freed`: it does not live to see one; `unchecked`: no scan can be; two with a
 * + between them: two processes have it. Behind a ~ stands what a look at memory says by design where that cannot know
 * the truth before it. No such case: -
 */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lose.h"

#define SIZE 7777

static int keeps;
static char **arguments;
/* Where most cases put the pointer. */
static __attribute__((unused)) void *slot;

static AWAY void *block(void) { return made(SIZE); }

/* Puts a new block where `place` is, or loses it. */
static AWAY void put(void *place) {
    void *made = block();
    *(void *volatile *)place = keeps ? made : 0;
}

/* Keeps a new block by its complement alone, which is no pointer to it, or loses it. */
static AWAY uintptr_t put_complement(void) { return keeps ? ~(uintptr_t)block() : (block(), ~(uintptr_t)0); }

struct program {
    const char *name;
    void (*run)(void);
};

/* Runs the case that the arguments name. */
static AWAY int run_named(const struct program *programs, int count, int argc, char **argv) {
    arguments = argv;
    keeps = argc > 2 && !strcmp(argv[2], "keep");
    for (int nth = 0; nth < count && argc > 1; nth++)
        if (!strcmp(argv[1], programs[nth].name)) {
            programs[nth].run();
            wipe();
            return 0;
        }
    return 2;
}

#define PROGRAMS(...)                                                                                                  \
    int main(int argc, char **argv) {                                                                                  \
        static const struct program programs[] = {__VA_ARGS__};                                                        \
        int status = run_named(programs, sizeof programs / sizeof *programs, argc, argv);                              \
        wipe();                                                                                                        \
        return status;                                                                                                 \
    }
