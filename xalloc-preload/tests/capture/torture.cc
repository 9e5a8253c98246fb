// Every way of building and leaving a stack that programs know, with an allocation in each: what a stack walk must get
// right. Ends with 0; what the walks found is the harness's to say.
#include <alloca.h>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#define NOINLINE __attribute__((noinline))

// The harness captures here without allocating: for handlers that interrupt anything, malloc included.
extern "C" __attribute__((weak)) void xcap_probe();

static void probe() {
    if (xcap_probe) xcap_probe();
    asm volatile("");
}

static void keep(void *p) { asm volatile("" ::"r"(p) : "memory"); }

static void touch(size_t n = 24) {
    void *p = malloc(n);
    keep(p);
    free(p);
}

// --- the same b() from two calls in one frame ---
NOINLINE static void b() { touch(); asm volatile(""); }
NOINLINE static void a() { b(); asm volatile(""); }
NOINLINE static void same_site() {
    for (int i = 0; i < 200; i++) {
        a();
        a();
        if (i % 3) a();
    }
}

// --- exceptions ---
struct Guard {
    ~Guard() { touch(40); }
};
NOINLINE static int thrower(int n) {
    Guard g;
    if (n == 0) throw std::string("an exception with a message that is long enough to be allocated");
    return thrower(n - 1) + 1;
}
NOINLINE static void exceptions() {
    for (int i = 0; i < 60; i++) {
        try {
            thrower(i % 12);
        } catch (const std::string &s) {
            touch(s.size());
            try {
                thrower(2);
            } catch (...) {
                touch();
            }
        }
    }
}

// --- longjmp ---
static jmp_buf jump;
NOINLINE static void jumper(int n) {
    touch();
    if (n == 0) longjmp(jump, 1);
    jumper(n - 1);
    asm volatile("");
}
NOINLINE static void jumps() {
    for (volatile int i = 0; i < 100; i = i + 1) {
        if (setjmp(jump) == 0) jumper(i % 17);
        touch();
    }
}

// --- alloca, VLA, over-aligned locals, and all of them together ---
NOINLINE static void vla(int n) {
    char text[n];
    memset(text, 1, n);
    keep(text);
    touch(n);
    if (n > 20) vla(n / 2);
    touch(n);
    keep(text);
}
NOINLINE static void with_alloca(int n) {
    for (int i = 0; i < 4; i++) {
        keep(alloca(n));
        touch(n);
    }
    if (n > 16) with_alloca(n - 7);
    touch();
}
NOINLINE static void aligned(int n) {
    alignas(64) char line[128];
    memset(line, n, sizeof line);
    keep(line);
    touch(n);
    if (n > 0) aligned(n - 1);
    touch();
    keep(line);
}
NOINLINE static void aligned_alloca(int n) {
    alignas(128) char line[128];
    keep(line);
    char *more = static_cast<char *>(alloca(n * 8 + 8));
    keep(more);
    touch(n);
    if (n > 0) (n % 2 ? aligned : aligned_alloca)(n - 1);
    touch();
    keep(line);
}
NOINLINE static long many_arguments(long a1, long a2, long a3, long a4, long a5, long a6, long a7, long a8, long a9) {
    touch(a9);
    if (a1 > 0) return many_arguments(a1 - 1, a2, a3, a4, a5, a6, a7, a8, a9) + a8;
    return a7;
}
NOINLINE static void frames() {
    for (int i = 0; i < 30; i++) {
        vla(300 + i);
        with_alloca(80 + i);
        aligned(i % 8);
        aligned_alloca(i % 9);
        keep(reinterpret_cast<void *>(many_arguments(i, 2, 3, 4, 5, 6, 7, 8, 9)));
    }
}

// --- deep recursion, beyond the limit too ---
NOINLINE static void deep(int n) {
    if (n % 50 == 0) touch();
    if (n > 0) deep(n - 1);
    if (n % 61 == 0) touch();
    asm volatile("");
}

