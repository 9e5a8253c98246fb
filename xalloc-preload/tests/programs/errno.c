// Each function succeeds once with errno at 77, and leaves it there.
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static int bad;
#define KEEPS(call) do { errno = 77; (void)(call); if (errno != 77) { printf("%s: errno %d\n", #call, errno); bad++; } } while (0)
static void all(size_t bytes) {
  void *a, *b, *c, *d;
  KEEPS(a = malloc(bytes)); KEEPS(b = calloc(3, bytes)); KEEPS(c = realloc(NULL, bytes));
  KEEPS(c = realloc(c, 3 * bytes)); KEEPS(c = realloc(c, bytes / 2)); KEEPS(c = reallocarray(c, 5, bytes));
  KEEPS(malloc_usable_size(a)); KEEPS(free(a)); KEEPS(free(b)); KEEPS(free(c)); KEEPS(free(NULL));
  KEEPS(a = memalign(64, bytes)); KEEPS(b = aligned_alloc(4096, bytes)); KEEPS(posix_memalign(&c, 256, bytes));
  KEEPS(posix_memalign(&d, 3, bytes)); KEEPS(d = valloc(bytes)); KEEPS(free(d)); KEEPS(d = pvalloc(bytes));
  KEEPS(free(a)); KEEPS(free(b)); KEEPS(free(c)); KEEPS(free(d));
}
static void *thread(void *argument) { for (size_t bytes = 24; bytes < 8 << 20; bytes *= 7) all(bytes); return argument; }
int main(void) {
  pthread_t other;
  thread(0);
  KEEPS(malloc_trim(0)); KEEPS(mallopt(M_TRIM_THRESHOLD, 256 << 10)); KEEPS(mallinfo()); KEEPS(mallinfo2());
  FILE *null = fopen("/dev/null", "w");
  setvbuf(null, NULL, _IOFBF, 1 << 20);
  fputc('x', null);
  KEEPS(malloc_info(0, null));
  char *place;
  KEEPS(place = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  KEEPS(madvise(place, 4096, MADV_DONTNEED)); KEEPS(mlock(place, 4096)); KEEPS(munlock(place, 4096));
  KEEPS(place = mremap(place, 1 << 20, 2 << 20, MREMAP_MAYMOVE)); KEEPS(munmap(place, 2 << 20));
  KEEPS(sbrk(0)); KEEPS(sbrk(4096)); KEEPS(brk(sbrk(0)));
  KEEPS(pthread_create(&other, NULL, thread, NULL)); KEEPS(pthread_join(other, NULL));
  for (int i = 0; i < 20; i++) { KEEPS(pthread_create(&other, NULL, thread, NULL)); KEEPS(pthread_join(other, NULL)); }
  printf("%d bad\n", bad);
  return bad != 0; }
