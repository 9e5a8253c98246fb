/* Run with MALLOC_PERTURB_ set: what lies in blocks before the program writes to them, and after it gave them back.
 *
 * Each line says which block it is, and runs of equal bytes as `count*byte`. Left out is where malloc keeps links, which are
 * addresses, in what is free or was. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Called through volatile pointers, so that no compiler knows what they do. */
static void *(*volatile take)(size_t) = malloc;
static void *(*volatile take_cleared)(size_t, size_t) = calloc;
static void *(*volatile take_aligned)(size_t, size_t) = memalign;
static void *(*volatile resize)(void *, size_t) = realloc;
static void (*volatile give)(void *) = free;

static char lines[1 << 16];
static size_t said;

/* What lies in `block` from byte `from` up to byte `to`. Kept until the end: printing allocates. */
static void say(const char *what, const volatile unsigned char *block, size_t from, size_t to)
{
	said += sprintf(lines + said, "%s:", what);
	for (size_t at = from; at < to;) {
		size_t run = 1;
		while (at + run < to && block[at + run] == block[at])
			run++;
		said += sprintf(lines + said, " %zu*%02x", run, block[at]);
		at += run;
	}
	said += sprintf(lines + said, "\n");
}

/* The same of a block of `size` bytes, of whose bytes from `links` on some were links of a chunk that it swallowed. */
static void say_around(const char *what, const volatile unsigned char *block, size_t links, size_t size)
{
	say(what, block, 0, links);
	say("  and further on", block, links + 40, size);
}

static void *filled(size_t size)
{
	return memset(take(size), 7, size);
}

static void in_an_arena(void)
{
	void *ten[10];
	say("from the top", take(40), 0, 40);
	void *block = filled(40);
	give(block);
	say("given to the cache", block, 16, 40);
	say("from the cache", take(40), 16, 40);
	for (int i = 0; i < 10; i++)
		ten[i] = filled(72);
	for (int i = 0; i < 10; i++)
		give(ten[i]);
	say("given to the fast bin", ten[9], 16, 72);
	for (int i = 0; i < 7; i++)
		take(72);
	say("from the fast bin", take(72), 16, 72);
	say("moved from the fast bin to the cache", take(72), 16, 72);
	block = filled(3000);
	filled(24);
	give(block);
	say("given to a bin", block, 32, 2992);
	say("a part of what a bin has", take(1000), 16, 1000);
	say("a request of no whole chunk", take(1001), 0, 1001);
	say("cleared", take_cleared(1, 500), 0, 500);
	say("cleared, from the top", take_cleared(1, 20000), 0, 20000);
	say("aligned", take_aligned(256, 700), 0, 700);
	say("aligned to a page", take_aligned(4096, 700), 0, 700);
}

static void resized(void)
{
	unsigned char *block = filled(100);
	block = resize(block, 200);
	say_around("grown into the top", block, 104, 200);
	filled(24);
	unsigned char *moved = resize(block, 2000);
	say_around("moved", moved, 104, 2000);
	say("moved away from", block, 144, 200);
	filled(24);
	moved = resize(moved, 1000);
	say_around("shrunk", moved, 104, 1000);
	say("cut off", moved + 1008, 32, 900);
	unsigned char *below = filled(3000), *above = filled(3000);
	filled(24);
	give(above);
	below = resize(below, 4500);
	say_around("grown into a bin's", below, 3000, 4500);
	below = resize(below, 0x1000);
	say_around("shrunk a little", below, 3000, 0x1000);
}

static void mapped(void)
{
	unsigned char *block = take(400000);
	say("mapped", block, 0, 400000);
	memset(block, 7, 400000);
	block = resize(block, 800000);
	say("mapped and grown", block, 0, 800000);
	block = resize(block, 200);
	say("mapped and shrunk", block, 0, 200);
	say("mapped and cleared", take_cleared(1, 500000), 0, 500000);
	say("mapped and aligned", take_aligned(4096, 500000), 0, 500000);
}

static void *in_a_thread(void *unused)
{
	said += sprintf(lines + said, "a thread\n");
	in_an_arena();
	resized();
	return unused;
}

int main(void)
{
	pthread_t thread;
	in_an_arena();
	resized();
	mapped();
	mallopt(M_PERTURB, 0x3c);
	said += sprintf(lines + said, "another byte\n");
	in_an_arena();
	pthread_create(&thread, NULL, in_a_thread, NULL);
	pthread_join(thread, NULL);
	mallopt(M_PERTURB, 0);
	say("no byte any more", take(200), 16, 200);
	fwrite(lines, 1, said, stdout);
	return 0;
}
