/* Blocks that point to each other, in every shape; `lose` drops the root's pointer to all of them.
 *
 *   case           keep         lose         what is special
 *   pair           reachable    cycle        two that point to each other
 *   doubly_linked  reachable    cycle        a list with links both ways
 *   parents        reachable    cycle        a tree whose children point to their parent
 *   figure_eight   reachable    cycle        two rings that share a block
 *   chord          reachable    cycle        a ring with a short cut
 *   complete       reachable    cycle        each points to each
 *   through_middle reachable    cycle        a ring of pointers into the middle
 *   long_ring      reachable    cycle        ten thousand blocks
 *   second_ring    reachable    indirect     it is in a ring that another ring points to
 *   headed_ring    reachable    indirect     it is in a ring that one block points to
 *   shared_tail    reachable    indirect     two lost blocks point to it
 *   long_chain     reachable    indirect     behind a hundred thousand others
 *   large_head     reachable    indirect     a block with a mapping of its own points to it
 *   middle_root    possible     cycle        a ring with a pointer into its middle from outside
 */
#include "twins.h"

static void **node(void) { return calloc(1, 32); }

static void hold(void *kept) { *(void *volatile *)&slot = keeps ? kept : 0; }

static void pair(void) {
    void **a = block(), **b = node();
    a[0] = b, b[0] = a;
    hold(a);
}

static void doubly_linked(void) {
    void **a = block(), **b = node(), **c = node();
    a[0] = b, b[0] = c, c[1] = b, b[1] = a;
    hold(a);
}

static void parents(void) {
    void **top = block(), **left = node(), **right = node(), **leaf = node();
    top[0] = left, top[1] = right, left[0] = leaf, left[2] = right[2] = top, leaf[2] = left;
    hold(top);
}

static void figure_eight(void) {
    void **shared = block(), **left = node(), **right = node();
    shared[0] = left, left[0] = shared, shared[1] = right, right[0] = shared;
    hold(right);
}

static void chord(void) {
    void **a = block(), **b = node(), **c = node(), **d = node();
    a[0] = b, b[0] = c, c[0] = d, d[0] = a, a[1] = c;
    hold(d);
}

static void complete(void) {
    void **all[4] = {block(), node(), node(), node()};
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++) all[from][to] = all[to];
    hold(all[3]);
    memset((void *volatile)all, 0, sizeof all);
}

static void through_middle(void) {
    char **a = block(), **b = (char **)node();
    a[0] = (char *)b + 16, b[0] = (char *)a + 4000;
    hold(a);
}

static void long_ring(void) {
    void **first = block(), **last = first;
    for (int nth = 0; nth < 10000; nth++) last = *last = node();
    *last = first;
    hold(first);
}

static void second_ring(void) {
    void **a = node(), **b = node(), **c = block(), **d = node();
    a[0] = b, b[0] = a, b[1] = c, c[0] = d, d[0] = c;
    hold(a);
}

static void headed_ring(void) {
    void **head = node(), **a = block(), **b = node();
    head[0] = a, a[0] = b, b[0] = a;
    hold(head);
}

static void *second;
static void shared_tail(void) {
    void **one = node(), **two = node();
    one[0] = two[0] = block();
    hold(one);
    *(void *volatile *)&second = keeps ? two : 0;
}

static void long_chain(void) {
    void **first = node(), **last = first;
    for (int nth = 0; nth < 100000; nth++) last = *last = node();
    *last = block();
    hold(first);
}

static void large_head(void) {
    void **large = calloc(1, 1 << 20);
    large[100000] = block();
    hold(large);
}

static void middle_root(void) {
    char *a = block();
    void **b = node();
    *(void **)a = b, b[0] = a;
    hold(a + 4000);
}

PROGRAMS({"pair", pair}, {"doubly_linked", doubly_linked}, {"parents", parents}, {"figure_eight", figure_eight},
         {"chord", chord}, {"complete", complete}, {"through_middle", through_middle}, {"long_ring", long_ring},
         {"second_ring", second_ring}, {"headed_ring", headed_ring}, {"shared_tail", shared_tail},
         {"long_chain", long_chain}, {"large_head", large_head}, {"middle_root", middle_root})
