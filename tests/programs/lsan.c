/* Uses LeakSanitizer's interface as a program does that may or may not be run under it: every function is weak.
 *
 * The argument is a case. Blocks are told by their sizes, which `tests/lsan.rs` looks for; each of them is lost before
 * the end. With `plain` as the second argument nothing of the interface is called.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lose.h"

#define WEAK __attribute__((weak))

void __lsan_init(void) WEAK;
void __lsan_disable(void) WEAK;
void __lsan_enable(void) WEAK;
void __lsan_ignore_object(const void *) WEAK;
void __lsan_register_root_region(const void *, size_t) WEAK;
void __lsan_unregister_root_region(const void *, size_t) WEAK;
void __lsan_do_leak_check(void) WEAK;
int __lsan_do_recoverable_leak_check(void) WEAK;

static const char *name;
static int is_plain;

const char *__lsan_default_options(void) { return !strcmp(name, "options") ? "verbosity=0:detect_leaks=0" : ""; }
const char *__lsan_default_suppressions(void) {
    if (!strcmp(name, "suppressed")) return "# known\nleak:lose_known\nleak:lose_never\n";
    return !strcmp(name, "malformed") ? "lose_known" : 0;
}

static void disable(void) { if (__lsan_disable && !is_plain) __lsan_disable(); }
static void enable(void) { if (__lsan_enable && !is_plain) __lsan_enable(); }

static AWAY __attribute__((no_icf)) void lose_known(size_t size) {
    void *volatile block = made(size);
    block = 0;
}

static void *other_thread(void *argument) {
    lose(3333);
    return argument;
}

/* Frees an ignored block and loses another one at its address. */
static AWAY int lose_in_its_place(void) {
    disable();
    void *volatile block = made(7777);
    enable();
    void *before = block;
    free(block);
    block = made(7776);
    int is_same = block == before;
    block = 0;
    return is_same;
}

/* A pool inside of a block: only its program knows that it holds pointers that count. */
static void *pool_at;
static AWAY void fill_pool(void) {
    void **pool = made(5555);
    pool[3] = made(7777);
    if (__lsan_register_root_region && !is_plain) {
        __lsan_register_root_region(pool, 64);
        if (!strcmp(name, "unregistered")) __lsan_unregister_root_region(pool, 64);
    }
    pool_at = (void *)~(size_t)pool;
    pool = 0;
}

static AWAY int check(void) {
    wipe();
    return __lsan_do_recoverable_leak_check && !is_plain && __lsan_do_recoverable_leak_check() != 0;
}

static AWAY int run(void) {
    if (!strcmp(name, "disabled")) {
        disable();
        lose(7777);
        enable();
        lose(3333);
    } else if (!strcmp(name, "nested")) {
        disable();
        disable();
        enable();
        lose(7777);
        enable();
        enable();
        lose(3333);
    } else if (!strcmp(name, "other_thread")) {
        pthread_t thread;
        disable();
        pthread_create(&thread, 0, other_thread, 0);
        pthread_join(thread, 0);
        lose(7777);
        enable();
    } else if (!strcmp(name, "again")) {
        return lose_in_its_place() ? 0 : 2;
    } else if (!strcmp(name, "resized")) {
        disable();
        void *volatile block = realloc(made(100), 7777);
        block = realloc(made(100), 7776);
        enable();
        block = realloc(block, 3333);
        block = 0;
    } else if (!strcmp(name, "held")) {
        void **volatile holder = made(7777);
        holder[5] = made(3333);
        if (__lsan_ignore_object && !is_plain) __lsan_ignore_object(&holder[100]);
        holder = 0;
    } else if (!strcmp(name, "region") || !strcmp(name, "unregistered")) {
        fill_pool();
    } else if (!strcmp(name, "final")) {
        lose(7777);
        wipe();
        if (__lsan_do_leak_check && !is_plain) __lsan_do_leak_check();
        lose(3333);
        wipe();
        if (__lsan_do_leak_check && !is_plain) __lsan_do_leak_check();
        return 3;
    } else if (!strcmp(name, "recoverable")) {
        int before = check();
        lose(7777);
        int after = check();
        printf("%d %d\n", before, after);
        fflush(stdout);
        lose(3333);
    } else if (!strcmp(name, "killed")) {
        lose(7777);
        check();
        __builtin_trap();
    } else if (!strcmp(name, "options")) {
        lose(7777);
        return check();
    } else {
        lose_known(7777);
        lose(3333);
    }
    return 0;
}

int main(int count, char **arguments) {
    name = count > 1 ? arguments[1] : "";
    is_plain = count > 2;
    if (__lsan_init && !is_plain) __lsan_init();
    int status = run();
    wipe();
    return status;
}
