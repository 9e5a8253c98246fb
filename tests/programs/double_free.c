/* Frees a block that it has freed before, as malloc notices at once: it ends by SIGABRT.
 *
 * truth: summary: double_frees=1 unknown_frees=0 allocations=2 frees=2
 */
#include <stdlib.h>

#include "keep.h"

NOINLINE static void truth_first(void *block) { free(block); }

NOINLINE static void truth_second(void *block) { free(block); }

int main(void) {
    void *volatile block = keep(malloc(100));
    void *volatile other = keep(malloc(2000));
    truth_first(block);
    truth_first(other);
    truth_second(block);
    return 0;
}
