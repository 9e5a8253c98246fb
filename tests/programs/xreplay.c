/* xreplay TRACE RESULT [SUB_HEAP_BYTES]: carries out a trace of memory operations and writes down where every block went.
 *
 * The program allocates nothing for itself: its own data is mapped, and it uses no stdio. What the heap looks like
 * afterwards is therefore the work of the trace alone, and two allocators that follow one placement policy write the
 * same result, byte by byte. The formats are those of xalloc-core/tests/placement/trace.rs.
 *
 * Threads run in lock step: the main thread reads the trace, hands each operation to the thread that it names and waits
 * until that is done. Threads are made and joined by the main thread with small stacks, so that libc's cache of stacks
 * keeps every one of them.
 *
 * With SUB_HEAP_BYTES, which is what huge pages may change, the break begins at a multiple of 2 MiB, so that rounding to
 * huge pages does not depend on where the kernel put it.
 *
 * Without arguments it writes the version of the libc that it runs on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MALLOC, FREE, REALLOC, MEMALIGN, CALLOC, TRIM, MALLOPT, START, EXIT, SBRK, BLOCK, START_BARE };

struct op {
	uint8_t kind;
	uint8_t thread;
	uint16_t unused;
	uint32_t slot;
	uint64_t size;
	uint64_t align;
};

struct result {
	uint64_t place; /* 0 null, 1 main heap in the break, 2 mapped, 3 | arena << 8 | sub-heap << 24, 4 main heap elsewhere */
	uint64_t offset;
	uint64_t usable;
	uint64_t brk;
	uint64_t heap_size;
};

#define SLOTS (1 << 22)
#define THREADS 64

static void **slots;
static uint64_t heap_max = 64UL << 20;
static uint64_t initial_break;
static uint64_t arena_keys[4096];
static unsigned arena_count;
static pthread_t threads[THREADS];
static struct { const struct op *op; struct result *result; int turn; } desks[THREADS];

/* The loader takes the memory for a new thread from the `calloc` that it finds first, which is this one. While a thread
 * is started whose trace has that request as an operation of its own, it is served aside. */
void *__libc_calloc(size_t, size_t);
static int is_starting_bare; /* of the main thread, which alone starts threads while all others wait */

void *calloc(size_t count, size_t size)
{
	if (!is_starting_bare)
		return __libc_calloc(count, size);
	void *at = mmap(0, count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return at == MAP_FAILED ? 0 : at;
}

static void futex_wait(int *word, int value) { syscall(SYS_futex, word, FUTEX_WAIT, value, 0); }
static void futex_wake(int *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1); }

static uint64_t arena_number(uint64_t key)
{
	for (unsigned i = 0; i < arena_count; i++)
		if (arena_keys[i] == key)
			return i;
	arena_keys[arena_count] = key;
	return arena_count++;
}

static void describe(void *block, struct result *result)
{
	result->brk = (uint64_t)sbrk(0) - initial_break;
	if (!block)
		return;
	uint64_t at = (uint64_t)block, head = ((uint64_t *)block)[-1];
	result->usable = malloc_usable_size(block);
	if (head & 2) {
		result->place = 2;
		result->offset = at & 4095;
	} else if (head & 4) {
		uint64_t *heap = (uint64_t *)(at & ~(heap_max - 1)), depth = 0;
		for (uint64_t *p = (uint64_t *)heap[1]; p; p = (uint64_t *)p[1])
			depth++;
		result->place = 3 | arena_number(heap[0]) << 8 | depth << 24;
		result->offset = at & (heap_max - 1);
		result->heap_size = heap[2];
	} else if (at >= initial_break && at < (uint64_t)sbrk(0)) {
		result->place = 1;
		result->offset = at - initial_break;
	} else {
		result->place = 4;
		result->offset = at & 4095;
	}
}

