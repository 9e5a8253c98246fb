/* stress SECONDS SEED: eight threads that allocate, resize, hand over and free blocks whose contents they check.
 *
 * Every block is filled with a pattern of its own and looked at before it changes or goes. Threads take blocks from each
 * other through a table of places; they die after some thousand operations and leave their blocks to whoever comes next;
 * and now and then one forks: the child looks at its blocks, allocates, frees and ends.
 * A pattern that is not found, an address that is not aligned, or a child that does not end well ends the program with 1.
 */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, OWN = 400, SHARED = 512, GENERATION = 20000 };

struct block {
	size_t bytes;
	uint64_t pattern;
	unsigned char text[];
};

static _Atomic(struct block *) shared[SHARED];
static atomic_ulong verified, children, generations;
static time_t end;

static uint64_t next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static void fail(const char *what)
{
	char line[80];
	int length = snprintf(line, sizeof line, "stress: %s\n", what);
	write(2, line, length);
	_exit(1);
}

static void fill(struct block *block, size_t bytes, uint64_t pattern)
{
	block->bytes = bytes;
	block->pattern = pattern;
	memset(block->text, (int)pattern, bytes - sizeof *block);
}

static void verify(const struct block *block, size_t bytes)
{
	size_t length = bytes - sizeof *block;
	unsigned char byte = (unsigned char)block->pattern;
	if (block->bytes < bytes)
		fail("a size was overwritten");
	if (length && (block->text[0] != byte || memcmp(block->text, block->text + 1, length - 1)))
		fail("contents were overwritten");
	atomic_fetch_add_explicit(&verified, 1, memory_order_relaxed);
}

static size_t size(uint64_t *seed)
{
	switch (next(seed) % 64) {
	case 0: return 200000 + next(seed) % 100000;
	case 1: case 2: case 3: return 5000 + next(seed) % 40000;
	case 4: case 5: case 6: case 7: case 8: case 9: return 1000 + next(seed) % 3000;
	default: return sizeof(struct block) + next(seed) % 600;
	}
}

static struct block *make(uint64_t *seed)
{
	size_t bytes = size(seed), align = 16;
	struct block *block;
	switch (next(seed) % 8) {
	case 0:
		block = calloc(1, bytes);
		if (block && (block->bytes || block->text[bytes - sizeof *block - 1]))
			fail("calloc did not clear");
		break;
	case 1:
		align = 16u << next(seed) % 7;
		block = memalign(align, bytes);
		break;
	default:
		block = malloc(bytes);
	}
	if (!block)
		fail("there is no memory");
	if ((uintptr_t)block % align || malloc_usable_size(block) < bytes)
		fail("a block is not as it was asked for");
	fill(block, bytes, next(seed));
	return block;
}

static void drop(struct block *block)
{
	if (!block)
		return;
	verify(block, block->bytes);
	free(block);
}

static struct block *resize(struct block *block, uint64_t *seed)
{
	size_t bytes = size(seed), kept = block->bytes < bytes ? block->bytes : bytes;
	verify(block, block->bytes);
	block = realloc(block, bytes);
	if (!block)
		fail("there is no memory");
	verify(block, kept);
	fill(block, bytes, next(seed));
	return block;
}

static void look_from_a_child(struct block **own, uint64_t *seed)
{
	pid_t child = fork();
	if (child < 0)
		return;
	if (child == 0) {
		for (int i = 0; i < OWN; i++)
			if (own[i])
				i % 2 ? drop(own[i]) : verify(own[i], own[i]->bytes);
		for (int i = 0; i < 2000; i++)
			drop(make(seed));
		_exit(0);
	}
	int status;
	if (waitpid(child, &status, 0) != child || status != 0)
		fail("a child did not end well");
	atomic_fetch_add(&children, 1);
}

static void *work(void *argument)
{
	uint64_t seed = (uintptr_t)argument;
	struct block *own[OWN] = {0};
	for (int i = 0; i < GENERATION && time(NULL) < end; i++) {
		struct block **place = &own[next(&seed) % OWN];
		uint64_t what = next(&seed) % 100;
		if (what < 10) { /* hand over, and take what another thread left */
			*place = atomic_exchange(&shared[next(&seed) % SHARED], *place);
			if (*place)
				verify(*place, (*place)->bytes);
		} else if (!*place) {
			*place = make(&seed);
		} else if (what < 20) {
			*place = resize(*place, &seed);
		} else {
			drop(*place);
			*place = what < 60 ? make(&seed) : NULL;
		}
		if (what == 99 && next(&seed) % 200 == 0)
			look_from_a_child(own, &seed);
	}
	/* The thread dies; who finds its blocks frees them. */
	for (int i = 0; i < OWN; i++)
		if (own[i])
			drop(atomic_exchange(&shared[next(&seed) % SHARED], own[i]));
	atomic_fetch_add(&generations, 1);
	return NULL;
}

static void *keep_going(void *argument)
{
	uint64_t seed = (uintptr_t)argument;
	while (time(NULL) < end) {
		pthread_t worker;
		if (pthread_create(&worker, NULL, work, (void *)(uintptr_t)(next(&seed) | 1)))
			fail("there is no thread");
		pthread_join(worker, NULL);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	long seconds = atol(argv[1]);
	uint64_t seed = strtoull(argv[2], NULL, 10);
	pthread_t threads[THREADS];
	end = time(NULL) + seconds;
	alarm((unsigned)seconds + 120); /* a lock that nobody gives back */
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, keep_going, (void *)(uintptr_t)(next(&seed) | 1)))
			fail("there is no thread");
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < SHARED; i++)
		drop(shared[i]);
	printf("%lu blocks verified, %lu generations of threads, %lu children\n", verified, generations, children);
	return 0;
}
