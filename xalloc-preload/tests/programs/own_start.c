// A program with an allocator of its own, which maps its memory at the first call and cannot be called meanwhile, as with
// a lock held. With -DLIBRARY a library of it, whose constructor makes that call: before ours runs.
#define _GNU_SOURCE
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef LIBRARY
void *made;
__attribute__((constructor)) static void make(void) { made = malloc(10); }
#else
extern void *made;
enum { BYTES = 1 << 24 };
static char *memory;
static size_t used;
static volatile int starting;
void *malloc(size_t bytes) {
    if (starting) _exit(3);
    if (!memory) {
        starting = 1;
        memory = mmap(0, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        starting = 0;
    }
    size_t *head = (size_t *)(memory + used);
    bytes = bytes + 31 & ~(size_t)15;
    used += bytes + 16;
    head[1] = bytes;
    return head + 2;
}
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *block, size_t bytes) {
    void *other = malloc(bytes);
    size_t old = block ? ((size_t *)block)[-1] : 0;
    if (block) memcpy(other, block, old < bytes ? old : bytes);
    return other;
}
int main(void) {
    return (char *)made < memory || (char *)made >= memory + BYTES;
}
#endif
