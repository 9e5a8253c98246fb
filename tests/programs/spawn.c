/* Children by posix_spawn, vfork and fork, each of which is replaced by this program again; at last it replaces itself.
 *
 * Started with any argument, it makes three blocks of 1,000 bytes and ends. That happens four times.
 *
 * truth: in truth_replaced: allocations=12 allocated_bytes=12000 live_at_exit_bytes=12000 live_at_exit_blocks=12
 * truth: in truth_first: allocations=2 allocated_bytes=200 live_at_exit_bytes=200
 * truth: summary: dropped_events=0
 */
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keep.h"

extern char **environ;

NOINLINE static void truth_replaced(void) {
    for (int i = 0; i < 3; i++) keep(malloc(1000));
}

NOINLINE static void truth_first(void) {
    for (int i = 0; i < 2; i++) keep(malloc(100));
}

static int ended_well(pid_t child) {
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int main(int argc, char **argv) {
    char *again[] = {argv[0], "again", NULL};
    pid_t child;
    if (argc > 1) {
        truth_replaced();
        return 0;
    }
    truth_first();
    if (posix_spawn(&child, argv[0], NULL, NULL, again, environ) != 0 || !ended_well(child)) return 1;
    child = vfork();
    if (child == 0) {
        execve(argv[0], again, environ);
        _exit(127);
    }
    if (!ended_well(child)) return 2;
    child = fork();
    if (child == 0) {
        execv("/nonexistent/program", again);
        execv(argv[0], again);
        _exit(127);
    }
    if (!ended_well(child)) return 3;
    execv(argv[0], again);
    return 4;
}