static void carry_out(const struct op *op, struct result *result)
{
	void **slot = &slots[op->slot % SLOTS], *block;
	switch (op->kind) {
	case MALLOC:
		*slot = malloc(op->size);
		break;
	case FREE:
		free(*slot);
		*slot = 0;
		break;
	case REALLOC:
		block = realloc(*slot, op->size);
		if (block || !op->size)
			*slot = block;
		break;
	case MEMALIGN:
		*slot = memalign(op->align, op->size);
		break;
	case CALLOC:
		*slot = calloc(1, op->size);
		break;
	case TRIM:
		result->heap_size = malloc_trim(op->size);
		break;
	case MALLOPT:
		result->heap_size = mallopt((int)op->size, (int)op->align);
		break;
	case SBRK:
		sbrk((intptr_t)op->size);
		break;
	case BLOCK: { /* a page right behind the break, so that it cannot grow */
		uint64_t end = ((uint64_t)sbrk(0) + 4095) & ~4095UL;
		mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		break;
	}
	}
	describe(*slot, result);
}

static void *serve(void *arg)
{
	long me = (long)arg;
	for (;;) {
		while (__atomic_load_n(&desks[me].turn, __ATOMIC_ACQUIRE) != 1)
			futex_wait(&desks[me].turn, 0);
		int last = desks[me].op->kind == EXIT;
		if (!last)
			carry_out(desks[me].op, desks[me].result);
		__atomic_store_n(&desks[me].turn, 0, __ATOMIC_RELEASE);
		futex_wake(&desks[me].turn);
		if (last)
			return 0;
	}
}

static void hand_over(const struct op *op, struct result *result)
{
	int *turn = &desks[op->thread].turn;
	desks[op->thread].op = op;
	desks[op->thread].result = result;
	__atomic_store_n(turn, 1, __ATOMIC_RELEASE);
	futex_wake(turn);
	while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != 0)
		futex_wait(turn, 1);
}

static void *map(size_t len)
{
	void *at = mmap(0, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		_exit(3);
	return at;
}

int main(int argc, char **argv)
{
	if (argc == 1) {
		const char *version = gnu_get_libc_version();
		return write(1, version, strlen(version)) < 0;
	}
	if (argc != 3 && argc != 4)
		return 2;
	uint64_t unit = 4096;
	if (argc == 4) {
		unit = 2UL << 20;
		heap_max = 0;
		for (const char *digit = argv[3]; *digit; digit++)
			heap_max = heap_max * 10 + (uint64_t)(*digit - '0');
	}
	/* glibc 2.31 has moved the break some bytes for its copy of GLIBC_TUNABLES */
	sbrk(-(uint64_t)sbrk(0) & (unit - 1));
	initial_break = (uint64_t)sbrk(0);
	int in = open(argv[1], O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (in < 0 || fstat(in, &st))
		return 2;
	size_t count = st.st_size / sizeof(struct op);
	slots = map(SLOTS * sizeof(void *));
	struct result *results = map(count * sizeof(struct result) + 1);
	const struct op *ops = mmap(0, st.st_size, PROT_READ, MAP_PRIVATE, in, 0);
	if (ops == MAP_FAILED)
		return 3;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (size_t i = 0; i < count; i++) {
		const struct op *op = &ops[i];
		if (op->kind == START || op->kind == START_BARE) {
			is_starting_bare = op->kind == START_BARE;
			if (pthread_create(&threads[op->thread], &attr, serve, (void *)(long)op->thread))
				return 4;
			is_starting_bare = 0;
			describe(0, &results[i]);
		} else if (op->kind == EXIT) {
			hand_over(op, &results[i]);
			pthread_join(threads[op->thread], 0);
			describe(0, &results[i]);
		} else if (op->thread == 0) {
			carry_out(op, &results[i]);
		} else {
			hand_over(op, &results[i]);
		}
	}
	int out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	size_t left = count * sizeof(struct result);
	const char *next = (const char *)results;
	while (left > 0) {
		ssize_t n = write(out, next, left);
		if (n <= 0)
			return 5;
		next += n;
		left -= n;
	}
	_exit(0);
}
