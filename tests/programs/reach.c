/* Keeps or loses one block in every way that a check for leaks must tell apart.
 *
 * Arguments: a case, `keep` or `lose`, and how to leave (`return` if missing). The block of 7,777 bytes is what the case is
 * about; `lose` drops the only pointer to it, if the case does not say otherwise. What a coroutine left on its own stack
 * cannot be told from what it has there. The truth, by case, as in leaks/twins.h:
 *
 *   case           keep         lose         what is special
 *   global         reachable    definite     in a variable that has a first value
 *   zeroed         reachable    definite     in a variable that is zero at first
 *   tls            reachable    definite     in a variable that each thread has
 *   key            reachable    definite     as main's value of a key
 *   late_key       reachable    definite     as a value behind the first 32 keys
 *   exit_argument  reachable    definite     as argument of __cxa_atexit
 *   heap           reachable    definite     in a block
 *   mapping        reachable    definite     in memory without a file
 *   shared         reachable    definite     in shared memory without a file
 *   file           reachable    definite     in a private mapping of a file
 *   read_only      reachable    definite     in memory that was made read-only
 *   environment    reachable    definite     in the environment
 *   frame          reachable    definite     in main's frame, which calls exit
 *   thread         reachable    definite     in a frame of a thread that waits
 *   blocking       reachable    definite     in a frame of a thread that waits and blocks all signals
 *   gone_thread    definite     definite     on the stack of a thread that was joined
 *   dead_frame     definite     definite     in the frame of a function that returned
 *   coroutine      reachable    definite~reachable          on a mapped stack that is suspended
 *   heap_coroutine reachable    definite~reachable          on a stack in a block that is suspended
 *   zero           reachable    definite     beside a block of no bytes
 *   protected      reachable    definite     in a block of which a page cannot be read
 *   resized        reachable    definite     in a block that realloc moved
 *   large          reachable    definite     in a block with a mapping of its own
 *   low_tag        reachable    definite     with a tag in its low three bits
 *   cookie         reachable    definite     behind a count of elements
 *   length         reachable    definite     behind a length
 *   counters       reachable    definite     behind two counters, as in Rust's Arc
 *   aligned        reachable    definite     behind the address of the block
 *   list           reachable    definite     in the links of a list
 *   middle         reachable~possible definite     into the middle, and nothing explains it
 *   unaligned      reachable~definite definite     at an address that is no multiple of 8
 *   past_end       reachable~definite definite     just behind the block
 *   top_tag        reachable~definite definite     with a tag in the upper 16 bits
 *   self           reachable    definite     a block that points to itself
 *   ring           reachable    cycle        three blocks in a ring
 *   ring_and_tail  reachable    indirect     a ring points to it
 *   chain          reachable    indirect     at the end of a chain
 *   tree           reachable    indirect     below another block
 *   child          inherited    -            a child has it from its parent
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "lose.h"

#define SIZE 7777

extern int __cxa_atexit(void (*)(void *), void *, void *);

/* Not static, or its one store would be left out. */
char packed[64] __attribute__((aligned(8)));
static int keeps;
static const char *way;
static void *zeroed;
static void *global[2] = {&zeroed, 0};
static __thread void *tls;

static AWAY void *block(void) { return made(SIZE); }

/* Puts a new block where `place` is, or loses it. */
static AWAY void put(void **place) {
    void *made = block();
    *(void *volatile *)place = keeps ? made : 0;
}

static AWAY void hide(uintptr_t *place, uintptr_t (*disguise)(uintptr_t)) {
    uintptr_t made = (uintptr_t)block();
    *(volatile uintptr_t *)place = keeps ? disguise(made) : 0;
}

static void leave(void) {
    wipe();
    if (!strcmp(way, "exit")) exit(0);
    if (!strcmp(way, "_exit")) _exit(0);
    if (!strcmp(way, "_Exit")) _Exit(0);
    if (!strcmp(way, "quick_exit")) quick_exit(0);
    if (!strcmp(way, "abort")) abort();
    if (!strcmp(way, "term")) raise(SIGTERM);
}

