/* misuse CASE: one way to misuse the heap. Says `went on` where libc lets that pass; otherwise libc ends it.
 * `misuse` alone lists the cases. Only what libc decides without chance is here: no address is guessed. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uintptr_t word;

/* Called through volatile pointers, so that no compiler knows what they do. */
static void *(*volatile take)(size_t) = malloc;
static void (*volatile give)(void *) = free;
static void *(*volatile resize)(void *, size_t) = realloc;

static word *size_word(void *block) { return (word *)block - 1; }

static void *many[16];

/* Takes `count` blocks of `size` bytes into `many`. */
static void take_many(int count, size_t size)
{
	for (int i = 0; i < count; i++)
		many[i] = take(size);
}

/* Takes ten blocks of `size` bytes and gives seven back, which fill the thread's cache of that size. Returns the eighth;
 * the ninth lies above it. */
static void *beyond_cache(size_t size)
{
	take_many(10, size);
	for (int i = 0; i < 7; i++)
		give(many[i]);
	return many[7];
}

/* --- what is freed is no block --- */

static void twice_cached(void)
{
	void *block = take(24);
	give(block);
	give(block);
}
static void twice_cached_large(void)
{
	void *block = take(1000);
	give(block);
	give(block);
}
static void twice_cached_key_overwritten(void)
{
	word *block = take(24);
	give(block);
	block[1] = 0;
	give(block);
}
static void twice_sixty_times(void)
{
	for (int i = 0; i < 60; i++) {
		word *block = take(24 + 16 * i);
		give(block);
		block[1] = 0;
		give(block);
	}
}
static void twice_after_reuse(void)
{
	void *block = take(24);
	give(block);
	void *again = take(24);
	give(again);
	give(block);
}
static void twice_fast(void)
{
	void *block = beyond_cache(100);
	give(block);
	give(block);
}
static void twice_fast_with_one_between(void)
{
	take_many(9, 100);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	give(many[7]);
}
static void twice_binned(void)
{
	void *block = take(5000);
	take(24);
	give(block);
	give(block);
}
static void twice_merged_below(void)
{
	void *below = take(5000), *above = take(5000);
	take(24);
	give(below);
	give(above);
	give(above);
}
static void twice_top(void)
{
	void *block = take(5000);
	give(block);
	give(block);
}
static void twice_into_top(void)
{
	void *below = take(5000), *above = take(5000);
	give(above);
	give(below);
	give(above);
}
static void twice_mapped(void)
{
	void *block = take(300000);
	give(block);
	give(block);
}
static void inside_zeroes(void) { give((char *)calloc(1, 5000) + 160); }
static void inside_misaligned(void) { give((char *)calloc(1, 5000) + 3); }
static void inside_misaligned_with_size(void)
{
	char *block = calloc(1, 5000);
	memcpy(block + 160, &(word){0x41}, 8);
	give(block + 168);
}
static void inside_looks_like_a_cached_chunk(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x41;
	give(block + 22);
}
static void inside_looks_like_a_fast_chunk(void)
{
	word *block = calloc(1, 5000);
	beyond_cache(100);
	block[21] = 0x71;
	block[21 + 14] = 0x71;
	give(block + 22);
}
static void inside_looks_like_a_fast_chunk_below_nothing(void)
{
	word *block = calloc(1, 5000);
	beyond_cache(100);
	block[21] = 0x71;
	give(block + 22);
}
static void inside_looks_like_a_large_chunk(void)
{
	word *block = calloc(1, 9000);
	take(24);
	block[21] = 0x801;
	block[21 + 0x100] = 0x41;
	block[21 + 0x108] = 0x41;
	give(block + 22);
}
static void inside_looks_like_a_mapped_chunk(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x1002;
	give(block + 22);
}
static void inside_size_too_small(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x11;
	give(block + 22);
}
static void inside_size_not_aligned(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x39;
	give(block + 22);
}
static void inside_size_beyond_all(void)
{
	word *block = calloc(1, 5000);
	block[21] = (word)-32 | 1;
	give(block + 22);
}
static void inside_size_beyond_top(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x1000001;
	give(block + 22);
}
static void inside_of_freed(void)
{
	char *block = calloc(1, 5000);
	take(24);
	give(block);
	give(block + 160);
}
static void stack_zeroes(void)
{
	volatile word local[32] __attribute__((aligned(16))) = {0};
	give((void *)(local + 2));
}
static void stack_looks_like_a_cached_chunk(void)
{
	volatile word local[32] __attribute__((aligned(16))) = {0};
	local[3] = 0x41;
	give((void *)(local + 4));
}
static void global_zeroes(void)
{
	static char global[64] __attribute__((aligned(16)));
	give(global + 16);
}
static void nowhere(void) { give((void *)0x123456789000); }
static void null_page(void) { give((void *)16); }
static void end_of_everything(void) { give((void *)-16); }
static void program_mapping(void)
{
	char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	give(page + 16);
}
static void read_only(void)
{
	static const word literal[8] __attribute__((aligned(16))) = {0, 0x31};
	give((void *)(literal + 2));
}
static void *free_in_thread(void *block)
{
	give(block);
	return 0;
}
static void twice_by_two_threads(void)
{
	pthread_t other;
	void *block = take(24);
	give(block);
	pthread_create(&other, 0, free_in_thread, block);
	pthread_join(other, 0);
}
static void twice_by_two_threads_binned(void)
{
	pthread_t other;
	void *block = take(5000);
	take(24);
	give(block);
	pthread_create(&other, 0, free_in_thread, block);
	pthread_join(other, 0);
}

