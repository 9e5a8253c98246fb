/* Two libraries, one after the other: loaded, used, unloaded. The second usually lies where the first lay.
 *
 * Arguments: the two libraries, made of plugin.c. Each makes one block in its constructor and frees it in its
 * destructor, which dlclose runs.
 *
 * truth: in truth_first_constructor: allocations=1 allocated_bytes=500 live_at_exit_bytes=0
 * truth: in truth_first_work: allocations=4 allocated_bytes=400 live_at_exit_bytes=400 live_at_exit_blocks=4
 * truth: in truth_second_constructor: allocations=1 allocated_bytes=500 live_at_exit_bytes=0
 * truth: in truth_second_work: allocations=2 allocated_bytes=600 live_at_exit_bytes=600 live_at_exit_blocks=2
 * truth: summary: dropped_events=0 unknown_frees=0
 */
#include <dlfcn.h>

typedef void work(int blocks, int size_bytes);

static int use(const char *library, const char *function, int blocks, int size_bytes) {
    void *handle = dlopen(library, RTLD_NOW);
    work *run = handle ? (work *)dlsym(handle, function) : 0;
    if (!run) return 0;
    run(blocks, size_bytes);
    return dlclose(handle) == 0;
}

int main(int argc, char **argv) {
    if (argc != 3) return 1;
    if (!use(argv[1], "truth_first_work", 4, 100)) return 2;
    if (!use(argv[2], "truth_second_work", 2, 300)) return 3;
    return 0;
}
