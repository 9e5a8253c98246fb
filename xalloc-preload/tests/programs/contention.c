/* Asks for blocks and gives them back, in the sight of a debugger that runs it step by step between two traps. A second
 * thread exists, so that nobody may leave a lock out.
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { PAIRS = 100 };

static size_t bytes;

__attribute__((noinline)) static void ask(void) {
    for (int i = 0; i < PAIRS; i++) {
        void *block = malloc(bytes);
        __asm__ volatile("" ::"r"(block) : "memory");
        free(block);
    }
}

static void *wait_for_ever(void *unused) {
    (void)unused;
    for (;;) pause();
}

int main(int count, char **arguments) {
    pthread_t thread;
    bytes = strtoul(arguments[count - 1], NULL, 10);
    if (pthread_create(&thread, NULL, wait_for_ever, NULL)) return 1;
    /* Volatile, so that both rounds are one call in the program's code. */
    for (volatile int round = 0; round < 2; round++) {
        if (round == 1) __asm__ volatile("int3");
        ask();
    }
    __asm__ volatile("int3");
    ask(); /* The same, called by a line that has not called it before. */
    __asm__ volatile("int3");
    _exit(0);
}
