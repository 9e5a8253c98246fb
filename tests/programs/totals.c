/* Totals, the peak by call stack, temporary allocations, live at exit.
 *
 * Ten blocks stay for ever, five are freed last, four make the peak, a hundred are freed as soon as they were made. Of
 * the four of the peak the last one is temporary too: it is freed before the next allocation.
 *
 * truth: summary: allocations=119 frees=109 allocated_bytes=214200 failed_allocations=0
 * truth: summary: temporary_allocations=101 temporary_bytes=53200 peak_live_bytes=211000
 * truth: summary: live_at_exit_bytes=10000 live_at_exit_blocks=10 threads=1 processes=1 dropped_events=0
 * truth: summary: reallocs_in_place=0 reallocs_moved=0 unknown_frees=0 implied_frees=0 unknown_stacks=0
 * truth: in truth_keep: allocations=10 allocated_bytes=10000 temporary_allocations=0 peak_bytes=10000 peak_blocks=10
 * truth: in truth_keep: live_at_exit_bytes=10000 live_at_exit_blocks=10
 * truth: in truth_later: allocations=5 allocated_bytes=1000 peak_bytes=1000 peak_blocks=5 live_at_exit_bytes=0
 * truth: in truth_peak: allocations=4 allocated_bytes=200000 temporary_allocations=1 peak_bytes=200000 peak_blocks=4
 * truth: in truth_temporary: allocations=100 allocated_bytes=3200 temporary_allocations=100 peak_bytes=0
 */
#include <stdlib.h>

#include "keep.h"

NOINLINE static void truth_keep(void) {
    for (int i = 0; i < 10; i++) keep(malloc(1000));
}

NOINLINE static void truth_later(void **blocks) {
    for (int i = 0; i < 5; i++) blocks[i] = keep(malloc(200));
}

NOINLINE static void truth_peak(void) {
    void *blocks[4];
    for (int i = 0; i < 4; i++) blocks[i] = keep(malloc(50000));
    for (int i = 0; i < 4; i++) free(blocks[i]);
}

NOINLINE static void truth_temporary(void) {
    for (int i = 0; i < 100; i++) free(keep(malloc(32)));
}

int main(void) {
    void *later[5];
    truth_keep();
    truth_later(later);
    truth_peak();
    truth_temporary();
    for (int i = 0; i < 5; i++) free(later[i]);
    return 0;
}
