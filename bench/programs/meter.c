/* Runs a command and appends one line to a file: what the kernel says of that command alone, and when it ended.
 *
 * Arguments: file, command. The line: most resident KiB, user and system microseconds, voluntary and involuntary
 * switches, CLOCK_REALTIME at the end in nanoseconds. The status is the command's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long microseconds(struct timeval time) { return time.tv_sec * 1000000LL + time.tv_usec; }

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    int status;
    struct rusage used;
    if (child < 0 || wait4(child, &status, 0, &used) < 0) return 126;
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    FILE *file = fopen(argv[1], "a");
    if (!file) return 126;
    fprintf(file, "%ld %lld %lld %ld %ld %lld\n", used.ru_maxrss, microseconds(used.ru_utime), microseconds(used.ru_stime),
            used.ru_nvcsw, used.ru_nivcsw, end.tv_sec * 1000000000LL + end.tv_nsec);
    fclose(file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
