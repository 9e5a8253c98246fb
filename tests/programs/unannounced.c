/* A child that no fork handler announces: `_Fork` runs none. It allocates, and frees what it inherited.
 *
 * truth: in truth_before: allocations=3 allocated_bytes=3000
 * truth: in truth_child: allocations=5 allocated_bytes=1000 live_at_exit_bytes=800
 * truth: in truth_after: allocations=2 allocated_bytes=100
 * truth: summary: processes=2 allocations=10 frees=1 dropped_events=0 unknown_frees=1
 */
#define _GNU_SOURCE
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
    free(inherited);
}

NOINLINE static void truth_after(void) {
    for (int i = 0; i < 2; i++) keep(malloc(50));
}

int main(void) {
    void *blocks[3];
    int status = 1;
    truth_before(blocks);
    pid_t child = _Fork();
    if (child == 0) {
        truth_child(blocks[0]);
        _exit(7);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) return 1;
    truth_after();
    return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 0 : 2;
}
