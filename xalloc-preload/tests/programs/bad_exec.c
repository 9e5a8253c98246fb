// Passes pointers to nowhere to the functions that start programs: each says EFAULT, whoever listens.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    char *nowhere = (char *)8;
    char *argv[] = {"true", NULL}, *bad_argv[] = {"true", nowhere, NULL}, *bad_string[] = {"A=1", nowhere, NULL};
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_NONE);
    char **cut = (char **)(pages + 4096 - sizeof(char *));
    *cut = "A=1";
    char *endless[] = {memset(pages, 'A', 4096 - sizeof(char *)), NULL};
    char **envps[] = {(char **)nowhere, bad_string, cut, endless};
    for (int i = 0; i < 4; i++) {
        if (i == 3) memset(cut, 'A', sizeof(char *));
        int answer = execve("/bin/true", argv, envps[i]);
        printf("execve %d %s\n", answer, strerrorname_np(errno));
        pid_t pid;
        printf("posix_spawn %s\n", strerrorname_np(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, envps[i])));
    }
    printf("execve %d %s\n", execve("/bin/true", bad_argv, environ), strerrorname_np(errno));
    printf("execve %d %s\n", execve(nowhere, argv, environ), strerrorname_np(errno));
    printf("execle %d %s\n", execle("/bin/true", "true", nowhere, NULL, environ), strerrorname_np(errno));
    return 0;
}
