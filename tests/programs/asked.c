/* Waits to be asked for its leaks. The arguments are cases: each keeps a block of 7777 bytes in a place that only a look
 * at a running process finds it in. One block of 3333 bytes is lost in all.
 *
 *   frame      in main's frame
 *   thread     in a frame of a thread that waits for input
 *   register   in a register of a thread that runs
 *   vector     in a vector register of a thread that runs
 *   own        in a waiting thread's own variable
 *   shared     in memory that is shared with other processes
 *   hundreds   in frames of 256 threads that wait
 *   blocking   in a frame of a thread that waits and blocks all signals
 *   library    in a library that is unloaded, which keeps nothing: made by its code
 *   deaf       nowhere: main blocks all signals from here on
 *   awaiting   nowhere: main blocks all signals, and a thread waits for them and says which one came
 *   reading    nowhere: a thread reads signals from a signalfd and says which one came
 *   urgent     nowhere: the program has a handler for SIGURG of its own, and its last line says how often that ran
 *   child      nowhere: the rest is done by a forked child, while the parent waits
 *
 * It says its process id, and then reads letters: `l` loses a block of 5555 bytes, `e` ends it. Each is answered by a line.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define AWAY __attribute__((noinline, noclone))

static AWAY void wipe(void) {
    volatile char dead[16384];
    memset((char *)dead, 0, sizeof dead);
}
static AWAY void *made(size_t size) { return memset(malloc(size), 0, size); }
static AWAY void lose(size_t size) {
    void *volatile block = made(size);
    block = 0;
}

static volatile int ready;
static int pipe_ends[2];
static volatile sig_atomic_t is_urgent, urgent;
static void note_urgent(int number) { urgent += number == SIGURG; }
static __thread void *own;

static AWAY void *waiting(void *how) {
    void *volatile local = made(7777);
    char byte;
    if (how) {
        own = local;
        local = 0;
    }
    wipe();
    __atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
    while (read(pipe_ends[0], &byte, 1) != 0) {}
    return local;
}
static AWAY void *blocking(void *none) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    return waiting(none);
}
static AWAY void *awaiting(void *none) {
    sigset_t all;
    int number;
    sigfillset(&all);
    __atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
    while (sigwait(&all, &number) == 0) printf("signal %d\n", number);
    return none;
}
static AWAY void *reading(void *none) {
    sigset_t all;
    struct signalfd_siginfo signal;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, 0);
    int file = signalfd(-1, &all, 0);
    __atomic_add_fetch(&ready, 1, __ATOMIC_RELEASE);
    while (read(file, &signal, sizeof signal) == sizeof signal) printf("signal %d\n", (int)signal.ssi_signo);
    return none;
}
/* Says that it is ready, and runs on without touching any other register. */
#define SPIN "lock addl $1, ready(%%rip)\n 1: pause\n jmp 1b"
static AWAY void *in_register(void *none) {
    uintptr_t complement = ~(uintptr_t)made(7777);
    wipe();
    __asm__ volatile("not %%rbx\n xor %%eax, %%eax\n" SPIN ::"b"(complement) : "rax", "memory");
    return none;
}
static AWAY void *in_vector(void *none) {
    uintptr_t complement = ~(uintptr_t)made(7777);
    wipe();
    __asm__ volatile("not %%rbx\n movq %%rbx, %%xmm7\n xor %%ebx, %%ebx\n xor %%eax, %%eax\n" SPIN ::"b"(complement)
                     : "rax", "xmm7", "memory");
    return none;
}

static AWAY void start(int threads, void *(*body)(void *), void *argument) {
    int before = ready;
    for (int nth = 0; nth < threads; nth++) {
        pthread_t thread;
        pthread_create(&thread, 0, body, argument);
    }
    while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) != before + threads) usleep(100);
}

static AWAY void load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    void (*work)(void) = (void (*)(void))dlsym(library, "asked_work");
    work();
    dlclose(library);
}

static AWAY int prepare(const char *name, void *volatile *frame) {
    if (!strcmp(name, "frame")) *frame = made(7777);
    else if (!strcmp(name, "thread")) start(1, waiting, 0);
    else if (!strcmp(name, "register")) start(1, in_register, 0);
    else if (!strcmp(name, "vector")) start(1, in_vector, 0);
    else if (!strcmp(name, "own")) start(1, waiting, "");
    else if (!strcmp(name, "hundreds")) start(256, waiting, 0);
    else if (!strcmp(name, "blocking")) start(1, blocking, 0);
    else if (!strcmp(name, "shared")) {
        void **memory = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        memory[1000] = made(7777);
    } else if (!strcmp(name, "deaf")) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, 0);
    } else if (!strcmp(name, "awaiting")) {
        prepare("deaf", frame);
        start(1, awaiting, 0);
    } else if (!strcmp(name, "reading")) start(1, reading, 0);
    else if (!strcmp(name, "urgent")) {
        signal(SIGURG, note_urgent);
        is_urgent = 1;
    } else if (!strcmp(name, "child")) {
        pid_t child = fork();
        int status;
        if (child) return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    } else if (strchr(name, '/')) load(name);
    return -1;
}

int main(int count, char **arguments) {
    void *volatile frame = 0;
    if (pipe(pipe_ends)) return 2;
    setvbuf(stdout, 0, _IONBF, 0);
    for (int nth = 1; nth < count; nth++) {
        int status = prepare(arguments[nth], &frame);
        if (status >= 0) return status;
    }
    lose(3333);
    wipe();
    printf("%d\n", (int)getpid());
    for (;;) {
        char letter = 'e';
        if (read(0, &letter, 1) != 1 || letter == 'e') break;
        lose(5555);
        wipe();
        printf("lost\n");
    }
    if (is_urgent) printf("end after %d signals\n", (int)urgent);
    else printf("%s\n", frame ? "end, and kept" : "end");
    frame = 0;
    return 7;
}
