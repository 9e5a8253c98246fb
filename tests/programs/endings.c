/* Every way out of a program, by name in the first argument. Each leaves the same three blocks.
 *
 * truth: summary: allocations=4 frees=1 allocated_bytes=4000 live_at_exit_bytes=3000 live_at_exit_blocks=3
 * truth: in truth_work: allocations=4 live_at_exit_blocks=3
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keep.h"

NOINLINE static void truth_work(void) {
    void *freed = keep(malloc(1000));
    for (int i = 0; i < 3; i++) keep(malloc(1000));
    free(freed);
}

static void say_goodbye(void) {
    if (write(1, "goodbye\n", 8) != 8) _exit(99);
}

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "return";
    atexit(say_goodbye);
    at_quick_exit(say_goodbye);
    truth_work();
    if (!strcmp(way, "return")) return 3;
    if (!strcmp(way, "exit")) exit(4);
    if (!strcmp(way, "_exit")) _exit(5);
    if (!strcmp(way, "_Exit")) _Exit(6);
    if (!strcmp(way, "quick_exit")) quick_exit(7);
    if (!strcmp(way, "abort")) abort();
    if (!strcmp(way, "SIGTERM")) raise(SIGTERM);
    if (!strcmp(way, "SIGINT")) raise(SIGINT);
    if (!strcmp(way, "SIGKILL")) raise(SIGKILL);
    if (!strcmp(way, "SIGSEGV")) raise(SIGSEGV);
    return 98;
}
