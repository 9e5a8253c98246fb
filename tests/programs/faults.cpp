// Misuses its heap, each way by functions whose names say who did what to the block: `owner_allocates`, `first_frees`,
// `wrong_call`, and `lower_neighbour` and `upper_neighbour`, who hold the blocks beside it. Which way is the argument.
// The program ends as libc lets it end; `tests/faults.rs` holds the reports against these names.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "keep.h"

// A function of its own, also where another one does the same.
#define ROLE __attribute__((noinline, no_icf))

namespace {

char foreign[4096];

ROLE void *owner_allocates(std::size_t bytes) { return keep(std::malloc(bytes)); }
ROLE void *owner_news(std::size_t bytes) { return keep(::operator new(bytes)); }
ROLE void *lower_neighbour(std::size_t bytes) { return keep(std::malloc(bytes)); }
ROLE void *upper_neighbour(std::size_t bytes) { return keep(std::malloc(bytes)); }
ROLE void first_frees(void *block) { std::free(block); }
ROLE void first_deletes(void *block) { ::operator delete(block); }
ROLE void *first_reallocs(void *block, std::size_t bytes) { return keep(std::realloc(block, bytes)); }
ROLE void wrong_call(void *block) { std::free(block); }
ROLE void *wrong_malloc(std::size_t bytes) { return keep(std::malloc(bytes)); }

// A block with a live one on either side.
ROLE char *between(std::size_t bytes) {
    static void *volatile kept[2];
    kept[0] = lower_neighbour(bytes - 1);
    void *block = owner_allocates(bytes);
    kept[1] = upper_neighbour(bytes + 1);
    return static_cast<char *>(block);
}

void twice(std::size_t bytes) {
    void *volatile block = between(bytes);
    first_frees(block);
    wrong_call(block);
}

void twice_in_another_thread(std::size_t bytes) {
    void *volatile block = between(bytes);
    std::thread([&] { first_frees(block); }).join();
    wrong_call(block);
}

void twice_after_delete(std::size_t bytes) {
    void *volatile block = owner_news(bytes);
    void *volatile above = upper_neighbour(bytes);
    first_deletes(block);
    wrong_call(block);
    (void)above;
}

void after_realloc(std::size_t bytes) {
    void *volatile block = between(bytes);
    first_reallocs(block, 8 * bytes);
    wrong_call(block);
}

void overflow(std::size_t bytes) {
    char *block = between(bytes);
    void *volatile above = upper_neighbour(bytes);
    // The word behind the block's usable bytes is the size of the chunk above.
    std::memset(block, 'A', bytes + 24);
    wrong_call(block);
    (void)above;
}

void used_after_free(std::size_t bytes) {
    void *volatile *block = reinterpret_cast<void *volatile *>(between(bytes));
    first_frees(const_cast<void **>(block));
    // The links of the bin that it is in.
    block[0] = block[1] = foreign;
    wrong_malloc(2 * bytes);
}

} // namespace

int main(int, char **arguments) {
    const char *way = arguments[1];
    auto is = [way](const char *name) { return std::strcmp(way, name) == 0; };
    if (is("twice")) twice(100);
    else if (is("twice_large")) twice(5000);
    else if (is("twice_mapped")) twice(300000);
    else if (is("twice_in_another_thread")) twice_in_another_thread(5000);
    else if (is("twice_after_delete")) twice_after_delete(5000);
    else if (is("after_realloc")) after_realloc(5000);
    else if (is("inside")) wrong_call(between(100) + 32);
    else if (is("on_stack")) {
        char here[64];
        wrong_call(keep(here + 16));
    } else if (is("foreign")) wrong_call(keep(foreign + 64));
    else if (is("overflow")) overflow(104);
    else if (is("used_after_free")) used_after_free(5000);
    else return 1;
    return 0;
}