/* --- what is resized is no block --- */

static void realloc_freed(void)
{
	char *block = take(5000);
	take(24);
	memset(block, 'x', 5000);
	give(block);
	char *again = resize(block, 100);
	if (again[50] == 'x')
		write(1, "contents\n", 9);
}
static void realloc_cached(void)
{
	char *block = take(100);
	memset(block, 'x', 100);
	give(block);
	char *again = resize(block, 200);
	if (again[50] == 'x')
		write(1, "contents\n", 9);
}
static void realloc_cached_same(void)
{
	char *block = take(100);
	memset(block, 'x', 100);
	give(block);
	char *again = resize(block, 100);
	if (again[50] == 'x')
		write(1, "contents\n", 9);
}
static void realloc_cached_that_has_to_move(void)
{
	void *block = take(100);
	take(24);
	give(block);
	resize(block, 200);
}
static void realloc_cached_that_has_to_move_key_overwritten(void)
{
	word *block = take(100);
	take(24);
	give(block);
	block[1] = 0;
	resize(block, 200);
}
static void realloc_fast_that_has_to_move(void)
{
	void *block = beyond_cache(100);
	give(block);
	resize(block, 200);
}
static void realloc_binned_that_has_to_move(void)
{
	void *block = take(5000);
	take(24);
	give(block);
	resize(block, 9000);
}
static void realloc_inside_that_has_to_move(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x41;
	block[29] = 0x41;
	block[37] = 0x41;
	resize(block + 22, 300);
}
static void realloc_to_nothing_twice(void)
{
	void *block = take(100);
	if (resize(block, 0) || resize(block, 0))
		write(1, "a block\n", 8);
}
static void realloc_inside(void) { resize((char *)calloc(1, 5000) + 160, 300); }
static void realloc_misaligned(void) { resize((char *)calloc(1, 5000) + 3, 300); }
static void realloc_inside_with_size(void)
{
	word *block = calloc(1, 5000);
	block[21] = 0x41;
	block[30] = 7;
	char *again = resize(block + 22, 300);
	if (!again)
		write(1, "nothing\n", 8);
}
static void realloc_stack(void)
{
	volatile word local[32] __attribute__((aligned(16))) = {0};
	resize((void *)(local + 2), 300);
}
static void realloc_nowhere(void) { resize((void *)0x123456789000, 300); }
static void realloc_mapped_twice(void)
{
	char *block = take(300000);
	give(block);
	resize(block, 400000);
}
static void realloc_size_overwritten(void)
{
	word *block = take(100);
	take(100);
	*size_word(block) = 0x10000001;
	resize(block, 300);
}
static void realloc_next_size_overwritten(void)
{
	word *block = take(100), *above = take(100);
	take(100);
	*size_word(above) = 0x10000001;
	resize(block, 300);
}
static void realloc_size_no_mapping(void)
{
	word *block = take(100);
	*size_word(block) |= 2;
	resize(block, 300);
}

/* --- size words --- */

