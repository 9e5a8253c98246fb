// A process that forks with blocks on its heap; the child frees some of them, makes its own, and ends first.
//
// The truth:
// - The parent makes 64 blocks of 8,000 bytes in `before_fork`, and nothing after; it frees none.
// - The child frees the 32 with even numbers and makes 3 of 200 bytes in `in_child` and one of 300,000 bytes, which has
//   a mapping of its own. It holds 32 * 8,000 + 3 * 200 + 300,000 bytes when it ends, in 36 blocks.
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *volatile blocks[64];
static char *volatile own[4];

__attribute__((noinline)) static void before_fork(void)
{
    for (int i = 0; i < 64; i++)
        memset(blocks[i] = malloc(8000), 1, 8000);
}

__attribute__((noinline)) static void in_child(void)
{
    for (int i = 0; i < 64; i += 2)
        free(blocks[i]);
    for (int i = 0; i < 3; i++)
        memset(own[i] = malloc(200), 1, 200);
    memset(own[3] = malloc(300000), 1, 300000);
}

int main(void)
{
    before_fork();
    pid_t child = fork();
    if (child == 0) {
        in_child();
        return 0;
    }
    int status = 0;
    return child < 0 || waitpid(child, &status, 0) != child || status != 0;
}
