/* api CASE: calls malloc's functions in one of the situations that their documentation speaks of, and prints what they
 * answer, so that two allocators can be compared word by word. Nothing that is printed depends on addresses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile sink;

static const char *name_of(int error)
{
	return error == 0 ? "0" : error == ENOMEM ? "ENOMEM" : error == EINVAL ? "EINVAL" : error == 77 ? "77" : "?";
}

static void say(const char *what, void *block)
{
	/* A call that succeeds may leave anything in errno, and libc's sometimes does. */
	int error = block ? 0 : errno;
	printf("%s: %s errno %s usable %zu\n", what, block ? "block" : "null", name_of(error), malloc_usable_size(block));
	errno = 0;
}

static void alignment(void)
{
	for (size_t size = 0; size < 5000; size += 37) {
		void *blocks[] = {malloc(size), calloc(1, size), realloc(0, size), memalign(64, size), valloc(size), pvalloc(size)};
		size_t aligns[] = {16, 16, 16, 64, 4096, 4096};
		for (int i = 0; i < 6; i++) {
			if ((uintptr_t)blocks[i] % aligns[i] || malloc_usable_size(blocks[i]) < size)
				printf("wrong: %d of %zu\n", i, size);
			free(blocks[i]);
		}
	}
	for (size_t align = 1; align < 1 << 20; align *= 2) {
		void *block = 0;
		int error = posix_memalign(&block, align, 100);
		printf("posix_memalign %zu: %s %d\n", align, name_of(error), block && (uintptr_t)block % align == 0);
		if (!error)
			free(block);
		block = memalign(align + 1, 10);
		if (align < 4096) /* beyond a page the size depends on where the kernel puts the memory */
			say("memalign of no power of two", block);
		printf("aligned %d\n", (uintptr_t)block % align == 0);
		free(block);
	}
	for (size_t align = 0; align < 100; align += 7) {
		void *block = (void *)1;
		int error = posix_memalign(&block, align, 100);
		printf("posix_memalign %zu: %s %d\n", align, name_of(error), block == (void *)1);
		void *aligned = aligned_alloc(align, 100);
		say("aligned_alloc", aligned);
		free(aligned);
	}
}

static void zero_size(void)
{
	void *a = malloc(0), *b = malloc(0), *c = calloc(0, 10), *d = calloc(10, 0), *e = memalign(64, 0);
	printf("distinct: %d\n", a != b && b != c && c != d && d != e);
	say("malloc(0)", a);
	say("calloc(0, 10)", c);
	say("memalign(64, 0)", e);
	void *f = realloc(a, 0);
	say("realloc(p, 0)", f);
	f = realloc(0, 0);
	say("realloc(0, 0)", f);
	f = reallocarray(f, 0, 10);
	say("reallocarray(p, 0, 10)", f);
	free(b), free(c), free(d), free(e);
}

static void errno_kept(void)
{
	errno = 77;
	void *block = malloc(100);
	block = realloc(block, 100000);
	block = realloc(block, 10);
	void *large = calloc(1, 1 << 20);
	free(block), free(large), free(0);
	malloc_trim(0);
	printf("errno %s\n", name_of(errno));
}

static void too_much(void)
{
	errno = 0;
	void *kept = malloc(40);
	memset(kept, 7, 40);
	say("malloc(PTRDIFF_MAX + 1)", sink = malloc((size_t)PTRDIFF_MAX + 1));
	say("malloc(SIZE_MAX)", sink = malloc(SIZE_MAX));
	say("malloc(PTRDIFF_MAX)", sink = malloc(PTRDIFF_MAX));
	say("malloc(PTRDIFF_MAX - 4096)", sink = malloc(PTRDIFF_MAX - 4096));
	say("calloc(SIZE_MAX / 2, 3)", sink = calloc(SIZE_MAX / 2, 3));
	say("calloc(1 << 33, 1 << 33)", sink = calloc(1UL << 33, 1UL << 33));
	say("reallocarray", sink = reallocarray(0, SIZE_MAX / 2, 3));
	void *moved = realloc(kept, (size_t)PTRDIFF_MAX + 1);
	printf("realloc: %d errno %s kept %d\n", moved != 0, name_of(errno), *(char *)kept);
	errno = 0;
	say("memalign(SIZE_MAX, 1)", sink = memalign(SIZE_MAX, 1));
	say("memalign(1 << 63, 1)", sink = memalign(1UL << 63, 1));
	say("memalign(1 << 62, 1)", sink = memalign(1UL << 62, 1));
	say("memalign(64, SIZE_MAX)", sink = memalign(64, SIZE_MAX));
	say("aligned_alloc(64, SIZE_MAX)", sink = aligned_alloc(64, SIZE_MAX));
	say("valloc(SIZE_MAX)", sink = valloc(SIZE_MAX));
	say("pvalloc(SIZE_MAX)", sink = pvalloc(SIZE_MAX));
	void *block = (void *)1;
	printf("posix_memalign: %s %d\n", name_of(posix_memalign(&block, 64, SIZE_MAX)), block == (void *)1);
	free(kept);
}