static void overflow_seen_by_no_check(void)
{
	char *block = take(24);
	take(24);
	block[24] = 0;
	give(block);
}
static void overflow_of_letters(void)
{
	char *block = take(24);
	take(24);
	memset(block, 'x', 40);
	give(block);
}
static void overflown_by_letters(void)
{
	char *block = take(24), *above = take(24);
	memset(block, 'x', 32);
	give(above);
}
static void overflown_by_zeroes(void)
{
	char *block = take(24), *above = take(24);
	memset(block, 0, 32);
	give(above);
}
static void overflown_by_a_larger_size(void)
{
	char *block = take(24);
	word *above = take(24);
	*size_word(above) = 0x51;
	give(above);
	if (take(64) == above)
		write(1, "the block\n", 10);
	(void)block;
}
static void overflow_fast(void)
{
	char *block = beyond_cache(24);
	word *above = many[8];
	*size_word(above) = 8;
	give(block);
}
static void overflow_fast_large(void)
{
	char *block = beyond_cache(24);
	word *above = many[8];
	*size_word(above) = 0x7878787878787878;
	give(block);
}
static void overflow_fast_plausible(void)
{
	char *block = beyond_cache(24);
	word *above = many[8];
	*size_word(above) = 0x30;
	give(block);
}
static void overflow_normal_zero(void)
{
	char *block = take(5000);
	word *above = take(24);
	*size_word(above) = 0;
	give(block);
}
static void overflow_normal_one(void)
{
	char *block = take(5000);
	word *above = take(24);
	*size_word(above) = 1;
	give(block);
}
static void overflow_normal_large(void)
{
	char *block = take(5000);
	word *above = take(24);
	*size_word(above) = 0x7979797979797979;
	give(block);
}
static void overflow_normal_even(void)
{
	char *block = take(5000);
	word *above = take(24);
	*size_word(above) = 0x7878787878787878;
	give(block);
}
static void overflow_into_free(void)
{
	word *block = take(5000), *above = take(5000);
	take(24);
	give(above);
	*size_word(above) = 0x501;
	give(block);
}
static void overflow_into_free_small(void)
{
	word *block = take(5000), *above = take(5000);
	take(24);
	give(above);
	*size_word(above) = 0x31;
	give(block);
}
static void prev_size_overwritten(void)
{
	word *below = take(5000), *block = take(5000);
	take(24);
	give(below);
	block[-2] = 0x40;
	give(block);
}
static void size_below_overwritten(void)
{
	word *below = take(5000), *block = take(5000);
	take(24);
	give(below);
	*size_word(below) = 0x501;
	give(block);
}
static void size_says_mapped(void)
{
	word *block = take(100);
	*size_word(block) |= 2;
	give(block);
}
static void mapped_size_overwritten(void)
{
	word *block = take(300000);
	*size_word(block) += 0x10;
	give(block);
}
static void size_larger_than_all(void)
{
	word *block = take(5000);
	take(24);
	*size_word(block) = 0x40000001;
	give(block);
}
static void size_shrunk(void)
{
	word *block = take(5000);
	take(24);
	memset(block, 0, 5000);
	*size_word(block) = 0x801;
	give(block);
}

/* --- lists of free memory --- */

