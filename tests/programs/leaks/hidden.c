/* Pointers that are none to look at. The program can still get at its block, so that to call it leaked is wrong; whoever
 * looks at memory from outside cannot know. Where the disguise is a common one, a hint says where the pointer may be.
 *
 *   case           keep         lose         what is special
 *   xored          reachable~definite definite with another pointer, as in a list with one link for both ways
 *   complement     reachable~definite definite all bits turned
 *   shifted        reachable~definite definite by four bits to the right
 *   offset         reachable~definite definite as a distance of four bytes from a base
 *   halves         reachable~definite definite in two words
 *   swapped        reachable~definite definite in the other order of bytes
 *   top_byte       reachable~definite definite with a tag in the uppermost byte
 *   boxed          reachable~definite definite as a number that is none (NaN)
 *   file           reachable~definite definite in a file
 */
#include "twins.h"
#include <byteswap.h>
#include <stdio.h>

static volatile uint64_t words[2] __attribute__((aligned(16)));

static AWAY void hide(uint64_t (*disguise)(uint64_t)) {
    uint64_t made = (uint64_t)block();
    words[0] = keeps ? disguise(made) : 0;
}

static uint64_t with_other(uint64_t made) { return made ^ (uint64_t)words; }
static uint64_t all_turned(uint64_t made) { return ~made; }
static uint64_t moved(uint64_t made) { return made >> 4; }
static uint64_t distance(uint64_t made) { return (uint32_t)((made - (made & ~(uint64_t)0xffffffff)) >> 4); }
static uint64_t other_order(uint64_t made) { return bswap_64(made); }
static uint64_t tagged(uint64_t made) { return made | (uint64_t)0xa5 << 56; }
static uint64_t number(uint64_t made) { return made | (uint64_t)0x7ffc << 48; }

static void xored(void) { hide(with_other); }
static void complement(void) { hide(all_turned); }
static void shifted(void) { hide(moved); }
static void offset(void) { hide(distance); }
static void swapped(void) { hide(other_order); }
static void top_byte(void) { hide(tagged); }
static void boxed(void) { hide(number); }

static void halves(void) {
    uint64_t made = (uint64_t)block();
    words[0] = keeps ? (uint32_t)made : 0;
    words[1] = keeps ? made >> 32 : 0;
}

static void in_file(void) {
    FILE *file = tmpfile();
    uint64_t made = (uint64_t)block();
    if (keeps) fwrite(&made, sizeof made, 1, file);
    made = 0;
    fclose(file);
}

PROGRAMS({"xored", xored}, {"complement", complement}, {"shifted", shifted}, {"offset", offset}, {"halves", halves},
         {"swapped", swapped}, {"top_byte", top_byte}, {"boxed", boxed}, {"file", in_file})