/* Fills what is left, frees it, and asks again. */
static void exhaust(const char *what)
{
	static void *blocks[100000];
	size_t count = 0;
	errno = 0;
	while (count < 100000 && (blocks[count] = malloc(100000)))
		count++;
	printf("%s: ended %d errno %s\n", what, count < 100000, name_of(errno));
	say("large", sink = malloc(1 << 28));
	say("realloc", sink = count ? realloc(blocks[0], 1 << 28) : 0);
	while (count)
		free(blocks[--count]);
	errno = 0;
	void *again = malloc(100000);
	say("again", again);
	free(again);
}

static void limit(int which, size_t bytes)
{
	struct rlimit all;
	getrlimit(which, &all);
	struct rlimit limit = {bytes, all.rlim_max};
	setrlimit(which, &limit);
}

static void blocked_break(void)
{
	void *first = malloc(100);
	uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~4095UL;
	mmap((void *)end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	errno = 0;
	for (int i = 0; i < 30; i++)
		say("blocked", sink = malloc(100000));
	free(first);
}

static void map_count(void)
{
	/* Neighbours of different rights cannot be one mapping; in the end there can be no more of them. */
	size_t pages = 0;
	errno = 0;
	for (;; pages++) {
		int rights = pages % 2 ? PROT_READ : PROT_NONE;
		if (mmap(0, 4096, rights, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
			break;
		if (pages > 300000) {
			puts("skipped");
			return;
		}
	}
	printf("no more mappings: errno %s\n", name_of(errno));
	errno = 0;
	void *block = malloc(1 << 20);
	say("malloc(1 MiB)", block);
	free(block);
	say("malloc(100)", sink = malloc(100));
}

static void *fail_in_thread(void *arg)
{
	errno = 0;
	void *block = malloc(SIZE_MAX);
	int failed = errno;
	errno = 77;
	void *good = malloc(200);
	free(good);
	((int *)arg)[0] = block == 0 && failed == ENOMEM && errno == 77;
	return 0;
}

static void threads_fail(void)
{
	pthread_t threads[8];
	int good[8][16] = {0};
	for (int i = 0; i < 8; i++)
		pthread_create(&threads[i], 0, fail_in_thread, good[i]);
	for (int i = 0; i < 8; i++) {
		pthread_join(threads[i], 0);
		printf("thread %d: %d\n", i, good[i][0]);
	}
	printf("errno of main %s\n", name_of(errno));
}

static pthread_key_t key;
static int destroyed;

static void destroy(void *block)
{
	memset(block, 1, 100);
	free(block);
	free(calloc(3, 1000));
	__atomic_fetch_add(&destroyed, 1, __ATOMIC_RELAXED);
}

static void *with_key(void *arg)
{
	pthread_setspecific(key, malloc(100));
	return arg;
}

static void thread_exit_frees(void)
{
	pthread_key_create(&key, destroy);
	for (int i = 0; i < 200; i++) {
		pthread_t thread;
		pthread_create(&thread, 0, with_key, 0);
		pthread_join(thread, 0);
	}
	struct mallinfo2 info = mallinfo2();
	printf("destroyed %d used %zu free %zu\n", destroyed, info.uordblks, info.fordblks);
}

static void show_state(void)
{
	struct mallinfo2 i = mallinfo2();
	printf("%zu %zu %zu %zu %zu %zu %zu %zu %zu %zu\n", i.arena, i.ordblks, i.smblks, i.hblks, i.hblkhd, i.usmblks,
	       i.fsmblks, i.uordblks, i.fordblks, i.keepcost);
	struct mallinfo j = mallinfo();
	printf("%d %d %d %d %d %d %d %d %d %d\n", j.arena, j.ordblks, j.smblks, j.hblks, j.hblkhd, j.usmblks, j.fsmblks,
	       j.uordblks, j.fordblks, j.keepcost);
	fflush(stdout);
	malloc_info(0, stdout);
	fflush(stdout);
	malloc_stats();
	printf("malloc_info(1): %d\n", malloc_info(1, stdout));
}

static void *churn(void *arg)
{
	static void *blocks[4][400];
	void **mine = blocks[(long)arg];
	unsigned state = 7 + (long)arg;
	for (int i = 0; i < 20000; i++) {
		state = state * 1103515245 + 12345;
		unsigned at = (state >> 8) % 400, size = (state >> 16) % ((state & 64) ? 9000 : 200);
		free(mine[at]);
		mine[at] = malloc(size);
	}
	return 0;
}

static void state_is_told(void)
{
	show_state();
	churn(0);
	sink = malloc(300000);
	show_state();
	for (long i = 1; i < 4; i++) { /* one after the other: which arena serves whom is then certain */
		pthread_t thread;
		pthread_create(&thread, 0, churn, (void *)i);
		pthread_join(thread, 0);
	}
	show_state();
	printf("malloc_trim: %d\n", malloc_trim(0));
	printf("malloc_trim: %d\n", malloc_trim(0));
	show_state();
	free(sink);
	printf("mallopt: %d %d %d\n", mallopt(M_MXFAST, 1000), mallopt(M_MXFAST, 64), mallopt(99, 1));
	show_state();
}

static void perturbed(void)
{
	mallopt(M_PERTURB, 0x5a);
	unsigned char *block = malloc(200);
	printf("fresh %x %x\n", block[0], block[199]);
	free(block);
	printf("freed %x %x\n", block[16], block[199]);
	block = calloc(1, 200);
	printf("cleared %x %x\n", block[0], block[199]);
	block = realloc(block, 5000);
	printf("grown %x %x\n", block[199], block[4999]);
}

static void on_alarm(int signal)
{
	void *block = malloc(100);
	if (block)
		memset(block, signal, 100);
	free(block);
	block = malloc(5000);
	free(block);
}

static void on_alarm_fork(int signal)
{
	(void)signal;
	pid_t child = fork();
	if (!child) {
		for (int i = 0; i < 100; i++)
			free(malloc(i * 100));
		_exit(0);
	}
	int status = 1;
	waitpid(child, &status, 0);
	if (status)
		_exit(9);
}

/* The timer is armed anew for each interruption: a handler that takes longer than its period must not starve the rest. */
static void interrupted(void (*handler)(int), int times)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &action, 0);
	for (int i = 0; i < times; i++) {
		struct itimerval once = {{0, 0}, {0, 100 + i % 7 * 30}};
		setitimer(ITIMER_REAL, &once, 0);
		churn(0);
	}
	puts("done");
}

static int stop;

static void *print_and_churn(void *arg)
{
	FILE *nowhere = fopen("/dev/null", "w");
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		churn(arg);
		fprintf(nowhere, "%p %d\n", arg, stop);
		FILE *other = fopen("/dev/null", "w");
		fclose(other);
	}
	fclose(nowhere);
	return 0;
}

