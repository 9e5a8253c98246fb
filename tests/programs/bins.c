/* Puts chunks into every kind of bin, and has them sorted, merged, split and moved to the thread's cache. */
#include <stdlib.h>

int main(void) {
    void *blocks[32];
    for (int of = 0; of < 3; of++) {
        size_t size = (size_t[]){40, 200, 1500}[of];
        for (int i = 0; i < 20; i++)
            blocks[i] = malloc(size);
        for (int i = 0; i < 20; i += 2)
            free(blocks[i]);
        free(malloc(3000 + of));
        for (int i = 0; i < 9; i++)
            blocks[20 + i] = malloc(size);
        blocks[1] = realloc(blocks[1], 4000);
        for (int i = 1; i < 20; i += 2)
            free(blocks[i]);
        free(malloc(70000));
        for (int i = 0; i < 8; i++)
            free(blocks[20 + i]);
    }
    return 0;
}
