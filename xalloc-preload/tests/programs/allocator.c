// What the allocation functions promise, one line for each promise that is broken.
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) do { if (!(condition)) { printf("line %d: %s\n", __LINE__, #condition); failed = 1; } } while (0)
static int failed;

static pthread_key_t keys[40];
static void destroy(void *block) { free(block); free(malloc(100)); }
__attribute__((constructor)) static void take_many_keys(void) {
    for (int i = 0; i < 40; i++) pthread_key_create(&keys[i], destroy);
}
static void *work(void *argument) {
    for (int i = 0; i < 40; i++) pthread_setspecific(keys[i], malloc(10 + i));
    for (int i = 0; i < 1000; i++) free(malloc(i));
    return argument;
}

int main(void) {
    errno = 77;
    void *block = malloc(10);
    CHECK(block && errno == 77);
    CHECK(malloc_usable_size(block) >= 10);
    memset(block, 7, 10);
    block = realloc(block, 300000);
    CHECK(block && ((char *)block)[9] == 7);
    block = realloc(block, 20);
    CHECK(block && ((char *)block)[9] == 7);
    free(block);
    CHECK(errno == 77);
    volatile size_t huge = SIZE_MAX / 2;
    errno = 0;
    CHECK(!malloc(huge) && errno == ENOMEM);
    errno = 0;
    CHECK(!calloc(huge, 4) && errno == ENOMEM);
    errno = 0;
    CHECK(!reallocarray(NULL, huge, 4) && errno == ENOMEM);
    char *zeroes = calloc(100, 7);
    for (int i = 0; i < 700; i++) CHECK(zeroes[i] == 0);
    free(zeroes);
    errno = 5;
    void *aligned = NULL;
    CHECK(posix_memalign(&aligned, 3, 10) == EINVAL && errno == 5);
    for (size_t align = 16; align <= 65536; align *= 2) {
        CHECK(posix_memalign(&aligned, align, 100) == 0 && (uintptr_t)aligned % align == 0);
        free(aligned);
        aligned = aligned_alloc(align, align);
        CHECK(aligned && (uintptr_t)aligned % align == 0);
        free(aligned);
    }
    aligned = valloc(10);
    CHECK((uintptr_t)aligned % 4096 == 0);
    free(aligned);
    free(NULL);
    for (int round = 0; round < 3; round++) {
        pthread_t threads[20];
        for (int i = 0; i < 20; i++) pthread_create(&threads[i], NULL, work, NULL);
        for (int i = 0; i < 20; i++) pthread_join(threads[i], NULL);
    }
    puts("done");
    return failed ? 1 : 42;
}
