/* A library that makes its process one that may not be looked into: what /proc shows of it is root's. */
#include <sys/prctl.h>

__attribute__((constructor)) static void forbid(void) { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); }
