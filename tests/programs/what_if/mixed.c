/* Records that stay lie between buffers that go.
 *
 * With the argument `fixed` the records come from the pool of `pool.h`.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../keep.h"
#include "pool.h"

static int is_fixed;

NOINLINE static void *what_if_record(size_t size) {
    return keep(is_fixed ? from_pool(size) : malloc(size));
}

static void drop(void *record, size_t size) {
    if (is_fixed) to_pool(record, size);
    else free(record);
}

static size_t size_of(int i) { return 24 + i * 7 % 200; }

int main(int count, char **arguments) {
    static void *records[30000], *buffers[300];
    is_fixed = count > 1 && !strcmp(arguments[1], "fixed");
    /* The heap begins before the pool does: what is mapped before is taken for the loader's. */
    keep(malloc(1));
    for (int i = 0; i < 30000; i++) {
        records[i] = what_if_record(size_of(i));
        free(buffers[i % 300]);
        buffers[i % 300] = keep(malloc(500 + i % 7 * 900));
        if (i % 3 == 0) {
            drop(records[i / 2], size_of(i / 2));
            records[i / 2] = what_if_record(size_of(i / 2));
        }
    }
    for (int i = 0; i < 300; i++) free(buffers[i]);
    for (int i = 0; i < 30000; i += 2) drop(records[i], size_of(i));
    return 0;
}
