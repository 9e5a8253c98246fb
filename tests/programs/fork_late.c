// A server that forks two workers, of which the first makes its first call when the second is there already.
//
// The truth:
// - At the first fork the parent holds one block of 40,000 bytes, at the second two of 25,000 bytes and none of 40,000.
// - The first worker makes one block of 1,000 bytes, and ends with it and the block of 40,000 bytes.
// - The second ends with one of 1,000 bytes and both of 25,000.
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *volatile before[2];
static char *volatile own;

static int work(int gate)
{
    char byte;
    if (gate >= 0 && read(gate, &byte, 1) != 0)
        return 1;
    memset(own = malloc(1000), 1, 1000);
    return 0;
}

int main(void)
{
    int gate[2];
    if (pipe(gate) != 0)
        return 1;
    before[0] = malloc(40000);
    pid_t first = fork();
    if (first == 0) {
        close(gate[1]);
        return work(gate[0]);
    }
    free(before[0]);
    before[0] = malloc(25000);
    before[1] = malloc(25000);
    pid_t second = fork();
    if (second == 0)
        return work(-1);
    int status[2] = {0, 0};
    int failed = waitpid(second, &status[1], 0) != second;
    close(gate[1]);
    failed |= waitpid(first, &status[0], 0) != first;
    return failed || status[0] != 0 || status[1] != 0;
}
