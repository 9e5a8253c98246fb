/* 20 blocks of 3,000 bytes made by make() and freed by drop_all(), one of 500,000 bytes with a mapping of its own that main
 * frees, and 7 small ones that main frees into its thread's cache.
 */
#include <stdlib.h>

#include "keep.h"

NOINLINE static void *make(size_t bytes) { return keep(malloc(bytes)); }

NOINLINE static void drop_all(void **blocks, int count) {
    for (int i = 0; i < count; i++) free(blocks[i]);
}

int main(void) {
    static void *blocks[20], *small[7];
    void *mapped = make(500000);
    for (int i = 0; i < 7; i++) small[i] = keep(malloc(24));
    for (int i = 0; i < 20; i++) blocks[i] = make(3000);
    drop_all(blocks, 20);
    free(mapped);
    for (int i = 0; i < 7; i++) free(small[i]);
    return 0;
}
