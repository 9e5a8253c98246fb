// With -DLIBRARY a library whose resolver allocates while it is relocated, which is before the preload is; else a
// program that is linked with it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int use(void);
#ifdef LIBRARY
static char *early;
static int answer(void) { return early != NULL && strcmp(early, "early") == 0; }
static int (*resolve(void))(void) {
    early = malloc(100);
    char *zeroes = calloc(1, 50);
    free(realloc(zeroes, 200));
    early[0] = 'e', early[1] = 'a', early[2] = 'r', early[3] = 'l', early[4] = 'y', early[5] = 0;
    return answer;
}
__attribute__((visibility("hidden"))) int ask(void) __attribute__((ifunc("resolve")));
int use(void) {
    int is_right = ask();
    early = realloc(early, 5000);
    is_right &= strcmp(early, "early") == 0;
    free(early);
    return is_right;
}
#else
int main(void) {
    printf("%d\n", use());
    return 7;
}
#endif
