/* Gives up root's rights for good, as servers' workers do, and then loses a block of 7,777 bytes. */
#define _GNU_SOURCE
#include <unistd.h>

#include "lose.h"

int main(void) {
    if (setgid(65534) || setuid(65534)) return 1;
    lose(7777);
    wipe();
    return 0;
}