static void cached_link_overwritten_and_not_used(void)
{
	char *block = take(24);
	give(block);
	memset(block, 'A', 16);
	if (take(24) == block)
		write(1, "the block\n", 10);
	if (take(24) != block)
		write(1, "another\n", 8);
	block = take(24);
	give(block);
	if (take(24) == block)
		write(1, "the block\n", 10);
}
static void cached_link_overwritten(void)
{
	char *below = take(24), *block = take(24);
	give(below);
	give(block);
	memset(block, 'A', 16);
	take(24);
	write(1, "one\n", 4);
	take(24);
}
static void cached_link_zeroed(void)
{
	char *below = take(24), *block = take(24);
	give(below);
	give(block);
	memset(block, 0, 16);
	take(24);
	write(1, "one\n", 4);
	take(24);
}
static void cached_link_overwritten_and_freed_again(void)
{
	char *below = take(24), *block = take(24);
	give(below);
	give(block);
	memset(block, 'A', 8);
	give(below);
}
static void fast_link_overwritten(void)
{
	take_many(9, 24);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	memset(many[8], 'A', 16);
	for (int i = 0; i < 7; i++)
		take(24);
	write(1, "seven\n", 6);
	take(24);
}
static void fast_size_overwritten(void)
{
	take_many(9, 24);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	*size_word(many[8]) = 0x91;
	for (int i = 0; i < 7; i++)
		take(24);
	write(1, "seven\n", 6);
	take(24);
}
static void fast_size_overwritten_and_consolidated(void)
{
	take_many(9, 24);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	*size_word(many[8]) = 0x91;
	take(2000);
}
static void fast_link_overwritten_and_consolidated(void)
{
	take_many(10, 24);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	memset(many[8], 'A', 16);
	take(2000);
}
static void fast_head_size_overwritten_and_freed_to(void)
{
	take_many(10, 24);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	*size_word(many[8]) = 0x51;
	give(many[9]);
}
static void unsorted_size_overwritten(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	*size_word(block) = 8;
	take(2000);
}
static void unsorted_size_large(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	*size_word(block) = 0x10000001;
	take(2000);
}
static void unsorted_size_smaller(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	memset(block + 2, 0x41, 4900);
	*size_word(block) = 0x801;
	take(2000);
}
static void unsorted_size_mismatch(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	memset(block + 2, 0, 4900);
	*size_word(block) = 0x801;
	block[-1 + 0x100] = 0x41;
	take(2000);
}
static void unsorted_inuse(void)
{
	word *block = take(5000), *above = take(24);
	give(block);
	*size_word(above) |= 1;
	take(2000);
}
static void unsorted_fd(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	block[0] = (word)(block - 2);
	take(6000);
}
static void unsorted_bk(void)
{
	word *block = take(5000), *other = calloc(1, 100);
	give(block);
	block[1] = (word)(other - 2);
	take(6000);
}
static void unsorted_links_zeroed(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	memset(block, 0, 16);
	take(6000);
}
static void unsorted_links_of_letters(void)
{
	word *block = take(5000);
	take(24);
	give(block);
	memset(block, 'A', 16);
	take(6000);
}
static void unsorted_fd_and_freed_to(void)
{
	word *block = take(5000), *between, *other;
	between = take(24);
	other = take(5000);
	take(24);
	give(block);
	block[1] = (word)(between - 2);
	give(other);
}
static void small_bk(void)
{
	word *block = beyond_cache(500), *other = calloc(1, 100);
	give(block);
	take(3000);
	for (int i = 0; i < 7; i++)
		take(500);
	block[1] = (word)(other - 2);
	write(1, "seven\n", 6);
	take(500);
}
static void large_nextsize(void)
{
	word *block = take(5000), *other = calloc(1, 100), *more = take(5200);
	take(24);
	give(block);
	take(9000);
	give(more);
	block[2] = block[3] = (word)(other - 2);
	take(9000);
}
static void large_unlinked_with_bad_nextsize(void)
{
	word *block = take(5000), *other = calloc(1, 100);
	give(block);
	take(9000);
	block[2] = block[3] = (word)(other - 2);
	take(5000);
}
static void large_unlinked_with_bad_links(void)
{
	word *block = take(5000), *other = calloc(1, 100);
	give(block);
	take(9000);
	block[0] = block[1] = (word)(other - 2);
	take(5000);
}
static void unlinked_below_with_bad_links(void)
{
	word *below = take(5000), *block = take(5000), *other = calloc(1, 100);
	give(below);
	below[0] = below[1] = (word)(other - 2);
	give(block);
}
static void unlinked_above_with_bad_links(void)
{
	word *block = take(5000), *above = take(5000), *other = calloc(1, 100);
	give(above);
	above[0] = above[1] = (word)(other - 2);
	give(block);
}
static void best_fit_footer_overwritten(void)
{
	word *block = take(5000), *above = take(24);
	give(block);
	take(9000);
	above[-2] = 0x40;
	take(3000);
}
static void top_overwritten_by_letters(void)
{
	char *block = take(5000);
	memset(block, 'y', 5024);
	take(24);
}
static void top_overwritten_by_zeroes(void)
{
	char *block = take(5000);
	memset(block, 0, 5024);
	take(24);
}
static void *end_with_broken_cache(void *unused)
{
	char *below = take(24), *block = take(24);
	give(below);
	give(block);
	memset(block, 'A', 16);
	return unused;
}
static void cached_link_overwritten_at_thread_end(void)
{
	pthread_t other;
	pthread_create(&other, 0, end_with_broken_cache, 0);
	pthread_join(other, 0);
}

