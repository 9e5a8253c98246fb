/* Calls exit in a function that has a block which the compiler no longer keeps: `exit` does not return, so nothing of its
 * caller is needed any more. The block of 7,777 bytes and the one of 2,222 that it holds belong to that function; the one of
 * 3,333 bytes to one that has returned. */
#include "lose.h"

static AWAY void returned(void) {
    void *volatile block = malloc(3333);
    block = 0;
}

static AWAY void owner(void) {
    void **block = malloc(7777);
    memset(block, 0, 7777);
    block[0] = calloc(1, 2222);
    block = 0;
    wipe();
    __asm__ volatile("xor %%ebx, %%ebx\n xor %%r12d, %%r12d\n xor %%r13d, %%r13d\n xor %%r14d, %%r14d\n xor %%r15d, %%r15d"
                     ::: "rbx", "r12", "r13", "r14", "r15", "memory");
    exit(0);
}

int main(void) {
    returned();
    wipe();
    owner();
}
