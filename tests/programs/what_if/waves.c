/* Waves of blocks whose sizes differ, each wave freed but for every hundredth block: the heap grows and is trimmed.
 *
 * With the argument `steady`, one size of each class is used again and again instead.
 */
#include <stdlib.h>
#include <string.h>

#include "../keep.h"

int main(int count, char **arguments) {
    static void *blocks[4000];
    int is_steady = count > 1 && !strcmp(arguments[1], "steady");
    unsigned seed = 7;
    for (int wave = 0; wave < 12; wave++) {
        for (int i = 0; i < 4000; i++) {
            seed = seed * 1103515245 + 12345;
            size_t size = is_steady ? 16u << (seed >> 28 & 7) : 16 + (seed >> 16) % (400u << (wave % 4));
            blocks[i] = keep(malloc(seed >> 24 == 0 ? size * 64 : size));
        }
        for (int i = 0; i < 4000; i++)
            if (i % 100 != wave) free(blocks[i]);
    }
    return 0;
}
