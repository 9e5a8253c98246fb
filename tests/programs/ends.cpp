/* Prints in which order its ends come, and leaves blocks of five classes behind, told by their sizes. */
#include <cstdio>
#include <thread>

#include "keep.h"
#include "lose.h"

struct Says {
    const char *name;
    ~Says() { std::puts(name); }
};

static Says first{"first static"}, second{"second static"};
static void *kept;
static char *inside;

NOINLINE static void leave(void) {
    lose(1111);
    void **ring[2] = {(void **)made(2222), (void **)made(2222)};
    ring[0][0] = ring[1];
    ring[1][0] = ring[0];
    void **lost = (void **)made(3333);
    lost[5] = made(4444);
    inside = (char *)made(5555) + 1001;
    kept = made(6666);
    keep(&inside), keep(&kept);
}

int main() {
    std::atexit([] { std::puts("handler"); });
    thread_local Says of_first{"first thread's"};
    (void)of_first.name;
    std::thread([] { thread_local Says own{"other thread's"}; (void)own.name; }).join();
    leave();
    wipe();
    return 5;
}
