/* Puts a copy of itself in its own place, as a build or an upgrade does, and allocates afterwards. Its argument is the
 * path of its file. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((noinline)) void *allocated_after(size_t bytes) {
    char *block = malloc(bytes);
    block[0] = 1;
    return block;
}

int main(int count, char **arguments) {
    static char copy[4096], bytes[65536];
    if (count != 2) return 2;
    snprintf(copy, sizeof copy, "%s.copy", arguments[1]);
    int from = open(arguments[1], O_RDONLY), to = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    for (ssize_t got; (got = read(from, bytes, sizeof bytes)) > 0;)
        if (write(to, bytes, got) != got) return 3;
    close(to);
    if (rename(copy, arguments[1])) return 4;
    free(allocated_after(4242));
    return 7;
}
