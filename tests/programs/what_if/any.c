/* A program that its first argument, a number, makes up: blocks of every size that come, grow and go at random, from three
 * sites.
 *
 * The second argument, if there is one, is the fix: `without`, `what_if_site` makes no blocks; `pool`, they come from
 * the pool of `pool.h`; `reserve`, what `what_if_grow` grows begins with its largest size.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../keep.h"
#include "pool.h"

enum { BLOCKS = 3000, ROUNDS = 36000 };

static uint64_t state;

static size_t below(size_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(state >> 33) % limit;
}

/* Most are small, some are not. */
static size_t any_size(void) {
    size_t limit = (size_t)64 << below(below(8) + 1);
    return 1 + below(below(400) == 0 ? 200000 : limit);
}

static int is_without, is_pool, is_reserve;

NOINLINE static void *what_if_site(size_t size) {
    if (is_without) return NULL;
    return keep(is_pool ? from_pool(size) : malloc(size));
}

NOINLINE static void *what_if_grow(void *block, size_t size) {
    return is_reserve && block ? block : keep(realloc(block, size));
}

NOINLINE static void *another_site(size_t size) {
    return keep(below(2) ? malloc(size) : calloc(1, size));
}

/* A block's story, made up before the first is made: its largest size has to be known. */
static struct block {
    enum { SITE, GROWN, OTHER } kind;
    size_t size, largest;
    void *at;
} blocks[BLOCKS];

static void make(struct block *block) {
    block->kind = below(3);
    block->size = any_size();
    block->largest = block->size + (block->kind == GROWN ? below(5) * block->size : 0);
    if (block->kind == SITE) block->at = what_if_site(block->size);
    else if (block->kind == OTHER) block->at = another_site(block->size);
    else block->at = what_if_grow(NULL, is_reserve ? block->largest : block->size);
}

static void drop(struct block *block) {
    /* Each grows to its largest size before it goes, so that the largest is known when it is made. */
    while (block->kind == GROWN && block->size < block->largest) {
        block->size += 1 + (block->largest - block->size) / 3;
        block->at = what_if_grow(block->at, block->size);
    }
    if (block->kind == SITE && is_pool) to_pool(block->at, block->size);
    else free(block->at);
    block->at = NULL;
}

int main(int count, char **arguments) {
    const char *fix = count > 2 ? arguments[2] : "";
    state = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    is_without = !strcmp(fix, "without");
    is_pool = !strcmp(fix, "pool");
    is_reserve = !strcmp(fix, "reserve");
    /* The heap begins before the pool does: what is mapped before is taken for the loader's. */
    keep(malloc(1));
    for (int round = 0, made = 0; round < ROUNDS; round++) {
        /* It swells and shrinks, so that there is something to trim. */
        int most = round / 6000 % 2 ? BLOCKS / 10 : BLOCKS;
        if (made < most && below(5) < 3) make(&blocks[made++]);
        else if (made > 0) {
            int at = (int)below((size_t)made);
            drop(&blocks[at]);
            blocks[at] = blocks[--made];
        }
    }
    return 0;
}
