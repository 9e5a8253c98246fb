/* A child that allocates, frees its own and frees what it inherited.
 *
 * truth: parent process: allocations=5 allocated_bytes=3100 frees=2 live_at_exit_bytes=3000 live_at_exit_blocks=3
 * truth: parent process: peak_live_bytes=3100 inherited_blocks=0
 * truth: child process: allocations=5 allocated_bytes=1000 frees=2 live_at_exit_bytes=600 live_at_exit_blocks=3
 * truth: child process: inherited_blocks=3 inherited_bytes=3000 peak_live_bytes=1000
 * truth: in truth_before: allocations=3 allocated_bytes=3000
 * truth: in truth_child: allocations=5 allocated_bytes=1000
 * truth: in truth_after: allocations=2 allocated_bytes=100 temporary_allocations=1
 * truth: summary: processes=2 dropped_events=0 unknown_frees=0
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keep.h"

NOINLINE static void truth_before(void **blocks) {
    for (int i = 0; i < 3; i++) blocks[i] = keep(malloc(1000));
}

NOINLINE static void truth_child(void *inherited) {
    void *blocks[5];
    for (int i = 0; i < 5; i++) blocks[i] = keep(malloc(200));
    free(blocks[0]);
    free(blocks[1]);
    free(inherited);
}

NOINLINE static void truth_after(void) {
    void *first = keep(malloc(50)), *second = keep(malloc(50));
    free(first);
    free(second);
}

int main(void) {
    void *blocks[3];
    int status = 1;
    truth_before(blocks);
    pid_t child = fork();
    if (child == 0) {
        truth_child(blocks[0]);
        _exit(7);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return 1;
    truth_after();
    return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 0 : 2;
}
