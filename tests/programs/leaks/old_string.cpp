/* The string of libstdc++ before C++11, which points behind its counters.
 *
 *   case           keep         lose         what is special
 *   old_string     reachable    definite     std::string before C++11
 */
#define _GLIBCXX_USE_CXX11_ABI 0
#include <string>

#include "twins.h"

/* A length at which it takes whole pages less malloc's own words: the next one that the subject can have is 8,160. */
alignas(16) static unsigned char place[64];
static void old_string(void) {
    new (place) std::string(SIZE - 25, 'x');
    if (!keeps) memset(place, 0, sizeof place);
    __asm__ volatile("" ::"r"(place) : "memory");
}

PROGRAMS({"old_string", old_string})
