/* Pointers that belong to a second thread: its registers, its frames, its own variables, what is left when it is gone.
 *
 *   case           keep         lose         what is special
 *   register       reachable    definite     in a register of a thread that runs
 *   vector         reachable    definite     in a vector register of a thread that runs
 *   red_zone       reachable    definite     below the stack pointer of a thread that runs
 *   in_read        reachable    definite     in a frame of a thread that waits for input
 *   runs_blocking  reachable    definite~reachable in a frame of a thread that runs and blocks all signals
 *   in_handler     reachable    definite~reachable in a register of what a signal handler on another stack interrupted
 *   thread_tls     reachable    definite     in a waiting thread's own variable
 *   thread_value   reachable    definite     as a waiting thread's value of a key
 *   own_stack      reachable    definite~reachable in a frame of a thread whose stack the program mapped
 *   hundreds       reachable    definite     in a frame of one of 256 threads that wait
 *   result         reachable    definite     as the result of a thread that nobody has joined yet; lost: who joined it dropped it
 *   key_destructor freed        definite     as a value of a key that has a destructor, or none, of a thread that is gone
 *   detached_gone  definite     definite     on the stack of a detached thread that is gone
 */
#include "twins.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_barrier_t barrier;
static volatile int ready;
static int ends[2];

static pthread_t start(void *(*body)(void *), void *argument) {
    pthread_t thread;
    pthread_barrier_init(&barrier, 0, 2);
    pthread_create(&thread, 0, body, argument);
    return thread;
}

static void await_ready(void) {
    while (!ready) usleep(100);
}

/* Says that it is ready, and runs on without touching any register. */
#define SPIN "xor %%ecx, %%ecx\n movl $1, ready(%%rip)\n 1: pause\n jmp 1b"

static AWAY void *in_register(void *argument) {
    uintptr_t complement = put_complement();
    wipe();
    __asm__ volatile("not %%rbx\n" SPIN ::"b"(complement) : "rcx", "memory");
    return argument;
}

static AWAY void *in_vector(void *argument) {
    uintptr_t complement = put_complement();
    wipe();
    __asm__ volatile("not %%rbx\n movq %%rbx, %%xmm7\n xor %%ebx, %%ebx\n" SPIN ::"b"(complement) : "rcx", "xmm7", "memory");
    return argument;
}

static AWAY void *in_red_zone(void *argument) {
    uintptr_t complement = put_complement();
    wipe();
    __asm__ volatile("and $-16, %%rsp\n not %%rbx\n movq %%rbx, -64(%%rsp)\n xor %%ebx, %%ebx\n" SPIN ::"b"(complement)
                     : "rcx", "memory");
    return argument;
}

static void registers(void *(*body)(void *)) {
    start(body, 0);
    await_ready();
}
static void a_register(void) { registers(in_register); }
static void vector(void) { registers(in_vector); }
static void red_zone(void) { registers(in_red_zone); }

static void *reading(void *argument) {
    void *volatile local = argument;
    char byte;
    put((void *)&local);
    wipe();
    pthread_barrier_wait(&barrier);
    if (read(ends[0], &byte, 1) < 0) abort();
    return local;
}
static void in_read(void) {
    if (pipe(ends)) abort();
    start(reading, 0);
    pthread_barrier_wait(&barrier);
}

static void *running(void *argument) {
    void *volatile local = argument;
    sigset_t all;
    put((void *)&local);
    wipe();
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, 0);
    for (ready = 1;;) __asm__ volatile("pause");
    return local;
}
static void runs_blocking(void) { registers(running); }

static void stay(int signal) {
    (void)signal;
    for (ready = 2;;) pause();
}
static void *interrupted(void *argument) {
    stack_t stack = {0};
    stack.ss_sp = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stack.ss_size = 1 << 16;
    sigaltstack(&stack, 0);
    return in_register(argument);
}
static void in_handler(void) {
    struct sigaction action = {0};
    action.sa_handler = stay;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, 0);
    pthread_t thread = start(interrupted, 0);
    await_ready();
    pthread_kill(thread, SIGUSR1);
    while (ready != 2) usleep(100);
}

static __thread void *own;
static pthread_key_t key;
static void *with_own(void *argument) {
    if (argument) {
        void *volatile value = 0;
        put((void *)&value);
        pthread_setspecific(key, value);
        value = 0;
    } else put(&own);
    wipe();
    pthread_barrier_wait(&barrier);
    for (;;) pause();
    return 0;
}
static void thread_tls(void) {
    start(with_own, 0);
    pthread_barrier_wait(&barrier);
}
static void thread_value(void) {
    pthread_key_create(&key, 0);
    start(with_own, &key);
    pthread_barrier_wait(&barrier);
}

static void *waiting(void *argument) {
    void *volatile local = 0;
    if (argument) put((void *)&local);
    wipe();
    pthread_barrier_wait(&barrier);
    for (;;) pause();
    return local;
}
static AWAY void *holding(void *argument) {
    void *volatile local = 0;
    put((void *)&local);
    return argument;
}
static pthread_t on_own_stack(void *(*body)(void *)) {
    size_t bytes = 1 << 18;
    char *stack = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_barrier_init(&barrier, 0, 2);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack, bytes);
    pthread_create(&thread, &attributes, body, &barrier);
    return thread;
}
static void own_stack(void) {
    on_own_stack(waiting);
    pthread_barrier_wait(&barrier);
}

static void hundreds(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 17);
    pthread_barrier_init(&barrier, 0, 257);
    for (int nth = 0; nth < 256; nth++) pthread_create(&thread, &attributes, waiting, nth == 128 ? &key : 0);
    pthread_barrier_wait(&barrier);
}

static volatile pid_t number;
static void *resulting(void *argument) {
    (void)argument;
    number = gettid();
    return block();
}
static void result(void) {
    pthread_t thread = start(resulting, 0);
    if (keeps)
        while (!number || !tgkill(getpid(), number, 0)) usleep(100);
    else pthread_join(thread, 0);
}

static void *with_value(void *argument) {
    pthread_setspecific(key, block());
    return argument;
}
static void key_destructor(void) {
    pthread_key_create(&key, keeps ? free : 0);
    pthread_join(start(with_value, 0), 0);
}

static void detached_gone(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &attributes, holding, 0);
    usleep(50000);
}

PROGRAMS({"register", a_register}, {"vector", vector}, {"red_zone", red_zone}, {"in_read", in_read},
         {"runs_blocking", runs_blocking}, {"in_handler", in_handler}, {"thread_tls", thread_tls},
         {"thread_value", thread_value}, {"own_stack", own_stack}, {"hundreds", hundreds}, {"result", result},
         {"key_destructor", key_destructor}, {"detached_gone", detached_gone})
