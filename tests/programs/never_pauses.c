/* Says its process id, loses 1,234 bytes, and then gives a block back and asks for another, over and over, until a signal
 * ends it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "keep.h"
#include "lose.h"

int main(void) {
    static void *blocks[100];
    printf("%d\n", (int)getpid());
    fflush(stdout);
    lose(1234);
    wipe();
    for (unsigned i = 0;; i++) {
        void **place = &blocks[i * 7919u % 100];
        free(*place);
        *place = keep(malloc(i % 2000));
    }
}
