/* A program that replaces itself four times under its process id; the last one forks a child that frees its inheritance.
 *
 * It starts without arguments, and passes on one that becomes shorter by a letter each time.
 *
 * truth: in truth_link: allocations=10 allocated_bytes=5000
 * truth: in truth_child: allocations=1 allocated_bytes=300
 * truth: child process: allocations=1 inherited_blocks=2 inherited_bytes=1000
 * truth: summary: processes=2 programs=6 dropped_events=0 unknown_frees=0
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keep.h"

NOINLINE static void truth_link(void **blocks) {
    for (int i = 0; i < 2; i++) blocks[i] = keep(malloc(500));
}

NOINLINE static void truth_child(void **inherited) {
    keep(malloc(300));
    for (int i = 0; i < 2; i++) free(inherited[i]);
}

int main(int argc, char **argv) {
    char *left = argc > 1 ? argv[1] : "four";
    char *again[] = {argv[0], left + 1, NULL};
    /* Time enough for a recorder to be done with the program before. */
    struct timespec pause = {.tv_nsec = 50000000};
    void *blocks[2];
    int status = 1;
    truth_link(blocks);
    nanosleep(&pause, NULL);
    if (*left != 0) {
        execv(argv[0], again);
        return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        truth_child(blocks);
        _exit(0);
    }
    return child < 0 || waitpid(child, &status, 0) != child || status != 0 ? 2 : 0;
}
