/* Puts itself under a filter of system calls that lets everything pass, becomes itself again by exec, and then allocates and
 * ends with status 7. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count == 1) {
        struct sock_filter line = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog filter = {1, &line};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 120;
        execl("/proc/self/exe", arguments[0], "again", (char *)0);
        return 121;
    }
    char *volatile block = malloc(1000);
    block[0] = 1;
    free(block);
    return 7;
}
