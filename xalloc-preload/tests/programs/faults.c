/* faults CASE: gives free or realloc what is no block, or frees a block beside which something was overwritten. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *block(size_t size) { return malloc(size); }

int main(int argc, char **argv)
{
	const char *name = argv[1];
	char *first = block(24), *second = block(24), *third = block(5000), *last = block(24);
	char *mapped = block(300000);
	static char global[64] __attribute__((aligned(16)));
	char local[64] __attribute__((aligned(16)));
	memset(local, 0, sizeof local);
	(void)argc;
	if (!strcmp(name, "twice-cached")) {
		free(first);
		free(first);
	} else if (!strcmp(name, "twice-binned")) {
		free(third);
		free(third);
	} else if (!strcmp(name, "twice-mapped")) {
		free(mapped);
		free(mapped);
	} else if (!strcmp(name, "twice-fast")) {
		void *many[8];
		for (int i = 0; i < 8; i++)
			many[i] = block(100);
		for (int i = 0; i < 8; i++)
			free(many[i]);
		free(many[7]);
	} else if (!strcmp(name, "inside")) {
		free(third + 160);
	} else if (!strcmp(name, "misaligned")) {
		free(third + 3);
	} else if (!strcmp(name, "stack")) {
		free(local + 16);
	} else if (!strcmp(name, "global")) {
		free(global + 16);
	} else if (!strcmp(name, "nowhere")) {
		free((void *)0x123456789000);
	} else if (!strcmp(name, "program-mapping")) {
		char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		free(page + 16);
	} else if (!strcmp(name, "realloc-freed")) {
		free(third);
		if (realloc(third, 100))
			return 3;
	} else if (!strcmp(name, "overflow")) {
		memset(first, 'x', 40); /* first is 24 bytes: the rest is the size word of second, and beyond */
		free(first);
	} else if (!strcmp(name, "overflow-by-one")) {
		first[24] = 0;
		free(first);
	} else if (!strcmp(name, "overflown")) {
		memset(first, 'x', 32);
		free(second);
	} else {
		return 2;
	}
	/* The heap still works: nothing was damaged by what was refused. */
	for (int i = 0; i < 1000; i++)
		free(block(i * 7));
	free(last);
	puts("went on");
	return 0;
}