// --- callbacks through libc and the C++ library ---
static int by_value(const void *x, const void *y) {
    touch();
    return *static_cast<const int *>(x) - *static_cast<const int *>(y);
}
NOINLINE static void callbacks() {
    int values[64];
    for (int i = 0; i < 64; i++) values[i] = i * 37 % 64;
    qsort(values, 64, sizeof *values, by_value);
    std::function<void(int)> f = [&](int n) {
        touch();
        if (n) f(n - 1);
        touch();
    };
    f(20);
    std::vector<std::string> words;
    for (int i = 0; i < 300; i++) words.push_back(std::to_string(i) + " long enough to leave the small buffer");
}

// --- coroutines ---
static ucontext_t scheduler;
struct Fiber {
    ucontext_t context;
    char *stack;
    size_t size;
    bool done;
};
static Fiber *running;
static void yield_now() { swapcontext(&running->context, &scheduler); }
NOINLINE static void fiber_body(int n) {
    touch();
    if (n % 3 == 0) yield_now();
    if (n > 0) fiber_body(n - 1);
    touch();
    aligned(2);
}
static void fiber_main() {
    fiber_body(30);
    try {
        thrower(5);
    } catch (...) {
        touch();
    }
    running->done = true;
    yield_now();
}
NOINLINE static void fibers() {
    for (int round = 0; round < 5; round++) {
        Fiber all[8];
        for (int i = 0; i < 8; i++) {
            Fiber &f = all[i];
            // Some stacks are mapped, some are blocks of the heap, one lies inside of this very stack.
            f.size = 64 << 10;
            if (i == 0) f.stack = static_cast<char *>(alloca(f.size));
            else if (i % 2) f.stack = static_cast<char *>(malloc(f.size));
            else f.stack = static_cast<char *>(mmap(nullptr, f.size, PROT_READ | PROT_WRITE,
                                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            f.done = false;
            getcontext(&f.context);
            f.context.uc_stack.ss_sp = f.stack;
            f.context.uc_stack.ss_size = f.size;
            f.context.uc_link = &scheduler;
            makecontext(&f.context, fiber_main, 0);
        }
        for (bool busy = true; busy;) {
            busy = false;
            for (Fiber &f : all) {
                if (f.done) continue;
                busy = true;
                running = &f;
                swapcontext(&scheduler, &f.context);
                touch();
            }
        }
        for (int i = 1; i < 8; i++) {
            if (i % 2) free(all[i].stack);
            else munmap(all[i].stack, all[i].size);
        }
    }
}

// --- signals ---
static volatile sig_atomic_t signals;
NOINLINE static void handler_body(int n) {
    probe();
    if (n > 0) handler_body(n - 1);
    probe();
}
// One shot at a time: a slow comparison must not be interrupted by the next signal for ever.
static volatile sig_atomic_t microseconds;
static void arm() {
    itimerval timer{{0, 0}, {0, microseconds}};
    setitimer(ITIMER_REAL, &timer, nullptr);
}
static void handler(int) {
    signals = signals + 1;
    handler_body(3);
    if (microseconds) arm();
}
static void allocating_handler(int n) {
    touch();
    if (n == SIGUSR1) raise(SIGUSR2);
    touch();
}
static void install(int number, void (*f)(int), int flags) {
    struct sigaction action {};
    action.sa_handler = f;
    action.sa_flags = flags;
    sigaction(number, &action, nullptr);
}
NOINLINE static void raiser(int n) {
    touch();
    raise(SIGUSR1);
    if (n > 0) raiser(n - 1);
    touch();
}
NOINLINE static void faulting(volatile int *p) {
    touch();
    *p = 1;
    touch();
}
static char *fault_page;
static void repair(int) {
    touch();
    mprotect(fault_page, 4096, PROT_READ | PROT_WRITE);
    probe();
}
NOINLINE static void synchronous_signals() {
    for (int on_stack = 0; on_stack < 2; on_stack++) {
        install(SIGUSR1, allocating_handler, on_stack ? SA_ONSTACK : 0);
        install(SIGUSR2, allocating_handler, on_stack ? 0 : SA_ONSTACK);
        install(SIGSEGV, repair, on_stack ? SA_ONSTACK : 0);
        raiser(10);
        for (int i = 0; i < 10; i++) {
            fault_page = static_cast<char *>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            faulting(reinterpret_cast<volatile int *>(fault_page));
            munmap(fault_page, 4096);
        }
    }
    install(SIGSEGV, SIG_DFL, 0);
}
// A timer interrupts anything: prologues, epilogues, linkage stubs, libc's own assembly. Not the throwing of exceptions:
// libgcc, one of the oracles, follows wild pointers when it walks through its own half-installed frame.
NOINLINE static void interrupted(long rounds) {
    microseconds = 311;
    arm();
    for (long i = 0; i < rounds; i++) {
        aligned(3);
        aligned_alloca(4);
        vla(100);
        with_alloca(30);
        b();
        char text[64];
        snprintf(text, sizeof text, "%ld %f", i, 1.5 * i);
        keep(text);
        if (i % 8 == 0) jumps();
    }
    microseconds = 0;
    arm();
}
NOINLINE static void timer_signals() {
    for (int on_stack = 0; on_stack < 2; on_stack++) {
        install(SIGALRM, handler, (on_stack ? SA_ONSTACK : 0) | SA_RESTART);
        interrupted(120);
    }
}

// --- threads ---
static thread_local std::string own = "a thread's own string, longer than the small buffer";
struct AtExit {
    ~AtExit() { touch(77); }
};
static thread_local AtExit at_exit;
static void *thread_main(void *argument) {
    long n = reinterpret_cast<long>(argument);
    keep(&at_exit);
    own += std::to_string(n);
    same_site();
    exceptions();
    for (int i = 0; i < 5; i++) {
        vla(100 + i);
        aligned_alloca(5);
    }
    deep(100);
    if (n == 3) pthread_exit(nullptr);
    return nullptr;
}
NOINLINE static void threads() {
    for (int round = 0; round < 4; round++) {
        pthread_t all[6];
        void *stack = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (long i = 0; i < 6; i++) {
            pthread_attr_t attributes;
            pthread_attr_init(&attributes);
            if (i == 1) pthread_attr_setstacksize(&attributes, 256 << 10);
            if (i == 2) pthread_attr_setstack(&attributes, stack, 1 << 20);
            if (i == 4) pthread_attr_setguardsize(&attributes, 0);
            pthread_create(&all[i], &attributes, thread_main, reinterpret_cast<void *>(i));
            pthread_attr_destroy(&attributes);
        }
        for (pthread_t t : all) pthread_join(t, nullptr);
        munmap(stack, 1 << 20);
    }
}

// --- fork ---
NOINLINE static void forks(int n) {
    touch();
    pid_t child = fork();
    if (child == 0) {
        same_site();
        exceptions();
        if (n > 0) forks(n - 1);
        exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) abort();
    touch();
}

// --- dlopen and dlclose ---
NOINLINE static void plugins(const char *directory) {
    for (int i = 0; i < 60; i++) {
        std::string path = std::string(directory) + (i % 2 ? "/plugin_wide.so" : "/plugin_narrow.so");
        void *library = dlopen(path.c_str(), i % 3 ? RTLD_NOW : RTLD_LAZY);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            exit(1);
        }
        auto run = reinterpret_cast<void (*)(int)>(dlsym(library, "plugin_run"));
        run(8);
        run(3);
        dlclose(library);
        touch();
    }
}

static void everything(const char *directory) {
    same_site();
    exceptions();
    jumps();
    frames();
    deep(900);
    deep(3000);
    callbacks();
    fibers();
    synchronous_signals();
    timer_signals();
    plugins(directory);
}

int main(int, char **arguments) {
    stack_t other{};
    other.ss_size = 128 << 10;
    other.ss_sp = malloc(other.ss_size);
    sigaltstack(&other, nullptr);
    everything(arguments[1]);
    threads();
    // The alternate stack inside of the ordinary one.
    other.ss_sp = alloca(other.ss_size);
    sigaltstack(&other, nullptr);
    synchronous_signals();
    timer_signals();
    forks(2);
    return 0;
}
