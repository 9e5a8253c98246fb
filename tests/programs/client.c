/* Talks to its recording by xalloc.h. The argument is a case; blocks are told by their sizes, which `tests/client.rs` looks
 * for. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../xalloc-preload/include/xalloc.h"
#include "lose.h"

static void *other_thread(void *argument) {
    lose(4444);
    return argument;
}

static void *kept[3];

static AWAY void pause_and_lose(void) {
    void *freed_meanwhile = made(1111);
    void *held_meanwhile = made(2222);
    pthread_t thread;
    xalloc_pause();
    xalloc_pause();
    lose(7777);
    free(freed_meanwhile);
    kept[0] = made(3333);
    *(void **)kept[0] = held_meanwhile;
    xalloc_resume();
    pthread_create(&thread, 0, other_thread, 0);
    pthread_join(thread, 0);
    kept[1] = made(5555);
    xalloc_resume();
    xalloc_resume();
    free(kept[1]);
    kept[1] = 0;
    lose(6666);
}

static AWAY void set_marks(void) {
    xalloc_marker("begin");
    kept[0] = made(1000);
    xalloc_marker("half \xc3\xbc");
    free(kept[0]);
    kept[0] = made(2000);
    xalloc_marker("end");
    xalloc_marker("begin");
    char name[2000];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    xalloc_marker(name);
    xalloc_marker(0);
}

/* Functions of their own: on their return the caller's registers are its own again. */
static AWAY void lose_ignored(void) {
    void **ignored = made(7777);
    ignored[0] = made(3333);
    xalloc_ignore((char *)ignored + 100);
}
static AWAY void lose_root(void) {
    void **pool = made(5555);
    pool[4] = made(2222);
    xalloc_register_root((void *)pool, 64);
}

static AWAY void ask(void) {
    static void *region[8];
    int before = xalloc_check_leaks();
    lose_ignored();
    lose_root();
    xalloc_register_root(region, sizeof region);
    xalloc_unregister_root(region, sizeof region);
    wipe();
    printf("%d %d\n", before, xalloc_check_leaks());
}

int main(int count, char **arguments) {
    const char *name = count > 1 ? arguments[1] : "";
    if (!strcmp(name, "pause")) pause_and_lose();
    if (!strcmp(name, "marks")) set_marks();
    if (!strcmp(name, "ask")) ask();
    wipe();
    return 0;
}
