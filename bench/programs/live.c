/* Leaves a million blocks that a table in static memory points to: what a look for leaks has to walk. */
#include <stdlib.h>

enum { BLOCKS = 1000000 };
static void *blocks[BLOCKS];

int main(void) {
    for (int i = 0; i < BLOCKS; i++) blocks[i] = malloc(24);
    return blocks[BLOCKS - 1] == NULL;
}
