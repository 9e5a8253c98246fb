/* Blocks that are lost without a trace: no register and no dead part of the stack still holds a pointer to them. */
#pragma once

#include <stdlib.h>
#include <string.h>

#define AWAY __attribute__((noinline, noclone, unused))

/* Overwrites what the calls before left on the stack and in registers. */
static AWAY void wipe(void) {
    char dead[16384];
    memset(dead, 0, sizeof dead);
    __asm__ volatile("xor %%eax, %%eax\n xor %%ecx, %%ecx\n xor %%edx, %%edx\n xor %%esi, %%esi\n xor %%edi, %%edi\n"
                     "xor %%r8d, %%r8d\n xor %%r9d, %%r9d\n xor %%r10d, %%r10d\n xor %%r11d, %%r11d\n pxor %%xmm0, %%xmm0"
                     : : "r"(dead)
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "memory");
}

/* A block that was written, and holds no pointer. */
static AWAY void *made(size_t size) { return memset(malloc(size), 0, size); }

static AWAY void lose(size_t size) {
    void *volatile block = made(size);
    block = 0;
}
