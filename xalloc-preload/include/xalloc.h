/* xalloc.h: what a program may say to the recording that it is part of.
 *
 * Include this file or copy it into your project; there is nothing to link. A program that is not recorded, or not linked
 * dynamically, finds nobody to talk to, and every function here does nothing. With XALLOC_DISABLED defined they are empty
 * from the start.
 *
 * What each function means for the recording: docs/client.md. Any thread may call any of them. In a signal handler a first
 * call looks the function up by dlsym, and a mark that interrupts malloc is left out.
 *
 * This file may be used under the terms of either Apache-2.0 or MIT, as all of xalloc.
 */
#ifndef XALLOC_H
#define XALLOC_H

#include <stddef.h>

#if defined(__linux__) && defined(__GNUC__) && !defined(XALLOC_DISABLED)

#ifdef __cplusplus
extern "C" {
#endif
/* dlsym by a name of our own: weak, so that a static program links without it, and not at odds with <dlfcn.h>. */
extern void *xalloc_dlsym_(void *, const char *) __asm__("dlsym") __attribute__((__weak__));
#ifdef __cplusplus
}
#endif

/* Looks a function of the library up once; `function` is where its address is kept. */
static inline void xalloc_find_(const char *name, void **function, int *is_found) {
    if (!__atomic_load_n(is_found, __ATOMIC_ACQUIRE)) {
        void *found = xalloc_dlsym_ ? xalloc_dlsym_(NULL, name) : NULL;
        __atomic_store_n(function, found, __ATOMIC_RELAXED);
        __atomic_store_n(is_found, 1, __ATOMIC_RELEASE);
    }
}

/* Declares `ask`, of that type, as the library's function of that name, or as NULL. */
#define XALLOC_ASK_(type, parameters, name)                                                    \
    static void *xalloc_function_;                                                             \
    static int xalloc_is_found_;                                                               \
    type(*ask) parameters;                                                                     \
    xalloc_find_(name, &xalloc_function_, &xalloc_is_found_);                                  \
    *(void **)(&ask) = __atomic_load_n(&xalloc_function_, __ATOMIC_RELAXED)

#else

#define XALLOC_ASK_(type, parameters, name) type(*ask) parameters = NULL

#endif

/* Sets a mark that `events` and `timeline` show, and by which moments can be named. At most 1,000 bytes of the name count. */
static inline void xalloc_marker(const char *name) {
    XALLOC_ASK_(void, (const char *), "__xalloc_marker");
    if (ask) ask(name);
}

/* Begins a pause, for all threads: allocations are counted, but not told apart by call stack, and are no leaks. Pauses
 * nest. */
static inline void xalloc_pause(void) {
    XALLOC_ASK_(void, (void), "__xalloc_pause");
    if (ask) ask();
}

/* Ends the pause that xalloc_pause began last. */
static inline void xalloc_resume(void) {
    XALLOC_ASK_(void, (void), "__xalloc_resume");
    if (ask) ask();
}

/* Makes the block that `pointer` points into, and what it holds, no leaks. */
static inline void xalloc_ignore(const void *pointer) {
    XALLOC_ASK_(void, (const void *), "__lsan_ignore_object");
    if (ask) ask(pointer);
}

/* Checks for leaks at once. Not 0: blocks are leaked; 0: none are, or the program is not recorded or not checked. */
static inline int xalloc_check_leaks(void) {
    XALLOC_ASK_(int, (void), "__lsan_do_recoverable_leak_check");
    return ask ? ask() : 0;
}

/* Makes pointers in the `size` bytes from `start` on count, wherever they lie. */
static inline void xalloc_register_root(const void *start, size_t size) {
    XALLOC_ASK_(void, (const void *, size_t), "__lsan_register_root_region");
    if (ask) ask(start, size);
}

/* Takes xalloc_register_root of the same range back. */
static inline void xalloc_unregister_root(const void *start, size_t size) {
    XALLOC_ASK_(void, (const void *, size_t), "__lsan_unregister_root_region");
    if (ask) ask(start, size);
}

#undef XALLOC_ASK_

#endif
