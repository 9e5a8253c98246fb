/* A library that is opened and closed again and again; built twice with different frames, so that the same address
 * means different things. */
#include <stdlib.h>
#include <string.h>

#ifdef WIDE
#define PAD 512
#else
#define PAD 16
#endif

__attribute__((noinline)) static void *deepest(int n) {
    char pad[PAD];
    memset(pad, n, sizeof pad);
    void *block = malloc(16 + (unsigned char)pad[n % PAD]);
    __asm__ volatile("" ::"r"(pad) : "memory");
    return block;
}

__attribute__((noinline)) static void recurse(int n) {
    if (n == 0)
        return;
    free(deepest(n));
    recurse(n - 1);
    free(deepest(n));
}

void plugin_run(int n) {
    recurse(n);
    free(malloc(10));
}
