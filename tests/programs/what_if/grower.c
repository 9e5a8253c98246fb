/* Arrays that are grown step by step, a few at a time, so that each move leaves a hole.
 *
 * With the argument `fixed` each begins with its last size.
 */
#include <stdlib.h>
#include <string.h>

#include "../keep.h"

static int is_fixed;

NOINLINE static void *what_if_grow(void *array, size_t size) {
    return is_fixed ? array : keep(realloc(array, size));
}

int main(int count, char **arguments) {
    static void *arrays[40];
    is_fixed = count > 1 && !strcmp(arguments[1], "fixed");
    for (int round = 0; round < 8; round++) {
        for (int i = 0; i < 40; i++) arrays[i] = keep(malloc(is_fixed ? 64 * 60 + i : 64));
        for (int step = 2; step <= 60; step++)
            for (int i = 0; i < 40; i++) arrays[i] = what_if_grow(arrays[i], 64 * step + (step == 60 ? i : 0));
        for (int i = 0; i < 40; i += 1 + round % 2) free(arrays[i]);
    }
    return 0;
}
