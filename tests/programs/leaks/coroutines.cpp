/* Suspended coroutines, whose frames are blocks like others.
 *
 *   case           keep         lose         what is special
 *   frame          reachable    definite     it is the frame, and a handle is kept
 *   local          reachable    indirect     in the frame, of which a handle is kept
 *   awaiting       reachable    indirect     in the frame of a coroutine that another one waits for
 *   parameter      reachable    indirect     as a parameter, which the frame has a copy of
 *   exits          reachable    definite~reachable in main's frame, while a coroutine on another stack calls exit
 *   small          reachable    definite~reachable the same, and that stack has 16 KiB and a guard below it
 */
#include <coroutine>
#include <exception>
#include <sys/mman.h>
#include <ucontext.h>

#include "twins.h"

namespace {

bool is_subject;

struct Task {
    struct promise_type {
        std::coroutine_handle<> waiting;
        /* The frame of the case that is about it is the subject. */
        void *operator new(size_t bytes) { return is_subject && bytes <= SIZE ? malloc(SIZE) : malloc(bytes); }
        void operator delete(void *frame) { free(frame); }
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_never initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
    std::coroutine_handle<promise_type> handle;
    bool await_ready() { return false; }
    void await_suspend(std::coroutine_handle<> waiting) { handle.promise().waiting = waiting; }
    void await_resume() {}
};

void use(void *place) { __asm__ volatile("" ::"r"(place) : "memory"); }

Task empty() { co_await std::suspend_always{}; }
Task with_local() {
    void *made = block();
    use(&made);
    co_await std::suspend_always{};
    use(&made);
}
Task with_parameter(void *made) {
    co_await std::suspend_always{};
    use(made);
}
Task outer() { co_await with_local(); }

AWAY void suspend(Task (*start)()) {
    Task task = start();
    *(void *volatile *)&slot = keeps ? task.handle.address() : nullptr;
}
Task start_with_parameter() { return with_parameter(block()); }

void frame() {
    is_subject = true;
    suspend(empty);
}
void local() { suspend(with_local); }
void awaiting() { suspend(outer); }
void parameter() { suspend(start_with_parameter); }

ucontext_t back, routine;
void leaving() {
    wipe();
    exit(0);
}
/* On a stack with no room to wipe. */
void leaving_at_once() { exit(0); }
AWAY void exits_on(char *stack, size_t bytes, void (*leave)()) {
    void *volatile made = nullptr;
    put((void *)&made);
    getcontext(&routine);
    routine.uc_stack.ss_size = bytes;
    routine.uc_stack.ss_sp = stack;
    makecontext(&routine, leave, 0);
    wipe();
    swapcontext(&back, &routine);
    use((void *)made);
}
char *memory(size_t bytes, int rights) {
    return (char *)mmap(nullptr, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
void exits() { exits_on(memory(1 << 16, PROT_READ | PROT_WRITE), 1 << 16, leaving); }
void small() {
    char *guard = memory(4096 + (1 << 14), PROT_NONE);
    mprotect(guard + 4096, 1 << 14, PROT_READ | PROT_WRITE);
    exits_on(guard + 4096, 1 << 14, leaving_at_once);
}

} // namespace

PROGRAMS({"frame", frame}, {"local", local}, {"awaiting", awaiting}, {"parameter", parameter}, {"exits", exits},
         {"small", small})
