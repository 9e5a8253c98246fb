/* A child that ends by a signal before anybody has seen it, and a parent that does so half a second later.
 *
 * truth: summary: processes=2 dropped_events=0
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keep.h"

int main(void) {
    pid_t child = fork();
    if (child == 0) {
        free(keep(malloc(10)));
        kill(getpid(), SIGKILL);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) return 1;
    usleep(500000);
    kill(getpid(), SIGKILL);
    return 1;
}
