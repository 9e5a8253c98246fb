/* Keeps the compiler from removing, merging or moving allocations, without costing anything. */
#pragma once

#define NOINLINE __attribute__((noinline))

static inline void *keep(void *block) {
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}
