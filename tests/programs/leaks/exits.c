/* Every way out of a program, with a block in a global variable, or lost.
 *
 *   case           keep         lose         what is special
 *   exit_in_thread reachable    definite     a second thread calls exit
 *   last_thread    reachable    definite     main leaves by pthread_exit, the process ends with its last thread
 *   err            reachable    definite     libc's err calls exit
 *   assert         reachable    definite     a failed assertion aborts
 *   at_exit_frees  freed        definite     an exit handler frees it
 *   destructor_frees freed      definite     a destructor of the program frees it
 *   owner          freed        owner_active a function that calls exit had it; lost: it does not free it before
 *   exit_in_handler reachable   definite     a signal handler calls exit
 *   quick_exit_frees freed      definite     a handler of quick_exit frees it
 *   daemon         reachable~unchecked definite~unchecked the command's process is ended by libc's daemon, and the recording with it
 *   exit_group     reachable~unchecked definite~unchecked the system call itself
 *   terminated     reachable~unchecked definite~unchecked SIGTERM, which it leaves alone
 *   killed         reachable~unchecked definite~unchecked SIGKILL
 *   segfault       reachable~unchecked definite~unchecked a fault
 *   replaced       reachable~unchecked definite~unchecked exec: nothing is left to look at
 */
#include "twins.h"
#include <assert.h>
#include <err.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *exiting(void *argument) {
    wipe();
    if (argument) exit(0);
    return 0;
}

static void in_thread(void) {
    pthread_t thread;
    put(&slot);
    wipe();
    pthread_create(&thread, 0, exiting, &slot);
    pthread_join(thread, 0);
}

static void by_last_thread(void) {
    pthread_t thread;
    put(&slot);
    wipe();
    pthread_create(&thread, 0, exiting, 0);
    pthread_exit(0);
}

static void by_err(void) {
    put(&slot);
    wipe();
    errx(0, "leaves");
}

static void by_assertion(void) {
    put(&slot);
    wipe();
    assert(!arguments);
}

static void free_it(void) { free(slot); }

static void at_exit_frees(void) {
    put(&slot);
    atexit(free_it);
}

static int at_end;
__attribute__((destructor)) static void destroy(void) {
    if (at_end) free(slot);
}
static void destructor_frees(void) {
    put(&slot);
    at_end = 1;
}

static AWAY void owning(void) {
    void *made = malloc(SIZE);
    __asm__ volatile("" : "+r"(made));
    if (keeps) free(made);
    made = 0;
    wipe();
    exit(0);
}
static void by_owner(void) { owning(); }

static void leave(int signal) {
    (void)signal;
    exit(0);
}
static void in_handler(void) {
    put(&slot);
    wipe();
    signal(SIGUSR1, leave);
    raise(SIGUSR1);
}

static void quick_exit_frees(void) {
    put(&slot);
    at_quick_exit(free_it);
    wipe();
    quick_exit(0);
}

static void as_daemon(void) {
    put(&slot);
    if (daemon(1, 1)) abort();
}

static void by_system_call(void) {
    put(&slot);
    wipe();
    syscall(SYS_exit_group, 0);
}

static void by_signal(int signal) {
    put(&slot);
    wipe();
    kill(getpid(), signal);
    pause();
}
static void terminated(void) { by_signal(SIGTERM); }
static void killed(void) { by_signal(SIGKILL); }

static void by_fault(void) {
    put(&slot);
    wipe();
    *(volatile char *)slot = *(volatile char *)(uintptr_t)getppid();
}

static void by_exec(void) {
    put(&slot);
    wipe();
    execl("/bin/true", "true", (char *)0);
}

PROGRAMS({"exit_in_thread", in_thread}, {"last_thread", by_last_thread}, {"err", by_err}, {"assert", by_assertion},
         {"at_exit_frees", at_exit_frees}, {"destructor_frees", destructor_frees}, {"owner", by_owner},
         {"exit_in_handler", in_handler}, {"quick_exit_frees", quick_exit_frees}, {"daemon", as_daemon},
         {"exit_group", by_system_call}, {"terminated", terminated}, {"killed", killed}, {"segfault", by_fault},
         {"replaced", by_exec})
