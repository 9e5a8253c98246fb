// With -DLIBRARY an allocator that calls itself by its public names; else a program that is linked with it.
#include <stddef.h>
#include <stdio.h>
#include <string.h>
void *malloc(size_t);
void *realloc(void *, size_t);
void free(void *);
int is_own(void *);
#ifdef LIBRARY
static char memory[1 << 24];
static size_t used;
void *malloc(size_t bytes) {
    size_t *head = (size_t *)(memory + used);
    bytes = bytes + 31 & ~(size_t)15;
    used += bytes + 16;
    head[1] = bytes;
    return head + 2;
}
void free(void *block) {}
void *calloc(size_t count, size_t size) { return malloc(count * size); }
size_t malloc_usable_size(void *block) { return ((size_t *)block)[-1]; }
void *realloc(void *block, size_t bytes) {
    void *other = malloc(bytes);
    size_t old = block ? malloc_usable_size(block) : 0;
    if (block) memcpy(other, block, old < bytes ? old : bytes);
    return other;
}
int is_own(void *block) { return (char *)block >= memory && (char *)block < memory + sizeof memory; }
#else
int main(void) {
    void *block = realloc(malloc(10), 1000);
    printf("%d\n", is_own(block));
    free(block);
    return 0;
}
#endif
