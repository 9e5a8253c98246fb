/*
 * Leaks a block, and says by LSan's interface whether that is to be looked for: with the argument "off", no.
 */
#include <stdlib.h>
#include <string.h>

static int is_off;

int __lsan_is_turned_off(void)
{
    return is_off;
}

int main(int argc, char **argv)
{
    is_off = argc > 1 && strcmp(argv[1], "off") == 0;
    char *volatile lost = malloc(7777);
    lost = NULL;
    return lost != NULL;
}
