/* The same with a child that no fork handler announces: `_Fork` runs none.
 *
 * truth: in truth_before: allocations=3 allocated_bytes=3000
 * truth: in truth_child: allocations=5 allocated_bytes=1000 live_at_exit_bytes=600
 * truth: in truth_after: allocations=2 allocated_bytes=100 temporary_allocations=1
 * truth: summary: processes=2 allocations=10 frees=4 dropped_events=0 unknown_frees=1
 */
#define _GNU_SOURCE
#define fork _Fork
#include "fork.c"
