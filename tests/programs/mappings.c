/* Memory that the program maps, moves, advises, locks and unmaps itself; and the break.
 *
 * In this order: 1 MiB private anonymous; advised DONTNEED; its first page locked and unlocked; grown to 2 MiB; unmapped;
 * 64 KiB shared anonymous, unmapped; the first page of the program's file, private and readable, unmapped; the break 8
 * KiB up and down again. No block is allocated.
 *
 * truth: summary: allocations=0 frees=0 allocated_bytes=0 live_at_exit_blocks=0
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "keep.h"

enum { MIB = 1 << 20 };

NOINLINE static int truth_private(void) {
    char *map = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return 0;
    map[0] = 1;
    if (madvise(map, MIB, MADV_DONTNEED) || map[0] != 0) return 0;
    if (mlock(map, 4096) || munlock(map, 4096)) return 0;
    map = mremap(map, MIB, 2 * MIB, MREMAP_MAYMOVE);
    return map != MAP_FAILED && munmap(map, 2 * MIB) == 0;
}

NOINLINE static int truth_shared(void) {
    void *map = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return map != MAP_FAILED && munmap(map, 65536) == 0;
}

NOINLINE static int truth_file(const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    void *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, file, 0);
    return close(file) == 0 && map != MAP_FAILED && munmap(map, 4096) == 0;
}

NOINLINE static int truth_break(void) {
    char *before = sbrk(8192);
    if (before == (void *)-1) return 0;
    before[8191] = 1;
    return sbrk(-8192) == before + 8192 && sbrk(0) == before;
}

int main(int argc, char **argv) {
    if (argc < 1 || !truth_private()) return 1;
    if (!truth_shared()) return 2;
    if (!truth_file(argv[0])) return 3;
    if (!truth_break()) return 4;
    return 0;
}
