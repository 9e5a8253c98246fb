/* A program with a malloc of its own, which maps its memory with its lock held, as jemalloc does at its first call. Whoever
 * calls `malloc` out of that `mmap` waits for ever. The first call comes before the constructors of all libraries. */
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *pool;
static size_t used;
enum { POOL_BYTES = 1 << 24 };

void *malloc(size_t size) {
    pthread_mutex_lock(&lock);
    if (!pool) pool = mmap(0, POOL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *block = pool + used;
    used += (size + 31) / 16 * 16;
    pthread_mutex_unlock(&lock);
    return block;
}
void free(void *block) { (void)block; }
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *block, size_t size) {
    void *made = malloc(size);
    return block ? memcpy(made, block, size) : made;
}

static void *early;
static void begin(void) { early = malloc(8); }
__attribute__((section(".preinit_array"), used)) static void (*const first)(void) = begin;

int main(void) {
    char *text = early;
    strcpy(text, "served\n");
    return write(1, text, 7) == 7 ? 0 : 1;
}
