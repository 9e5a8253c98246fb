// Fills a ring many times over: one thread, no pause.
#include <stdlib.h>
int main(void) {
    static void *blocks[256];
    unsigned random = 1;
    for (long i = 0; i < 300000; i++) {
        random = random * 1103515245 + 12345;
        int at = random >> 16 & 255;
        free(blocks[at]);
        blocks[at] = malloc((random >> 8) % 900);
    }
    return 0;
}