/* --- what a fault that was let pass leads to --- */

/* Says whether a call gave what an earlier one gave. */
static void say_same(const void *a, const void *b)
{
	write(1, a == b ? "same\n" : "other\n", a == b ? 5 : 6);
}
/* Puts a block into the thread's cache twice. */
static word *cache_again(word *block)
{
	give(block);
	block[1] = 0;
	give(block);
	return block;
}
/* A block that is in the thread's cache twice. */
static word *twice_in_cache(size_t size)
{
	return cache_again(take(size));
}
/* A block that is in its fast bin twice, with another one between. */
static void *twice_in_fast_bin(void)
{
	take_many(12, 100);
	for (int i = 0; i < 9; i++)
		give(many[i]);
	give(many[7]);
	return many[7];
}
static void after_twice_cached_it_is_taken_twice(void)
{
	word *block = twice_in_cache(24);
	say_same(take(24), block);
	say_same(take(24), block);
	say_same(take(24), block);
}
static void after_twice_cached_it_is_freed_again(void)
{
	give(twice_in_cache(24));
}
static void after_twice_cached_the_owners_free_it(void)
{
	twice_in_cache(40);
	void *first = take(40), *second = take(40);
	give(first);
	give(second);
}
static void after_twice_fast_it_is_taken_twice(void)
{
	void *block = twice_in_fast_bin();
	for (int i = 0; i < 7; i++)
		take(100);
	for (int i = 0; i < 3; i++)
		say_same(take(100), block);
}
static void after_twice_fast_the_bins_are_emptied(void)
{
	twice_in_fast_bin();
	take(5000);
	take(5000);
}
static void after_inside_cached_it_is_taken(void)
{
	word *block = calloc(1, 500);
	block[1] = 0x41;
	give(block + 2);
	void *taken = take(56);
	say_same(taken, block + 2);
	give(taken);
	give(block);
}
static void after_stack_cached_it_is_taken(void)
{
	word words[10] __attribute__((aligned(16))) = {0, 0x41};
	give(words + 2);
	say_same(take(56), words + 2);
}
static void *cache_twice(void *unused)
{
	twice_in_cache(24);
	return unused;
}
/* The chunk is too large for a fast bin, and stays between the cache's bookkeeping and a live block. */
static void *cache_a_neighbour_of_the_bookkeeping_twice(void *unused)
{
	word *block = take(200);
	take(24);
	cache_again(block);
	return unused;
}
static void see_a_thread_end(void *(*run)(void *))
{
	pthread_t thread;
	pthread_create(&thread, NULL, run, NULL);
	pthread_join(thread, NULL);
}
static void after_twice_cached_the_thread_ends(void)
{
	see_a_thread_end(cache_twice);
}
static void after_twice_cached_beside_the_bookkeeping_the_thread_ends(void)
{
	see_a_thread_end(cache_a_neighbour_of_the_bookkeeping_twice);
}
static void after_a_larger_size_the_block_above_is_covered(void)
{
	char *below = take(2000), *above = take(2000);
	take(24);
	*size_word(below) = 2 * 2016 + 1;
	give(below);
	char *both = take(4000);
	say_same(both, below);
	give(above);
	write(1, "freed\n", 6);
	give(both);
}
static void after_a_zero_beyond_the_end(void)
{
	char *below = take(1400), *above = take(0x4f8), *last = take(24);
	give(below);
	below[1400] = 0;
	give(above);
	give(last);
}
static void after_links_in_a_large_bin_were_exchanged(void)
{
	word *small = take(3000);
	take(24);
	word *large = take(3200);
	take(24);
	give(small);
	give(large);
	take(9000);
	large[2] = small[2];
	take(3200);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
#define CASE(name) {#name, name}
	CASE(twice_cached), CASE(twice_cached_large), CASE(twice_cached_key_overwritten), CASE(twice_sixty_times),
	CASE(twice_after_reuse),
	CASE(twice_fast), CASE(twice_fast_with_one_between), CASE(twice_binned), CASE(twice_merged_below), CASE(twice_top),
	CASE(twice_into_top), CASE(twice_mapped), CASE(inside_zeroes), CASE(inside_misaligned),
	CASE(inside_misaligned_with_size), CASE(inside_looks_like_a_cached_chunk), CASE(inside_looks_like_a_fast_chunk),
	CASE(inside_looks_like_a_fast_chunk_below_nothing), CASE(inside_looks_like_a_large_chunk),
	CASE(inside_looks_like_a_mapped_chunk), CASE(inside_size_too_small), CASE(inside_size_not_aligned),
	CASE(inside_size_beyond_all), CASE(inside_size_beyond_top), CASE(inside_of_freed), CASE(stack_zeroes),
	CASE(stack_looks_like_a_cached_chunk), CASE(global_zeroes), CASE(nowhere), CASE(null_page), CASE(end_of_everything),
	CASE(program_mapping), CASE(read_only), CASE(twice_by_two_threads), CASE(twice_by_two_threads_binned),
	CASE(realloc_freed), CASE(realloc_cached), CASE(realloc_cached_same), CASE(realloc_cached_that_has_to_move),
	CASE(realloc_cached_that_has_to_move_key_overwritten), CASE(realloc_fast_that_has_to_move),
	CASE(realloc_binned_that_has_to_move), CASE(realloc_inside_that_has_to_move),
	CASE(realloc_to_nothing_twice),
	CASE(realloc_inside), CASE(realloc_misaligned), CASE(realloc_inside_with_size), CASE(realloc_stack),
	CASE(realloc_nowhere), CASE(realloc_mapped_twice), CASE(realloc_size_overwritten),
	CASE(realloc_next_size_overwritten), CASE(realloc_size_no_mapping), CASE(overflow_seen_by_no_check),
	CASE(overflow_of_letters), CASE(overflown_by_letters), CASE(overflown_by_zeroes), CASE(overflown_by_a_larger_size),
	CASE(overflow_fast), CASE(overflow_fast_large), CASE(overflow_fast_plausible), CASE(overflow_normal_zero),
	CASE(overflow_normal_one), CASE(overflow_normal_large), CASE(overflow_normal_even), CASE(overflow_into_free),
	CASE(overflow_into_free_small), CASE(prev_size_overwritten), CASE(size_below_overwritten), CASE(size_says_mapped),
	CASE(mapped_size_overwritten), CASE(size_larger_than_all), CASE(size_shrunk),
	CASE(cached_link_overwritten_and_not_used), CASE(cached_link_overwritten), CASE(cached_link_zeroed),
	CASE(cached_link_overwritten_and_freed_again),
	CASE(fast_link_overwritten), CASE(fast_size_overwritten), CASE(fast_size_overwritten_and_consolidated),
	CASE(fast_link_overwritten_and_consolidated), CASE(fast_head_size_overwritten_and_freed_to),
	CASE(unsorted_size_overwritten), CASE(unsorted_size_large), CASE(unsorted_size_smaller),
	CASE(unsorted_size_mismatch), CASE(unsorted_inuse), CASE(unsorted_fd), CASE(unsorted_bk),
	CASE(unsorted_links_zeroed), CASE(unsorted_links_of_letters), CASE(unsorted_fd_and_freed_to), CASE(small_bk),
	CASE(large_nextsize), CASE(large_unlinked_with_bad_nextsize), CASE(large_unlinked_with_bad_links),
	CASE(unlinked_below_with_bad_links), CASE(unlinked_above_with_bad_links), CASE(best_fit_footer_overwritten),
	CASE(top_overwritten_by_letters), CASE(top_overwritten_by_zeroes), CASE(cached_link_overwritten_at_thread_end),
	CASE(after_twice_cached_it_is_taken_twice), CASE(after_twice_cached_it_is_freed_again),
	CASE(after_twice_cached_the_owners_free_it), CASE(after_twice_fast_it_is_taken_twice),
	CASE(after_twice_fast_the_bins_are_emptied), CASE(after_inside_cached_it_is_taken),
	CASE(after_stack_cached_it_is_taken), CASE(after_twice_cached_the_thread_ends),
	CASE(after_twice_cached_beside_the_bookkeeping_the_thread_ends),
	CASE(after_a_larger_size_the_block_above_is_covered), CASE(after_a_zero_beyond_the_end),
	CASE(after_links_in_a_large_bin_were_exchanged),
};

int main(int argc, char **argv)
{
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
		if (argc < 2) {
			puts(cases[i].name);
		} else if (!strcmp(argv[1], cases[i].name)) {
			cases[i].run();
			write(1, "went on\n", 8);
			return 0;
		}
	return argc < 2 ? 0 : 2;
}
