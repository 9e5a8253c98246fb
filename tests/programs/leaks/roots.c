/* Where a program keeps a pointer: memory of every kind that a scan must look at, and places where none can.
 *
 *   case           keep         lose         what is special
 *   static_local   reachable    definite     in a static variable of a function
 *   argv_slot      reachable    definite     in the array of arguments, after main returned
 *   setvbuf        reachable    definite     as stdout's buffer, in libc's data
 *   on_exit        reachable    definite     as argument of an exit handler that ran, on libc's list no more
 *   tsearch        reachable    indirect     in a node of a tree that libc allocated
 *   strdup         runtime      definite     allocated by libc for the program
 *   memfd          reachable    definite     in shared memory of a file without a name
 *   shared_file    reachable    definite     in a shared mapping of a file
 *   cut_file       reachable    definite     in the first page of a mapped file that was cut behind it
 *   reservation    reachable    definite     in one page of a terabyte that was reserved
 *   sbrk           reachable    definite     in memory of the break that the program took itself
 *   main_frame     definite     definite     in main's frame, after main returned
 *   saved_register reachable    definite     in a register that functions keep, at exit
 *   freed_holder   reachable    definite     in a block; lost: in a block that was freed
 *   slack          reachable    definite     in a block; lost: behind the bytes that were asked for
 *   reused         reachable    definite~reachable in a chunk that serves another block, which nobody has written yet
 *   kernel_altstack reachable~definite definite only the kernel knows it: the stack of signal handlers
 *   kernel_epoll   reachable~definite definite only the kernel knows it: an event's data
 *   kernel_pipe    reachable~definite definite only the kernel knows it: a message to oneself
 */
#include "twins.h"
#include <fcntl.h>
#include <search.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

static void static_local(void) {
    static void *local;
    put(&local);
    __asm__ volatile("" ::"r"(&local) : "memory");
}

static void argv_slot(void) { put(&arguments[1]); }

static void on_stdout(void) {
    char *made = block();
    if (keeps) setvbuf(stdout, made, _IOFBF, SIZE);
}

static void ignore_status(int status, void *argument) { (void)status, (void)argument; }
static void at_on_exit(void) {
    void *made = block();
    on_exit(ignore_status, keeps ? made : 0);
}

static int by_address(const void *a, const void *b) { return (a > b) - (a < b); }
static void in_tree(void) {
    tsearch(block(), &slot, by_address);
    if (!keeps) slot = 0;
}

static void duplicated(void) {
    char *text = calloc(1, SIZE);
    memset(text, 'x', SIZE - 1);
    char *copy = strdup(text);
    free(text);
    *(char *volatile *)&slot = keeps ? copy : 0;
}

static void in_memfd(void) {
    int file = memfd_create("twins", 0);
    if (ftruncate(file, 4096)) abort();
    put(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
    close(file);
}

static void *mapped_file(size_t bytes, int kind, int *file) {
    char path[] = "/tmp/twins.XXXXXX";
    *file = mkstemp(path);
    unlink(path);
    if (ftruncate(*file, bytes)) abort();
    return mmap(0, bytes, PROT_READ | PROT_WRITE, kind, *file, 0);
}

static void in_shared_file(void) {
    int file;
    put(mapped_file(4096, MAP_SHARED, &file));
}

static void in_cut_file(void) {
    int file;
    char *base = mapped_file(3 * 4096, MAP_SHARED, &file);
    memset(base, 1, 3 * 4096);
    put(base);
    if (ftruncate(file, 4096)) abort();
}

static void in_reservation(void) {
    size_t bytes = (size_t)1 << 40;
    char *base = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    put(base == MAP_FAILED ? (void *)&slot : base + (bytes >> 1));
}

static void in_own_break(void) { put(sbrk(4096)); }

static void in_saved_register(void) {
    uintptr_t complement = put_complement();
    wipe();
    __asm__ volatile("not %%rbx\n xor %%edi, %%edi\n and $-16, %%rsp\n call exit@plt" ::"b"(complement) : "memory");
}

static void in_freed(void) {
    void **holder = calloc(1, 64);
    slot = holder;
    holder[3] = block();
    if (!keeps) {
        slot = 0;
        free(holder);
    }
}

static void in_slack(void) {
    char *holder = slot = calloc(1, 17);
    void *made = block();
    memcpy(holder + (keeps ? 8 : 16), &made, keeps ? 8 : 1);
    /* The chunk has room for 24 bytes, of which 17 were asked for. */
    if (!keeps) *(void *volatile *)(*(char *volatile *)&slot + 16) = made;
}

static void in_reused(void) {
    void **holder = malloc(64);
    holder[5] = block();
    if (!keeps) free(holder);
    slot = keeps ? holder : malloc(64);
}

static void on_altstack(void) {
    volatile stack_t stack = {0};
    put((void *)&stack.ss_sp);
    stack.ss_size = SIZE;
    if (keeps) sigaltstack((const stack_t *)&stack, 0);
    stack.ss_sp = 0;
}

static void in_epoll(void) {
    int poll = epoll_create1(0), ends[2];
    if (pipe(ends)) abort();
    struct epoll_event event = {EPOLLIN, {.ptr = 0}};
    put(&event.data.ptr);
    epoll_ctl(poll, EPOLL_CTL_ADD, ends[0], &event);
    memset(&event, 0, sizeof event);
}

static void in_pipe(void) {
    int ends[2];
    void *made = 0;
    put(&made);
    if (pipe(ends) || write(ends[1], &made, sizeof made) < 0) abort();
    *(void *volatile *)&made = 0;
}

int main(int argc, char **argv) {
    static const struct program programs[] = {
        {"static_local", static_local}, {"argv_slot", argv_slot}, {"setvbuf", on_stdout}, {"on_exit", at_on_exit},
        {"tsearch", in_tree}, {"strdup", duplicated}, {"memfd", in_memfd}, {"shared_file", in_shared_file},
        {"cut_file", in_cut_file}, {"reservation", in_reservation}, {"sbrk", in_own_break},
        {"saved_register", in_saved_register}, {"freed_holder", in_freed}, {"slack", in_slack}, {"reused", in_reused},
        {"kernel_altstack", on_altstack}, {"kernel_epoll", in_epoll}, {"kernel_pipe", in_pipe}};
    if (argc > 2 && !strcmp(argv[1], "main_frame")) {
        void *volatile local = block();
        if (strcmp(argv[2], "keep")) local = 0;
        __asm__ volatile("" ::"r"(&local) : "memory");
        wipe();
        return 0;
    }
    return run_named(programs, sizeof programs / sizeof *programs, argc, argv);
}
