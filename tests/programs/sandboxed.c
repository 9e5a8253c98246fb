/* Confines itself to the system calls that a program with threads makes for its memory, on pain of death, and then
 * allocates: `rounds` times 200 blocks in each of three threads and in the first, and 50 on a coroutine's stack. The way
 * it does so is its argument: prctl, seccomp (by libc's `syscall`). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
enum { BLOCKS = 200, ROUNDS = 100, COROUTINE_BLOCKS = 50 };

__attribute__((noinline)) void *allocated_in_thread(size_t bytes) {
    char *block = malloc(bytes);
    block[0] = 1;
    return block;
}

static void *work(void *unused) {
    static __thread void *blocks[BLOCKS];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) blocks[i] = allocated_in_thread(16 + 3 * i);
        for (int i = 0; i < BLOCKS; i++) free(blocks[i]);
    }
    return unused;
}

static ucontext_t outside, inside;

__attribute__((noinline)) void *allocated_in_coroutine(size_t bytes) {
    char *block = malloc(bytes);
    block[0] = 1;
    return block;
}

static void coroutine(void) {
    for (int i = 0; i < COROUTINE_BLOCKS; i++) free(allocated_in_coroutine(100));
}

static void confine(int by_syscall) {
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_write), ALLOW(SYS_mmap), ALLOW(SYS_munmap), ALLOW(SYS_mremap), ALLOW(SYS_mprotect), ALLOW(SYS_brk),
        ALLOW(SYS_madvise), ALLOW(SYS_futex), ALLOW(SYS_rt_sigprocmask), ALLOW(SYS_exit), ALLOW(SYS_exit_group),
        ALLOW(SYS_clone), ALLOW(435 /* clone3 */), ALLOW(SYS_set_robust_list), ALLOW(334 /* rseq */), ALLOW(SYS_getpid),
        ALLOW(SYS_gettid), ALLOW(SYS_sched_getaffinity), ALLOW(SYS_clock_gettime), ALLOW(SYS_getrandom),
        ALLOW(SYS_rt_sigaction),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog filter = {sizeof lines / sizeof *lines, lines};
    /* Asking what the kernel can do confines nobody. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) != -1 || errno != EFAULT) _exit(119);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) _exit(120);
    int failed = by_syscall ? syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter)
                            : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
    if (failed) _exit(121);
}

int main(int count, char **arguments) {
    confine(count > 1 && !strcmp(arguments[1], "seccomp"));
    work(NULL);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, NULL);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    size_t bytes = 1 << 16;
    getcontext(&inside);
    inside.uc_stack.ss_sp = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    inside.uc_stack.ss_size = bytes;
    inside.uc_link = &outside;
    makecontext(&inside, coroutine, 0);
    swapcontext(&outside, &inside);
    write(1, "done\n", 5);
    return 7;
}