static void ignore(void *argument) { (void)argument; }

/* Waits until the thread waits in the kernel. */
static void await_sleep(pid_t tid) {
    char path[64], text[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid);
    for (;;) {
        int file = open(path, O_RDONLY);
        ssize_t got = read(file, text, sizeof text - 1);
        close(file);
        text[got < 0 ? 0 : got] = 0;
        char *name_end = strrchr(text, ')');
        if (name_end && name_end[1] == ' ' && name_end[2] == 'S') return;
        usleep(100);
    }
}

static pthread_barrier_t barrier;
static volatile pid_t waiting;
static void *keeping_thread(void *argument) {
    void *volatile local = 0;
    put((void **)&local);
    wipe();
    if (argument) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, 0);
    }
    pthread_barrier_wait(&barrier);
    waiting = gettid();
    pause();
    return local;
}
static void *leaving_thread(void *argument) {
    void *volatile local = block();
    (void)local;
    return argument;
}

static ucontext_t back, routine;
static void in_coroutine(void) {
    void *volatile local = 0;
    put((void **)&local);
    wipe();
    swapcontext(&routine, &back);
    if (local) ignore(local);
}
static AWAY void suspend(void *stack, size_t bytes) {
    getcontext(&routine);
    routine.uc_stack.ss_sp = stack;
    routine.uc_stack.ss_size = bytes;
    makecontext(&routine, in_coroutine, 0);
    swapcontext(&back, &routine);
    memset(&back, 0, sizeof back);
    memset(&routine.uc_mcontext, 0, sizeof routine.uc_mcontext.gregs);
}

static uintptr_t low_tag(uintptr_t p) { return p | 5; }
static uintptr_t middle(uintptr_t p) { return p + 4000; }
static uintptr_t past_end(uintptr_t p) { return p + SIZE; }
static uintptr_t top_tag(uintptr_t p) { return p | (uintptr_t)0xfffc << 48; }
static uintptr_t cookie(uintptr_t p) { return *(uint64_t *)p = (SIZE - 8) / 17, p + 8; }
static uintptr_t length(uintptr_t p) { return *(uint64_t *)p = SIZE - 8, p + 8; }
static uintptr_t counters(uintptr_t p) { return ((uint64_t *)p)[0] = 1, ((uint64_t *)p)[1] = 2, p + 16; }
static uintptr_t aligned(uintptr_t p) {
    uintptr_t inside = (p + 8 + 255) & ~(uintptr_t)255;
    return ((uintptr_t *)inside)[-1] = p, inside;
}
static uintptr_t node_head[2];
static uintptr_t list(uintptr_t p) {
    uintptr_t *node = (uintptr_t *)(p + 64);
    node[0] = node[1] = (uintptr_t)node_head;
    node_head[1] = (uintptr_t)node;
    return (uintptr_t)node;
}

/* Rings, chains and trees: blocks of 32 bytes around the one that the case is about. */
static AWAY void link_up(const char *name, void **root) {
    void **made = block();
    void **other = calloc(1, 32), **third = calloc(1, 32);
    void *held = made;
    if (!strcmp(name, "self")) made[0] = made, held = made;
    if (!strcmp(name, "ring")) made[0] = other, other[0] = third, third[0] = made, other[1] = 0;
    if (!strcmp(name, "ring_and_tail")) other[0] = third, third[0] = other, third[1] = made, held = other;
    if (!strcmp(name, "chain")) other[0] = third, third[0] = made, held = other;
    if (!strcmp(name, "tree")) other[0] = third, other[1] = made, held = other;
    if (!strcmp(name, "self")) free(other), free(third);
    *(void *volatile *)root = keeps ? held : 0;
}

static AWAY void dead_frame(void) {
    void *volatile local = block();
    (void)local;
}

