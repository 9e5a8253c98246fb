// Templates, operator new and new[], a growing vector, exceptions.
//
// truth: in truth::single: allocations=3 allocated_bytes=120 live_at_exit_bytes=120 live_at_exit_blocks=3
// truth: in truth::many: allocations=2 allocated_bytes=800 live_at_exit_bytes=400 temporary_allocations=1
// truth: in truth::make<long: allocations=1 allocated_bytes=8 live_at_exit_bytes=8
// truth: in truth::make<char: allocations=1 allocated_bytes=7 live_at_exit_bytes=7
// truth: in truth::lined: allocations=1 allocated_bytes=128 live_at_exit_bytes=128
// truth: in truth::quiet: allocations=1 allocated_bytes=50 live_at_exit_bytes=50
// truth: in truth::grow: allocations=11 allocated_bytes=8188 live_at_exit_bytes=0 temporary_allocations=1
// truth: in truth::thrower: allocations=10 live_at_exit_bytes=0 temporary_allocations=10
#include <new>
#include <vector>

#include "keep.h"

namespace truth {

struct Widget {
    char bytes[40];
};

template <typename T, int N> NOINLINE void make() { keep(new T[N]); }

NOINLINE static void single() {
    for (int i = 0; i < 3; i++) keep(new Widget);
}

NOINLINE static void many() {
    keep(new int[100]);
    int *freed = new int[100];
    keep(freed);
    delete[] freed;
}

struct alignas(64) Line {
    char bytes[64];
};

NOINLINE static void lined() { keep(new Line[2]); }

NOINLINE static void quiet() { keep(new (std::nothrow) char[50]); }

NOINLINE static void grow() {
    std::vector<int> numbers;
    for (int i = 0; i < 1000; i++) {
        numbers.push_back(i);
        keep(numbers.data());
    }
}

NOINLINE static void thrower(int number) { throw number; }

} // namespace truth

int main() {
    truth::single();
    truth::many();
    truth::make<long, 1>();
    truth::make<char, 7>();
    truth::lined();
    truth::quiet();
    truth::grow();
    int caught = 0;
    for (int i = 0; i < 10; i++) {
        try {
            truth::thrower(i);
        } catch (int number) {
            caught += number == i;
        }
    }
    return caught == 10 ? 0 : 1;
}
