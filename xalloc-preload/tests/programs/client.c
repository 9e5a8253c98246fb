/* Calls everything that a program may call of the library, in the wrong order and with the wrong pointers too. It must go
 * on as if nothing had been called, whether it is recorded or not. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../include/xalloc.h"

#define WEAK __attribute__((weak))
void __lsan_init(void) WEAK;
void __lsan_disable(void) WEAK;
void __lsan_enable(void) WEAK;
void __lsan_ignore_object(const void *) WEAK;
void __lsan_register_root_region(const void *, size_t) WEAK;
void __lsan_unregister_root_region(const void *, size_t) WEAK;
void __lsan_do_leak_check(void) WEAK;
int __lsan_do_recoverable_leak_check(void) WEAK;

static void *work(void *argument) {
    char on_stack[16];
    __lsan_init();
    __lsan_enable();
    __lsan_disable();
    free(malloc(10));
    __lsan_ignore_object(0);
    __lsan_ignore_object(on_stack);
    __lsan_ignore_object((void *)0x10);
    void *block = malloc(100);
    __lsan_ignore_object(block);
    free(block);
    __lsan_register_root_region(0, 0);
    __lsan_register_root_region((void *)0x10, 1 << 20);
    __lsan_register_root_region((void *)-64, 1 << 20);
    __lsan_unregister_root_region(on_stack, 8);
    for (int nth = 0; nth < 3000; nth++) __lsan_register_root_region(on_stack, nth);
    for (int nth = 0; nth < 3000; nth++) __lsan_unregister_root_region(on_stack, nth);
    xalloc_resume();
    xalloc_marker("");
    xalloc_marker(0);
    xalloc_pause();
    free(malloc(10));
    if (__lsan_do_recoverable_leak_check() != 0) puts("leaked");
    return argument;
}

static void on_signal(int signal) { work(0), (void)signal; }

int main(void) {
    if (__lsan_init) {
        pthread_t thread;
        work(0);
        pthread_create(&thread, 0, work, 0);
        pthread_join(thread, 0);
        signal(SIGUSR1, on_signal);
        raise(SIGUSR1);
        __lsan_do_leak_check();
        __lsan_do_leak_check();
    }
    puts("done");
    return 5;
}
