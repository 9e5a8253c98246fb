/* A small block that is made behind each large one keeps the large ones' memory from going back.
 *
 * With the argument `fixed` the small ones are not made.
 */
#include <stdlib.h>
#include <string.h>

#include "../keep.h"

static int is_fixed;

NOINLINE static void what_if_pin(void) {
    if (!is_fixed) keep(malloc(72));
}

int main(int count, char **arguments) {
    void *blocks[200];
    is_fixed = count > 1 && !strcmp(arguments[1], "fixed");
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 200; i++) {
            blocks[i] = keep(malloc(20000 + round * 3000 + i));
            what_if_pin();
        }
        for (int i = 0; i < 200; i++) free(blocks[i]);
    }
    return 0;
}
