/* Sets a mark when most is resident and another when all of it has gone back, with nothing between to wait for.
 *
 * At `full` 1,000 blocks of 3,000 bytes lie in the break, all of them written to, and a block of 8 MiB has a mapping of
 * its own of which the first half is; at `empty` every block has been freed.
 */
#include <stdlib.h>
#include <string.h>

#include "../../xalloc-preload/include/xalloc.h"

enum { BLOCKS = 1000 };
static char *small[BLOCKS], *large;

int main(void) {
    large = malloc(8 << 20);
    memset(large, 1, 4 << 20);
    for (int i = 0; i < BLOCKS; i++) small[i] = memset(malloc(3000), 1, 3000);
    xalloc_marker("full");
    for (int i = 0; i < BLOCKS; i++) free(small[i]);
    free(large);
    xalloc_marker("empty");
    return 0;
}