static void fork_beside_stdio(void)
{
	pthread_t threads[3];
	for (long i = 0; i < 3; i++)
		pthread_create(&threads[i], 0, print_and_churn, (void *)(i + 1));
	for (int i = 0; i < 60; i++) {
		fflush(stdout);
		pid_t child = fork();
		if (!child) {
			FILE *nowhere = fopen("/dev/null", "w");
			fprintf(nowhere, "%d", i);
			fclose(nowhere);
			churn(0);
			exit(0);
		}
		int status = 1;
		waitpid(child, &status, 0);
		if (status)
			printf("child %d ended with %d\n", i, status);
	}
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], 0);
	puts("done");
}

int main(int argc, char **argv)
{
	const char *name = argv[1];
	(void)argc;
	if (!strcmp(name, "alignment"))
		alignment();
	else if (!strcmp(name, "zero-size"))
		zero_size();
	else if (!strcmp(name, "errno-kept"))
		errno_kept();
	else if (!strcmp(name, "too-much"))
		too_much();
	else if (!strcmp(name, "address-space"))
		limit(RLIMIT_AS, 1500UL << 20), exhaust("RLIMIT_AS");
	else if (!strcmp(name, "data"))
		limit(RLIMIT_DATA, 300UL << 20), exhaust("RLIMIT_DATA");
	else if (!strcmp(name, "blocked-break"))
		blocked_break();
	else if (!strcmp(name, "map-count"))
		map_count();
	else if (!strcmp(name, "threads-fail"))
		threads_fail();
	else if (!strcmp(name, "thread-exit"))
		thread_exit_frees();
	else if (!strcmp(name, "state"))
		state_is_told();
	else if (!strcmp(name, "perturb"))
		perturbed();
	else if (!strcmp(name, "malloc-in-handler"))
		interrupted(on_alarm, 300);
	else if (!strcmp(name, "fork-in-handler"))
		interrupted(on_alarm_fork, 100);
	else if (!strcmp(name, "fork-beside-stdio"))
		fork_beside_stdio();
	else
		return 2;
	return 0;
}