static AWAY int run(const char *name) {
    static void **place;
    pthread_t thread;
    pthread_key_t key;
    char path[] = "/tmp/reach.XXXXXX";
    if (!strcmp(name, "global")) put(&global[1]);
    else if (!strcmp(name, "zeroed")) put(&zeroed);
    else if (!strcmp(name, "tls")) put(&tls);
    else if (!strcmp(name, "key") || !strcmp(name, "late_key")) {
        for (int nth = 0; nth < (name[0] == 'l' ? 100 : 1); nth++) pthread_key_create(&key, 0);
        void *value = block();
        pthread_setspecific(key, keeps ? value : 0);
        value = 0;
    } else if (!strcmp(name, "exit_argument")) {
        void *value = block();
        __cxa_atexit(ignore, keeps ? value : 0, 0);
    } else if (!strcmp(name, "heap")) put(place = zeroed = calloc(1, 64));
    else if (!strcmp(name, "mapping")) put(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    else if (!strcmp(name, "shared")) put(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    else if (!strcmp(name, "file")) {
        int file = mkstemp(path);
        unlink(path);
        if (ftruncate(file, 4096)) return 2;
        put(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
        close(file);
    } else if (!strcmp(name, "read_only")) {
        void **page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        put(page);
        mprotect(page, 4096, PROT_READ);
    } else if (!strcmp(name, "environment")) {
        char *text = block();
        strcpy(text, "REACH=1");
        if (keeps) putenv(text);
    } else if (!strcmp(name, "thread") || !strcmp(name, "blocking")) {
        pthread_barrier_init(&barrier, 0, 2);
        pthread_create(&thread, 0, keeping_thread, name[0] == 'b' ? &barrier : 0);
        pthread_barrier_wait(&barrier);
        while (!waiting) usleep(100);
        await_sleep(waiting);
    } else if (!strcmp(name, "gone_thread")) {
        pthread_create(&thread, 0, leaving_thread, 0);
        pthread_join(thread, 0);
    } else if (!strcmp(name, "dead_frame")) dead_frame();
    else if (!strcmp(name, "coroutine")) {
        suspend(mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 65536);
    } else if (!strcmp(name, "heap_coroutine")) suspend(zeroed = calloc(1, 65536), 65536);
    else if (!strcmp(name, "zero")) {
        put(&zeroed);
        global[1] = malloc(0);
    } else if (!strcmp(name, "protected")) {
        char *whole = aligned_alloc(4096, 3 * 4096);
        mprotect(whole + 4096, 4096, PROT_NONE);
        put((void **)(whole + 2 * 4096));
        zeroed = whole;
    } else if (!strcmp(name, "resized")) {
        put(&zeroed);
        if (zeroed) zeroed = realloc(realloc(zeroed, 2 * SIZE), SIZE);
    } else if (!strcmp(name, "large")) {
        put(zeroed = calloc(1, 1 << 20));
    } else if (!strcmp(name, "unaligned")) {
        void *made = block();
        if (keeps) memcpy(packed + 3, &made, 8);
        made = 0;
    } else if (!strcmp(name, "child")) {
        put(&zeroed);
        pid_t child = fork();
        if (!child) return free(block()), 0;
        waitpid(child, 0, 0);
        free(zeroed);
    } else {
        static const struct { const char *name; uintptr_t (*disguise)(uintptr_t); } disguises[] = {
            {"low_tag", low_tag}, {"middle", middle}, {"past_end", past_end}, {"top_tag", top_tag}, {"cookie", cookie},
            {"length", length}, {"counters", counters}, {"aligned", aligned}, {"list", list}};
        for (unsigned nth = 0; nth < sizeof disguises / sizeof *disguises; nth++)
            if (!strcmp(name, disguises[nth].name)) {
                hide(strcmp(name, "list") ? (uintptr_t *)&zeroed : node_head, disguises[nth].disguise);
                return 0;
            }
        link_up(name, &zeroed);
    }
    return 0;
}

int main(int argc, char **argv) {
    void *volatile local = 0;
    keeps = argc > 2 && !strcmp(argv[2], "keep");
    way = argc > 3 ? argv[3] : "return";
    if (argc > 1 && !strcmp(argv[1], "frame")) {
        put((void **)&local);
        way = argc > 3 ? way : "exit";
    } else if (argc < 2 || run(argv[1])) return 2;
    wipe();
    leave();
    return 0;
}
