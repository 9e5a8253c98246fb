/* Blocks of known number and size by site, to be estimated from a few of them.
 *
 * sites:    `tiny` 200,000 blocks of 24 bytes, each freed before the next allocation; `middle` 20,000 of 1,000, kept;
 *           `large` 400 of 50,000, every second one freed at the end. Prints a sum over the distances of all blocks from
 *           the first one, which is the same wherever the heap lies.
 * exact:    as sites, while every floating-point result that is not exact is a signal.
 * kinds:    `cleared` 20,000 by calloc(10, 30), `aligned` 20,000 of 200 by posix_memalign to 64: all kept.
 * chains:   `chain` 500 blocks that grow by realloc from 100 to 10,000 bytes in steps of 100: 50,000 allocations of
 *           252,500,000 bytes in all; the last ones are freed, but for 100 of them.
 * resized:  `brief` 50,000 blocks of 900 bytes, each of which `longer` makes 2,000 and which is freed then.
 * threads:  8 threads of 20,000 blocks of 300 bytes each by `shared`, which the first thread frees but for every tenth.
 * one:      a single block by `shared`, kept.
 * refused:  100 blocks of 1,000 bytes by `middle`; more where the system gives no memory, until one is refused; and 20,000
 *           more, none of which is served.
 * unmarked: one block of 1 MiB, freed; then 10 of 1,000 bytes by `middle` where there is memory for them, and not for 2 MiB
 *           more.
 * fork:     `before` 20,000 blocks of 500 bytes; the child frees half of them and makes 10,000 of 700 by `after`.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xmmintrin.h>

#define SITE __attribute__((noinline, noclone)) static void *

static void *kept[160000];
static volatile unsigned long touched;

static void *used(void *block) {
    touched += (unsigned long)(uintptr_t)block;
    return block;
}

SITE tiny(void) { return used(malloc(24)); }
SITE middle(void) { return used(malloc(1000)); }
SITE large(void) { return used(malloc(50000)); }
SITE cleared(void) { return used(calloc(10, 30)); }
SITE chain(void *block, size_t bytes) { return used(realloc(block, bytes)); }
SITE brief(void) { return used(malloc(900)); }
SITE longer(void *block) { return used(realloc(block, 2000)); }
SITE shared(void) { return used(malloc(300)); }
SITE before(void) { return used(malloc(500)); }
SITE after(void) { return used(malloc(700)); }

SITE aligned(void) {
    void *block = NULL;
    return posix_memalign(&block, 64, 200) ? NULL : used(block);
}

static void sites(void) {
    char *first = NULL;
    uint64_t sum = 0;
    for (int i = 0; i < 20000; i++) {
        for (int j = 0; j < 10; j++) {
            char *block = tiny();
            if (!first) first = block;
            sum = sum * 31 + (uint64_t)(block - first);
            free(block);
        }
        kept[i] = middle();
        sum = sum * 31 + (uint64_t)((char *)kept[i] - first);
    }
    void *last[400];
    for (int i = 0; i < 400; i++) {
        last[i] = large();
        sum = sum * 31 + (uint64_t)((char *)last[i] - first);
    }
    for (int i = 0; i < 400; i += 2) free(last[i]);
    dprintf(1, "%llx\n", (unsigned long long)sum);
}

static void exact(void) {
    _mm_setcsr(_mm_getcsr() & ~(unsigned)(_MM_EXCEPT_MASK | _MM_MASK_MASK));
    sites();
    if (_mm_getcsr() & _MM_EXCEPT_MASK) abort();
}

static void kinds(void) {
    for (int i = 0; i < 20000; i++) {
        kept[2 * i] = cleared();
        for (int byte = 0; byte < 300; byte++)
            if (((char *)kept[2 * i])[byte]) abort();
        memset(kept[2 * i], 1, 300);
        kept[2 * i + 1] = aligned();
        if ((uintptr_t)kept[2 * i + 1] % 64) abort();
    }
}

static void chains(void) {
    for (int i = 0; i < 500; i++) {
        char *block = NULL;
        for (size_t bytes = 100; bytes <= 10000; bytes += 100) {
            block = chain(block, bytes);
            block[bytes - 1] = (char)i;
            if (bytes > 100 && block[bytes - 101] != (char)i) abort();
        }
        if (i < 100) kept[i] = block;
        else free(block);
    }
}

static void resized(void) {
    for (int i = 0; i < 50000; i++) free(longer(brief()));
}

static void *fill(void *part) {
    for (int i = 0; i < 20000; i++) ((void **)part)[i] = shared();
    return NULL;
}

static void threads(void) {
    pthread_t all[8];
    for (int i = 0; i < 8; i++)
        if (pthread_create(&all[i], NULL, fill, kept + i * 20000)) abort();
    for (int i = 0; i < 8; i++) pthread_join(all[i], NULL);
    for (int i = 0; i < 160000; i++)
        if (i % 10) free(kept[i]);
}

/* Leaves room for so much more address space; or for as much as before, by a negative number. */
static void limit(long room_bytes) {
    static struct rlimit before;
    struct rlimit now;
    char sizes[64] = "";
    int file = open("/proc/self/statm", O_RDONLY);
    if (file < 0 || read(file, sizes, sizeof sizes - 1) < 1 || close(file)) abort();
    if (!before.rlim_max && getrlimit(RLIMIT_AS, &before)) abort();
    now = before;
    if (room_bytes >= 0) now.rlim_cur = strtoul(sizes, NULL, 10) * 4096 + (rlim_t)room_bytes;
    if (setrlimit(RLIMIT_AS, &now)) abort();
}

static void refused(void) {
    for (int i = 0; i < 100; i++) kept[i] = middle();
    limit(0);
    while (middle()) continue;
    for (int i = 0; i < 20000; i++)
        if (middle()) abort();
    limit(-1);
}

static void unmarked(void) {
    /* A mapping of its own, and all that recording needs else. */
    free(used(malloc(1 << 20)));
    limit(1 << 20);
    for (int i = 0; i < 10; i++)
        if (!(kept[i] = middle())) abort();
    limit(-1);
    for (int i = 0; i < 10; i++) free(kept[i]);
}

static void forks(void) {
    for (int i = 0; i < 20000; i++) kept[i] = before();
    pid_t child = fork();
    if (child < 0) abort();
    if (child == 0) {
        for (int i = 0; i < 20000; i += 2) free(kept[i]);
        for (int i = 0; i < 10000; i++) kept[2 * i] = after();
        exit(0);
    }
    int status = 0;
    if (waitpid(child, &status, 0) != child || status) abort();
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "sites")) sites();
    else if (!strcmp(what, "exact")) exact();
    else if (!strcmp(what, "kinds")) kinds();
    else if (!strcmp(what, "chains")) chains();
    else if (!strcmp(what, "resized")) resized();
    else if (!strcmp(what, "threads")) threads();
    else if (!strcmp(what, "one")) kept[0] = shared();
    else if (!strcmp(what, "refused")) refused();
    else if (!strcmp(what, "unmarked")) unmarked();
    else if (!strcmp(what, "fork")) forks();
    else return 1;
    return 0;
}
