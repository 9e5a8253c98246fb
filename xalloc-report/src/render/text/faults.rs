//! What the program did wrong with its heap, with the call stacks of everybody involved.

use std::fmt::Write;

use super::frames;
use crate::analysis::{BlockView, FaultView, FreedView, InvolvedView, NeighbourView, StackState, ThreadName};
use crate::render::escape::printable;
use crate::render::number::{bytes, count, counted, instant, span};
use crate::render::style::{ASIDE, BAD, DOUBT, FIGURE, HEADING};

/// Faults that are shown; JSON has more.
const SHOWN: usize = 5;
/// Functions of each call.
const FRAMES: usize = 12;
/// Functions of those who allocated the neighbours.
const NEIGHBOURS_FRAMES: usize = 4;

/// Appends the first of `all` faults.
pub(super) fn append(out: &mut String, faults: &[FaultView], all: u64) {
    if all == 0 {
        return;
    }
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "\n{HEADING}{}{HEADING:#} of the program in its use of the heap", counted(all, "fault"));
    for fault in faults.iter().take(SHOWN) {
        one(out, fault);
    }
    let more = all.saturating_sub(SHOWN.min(faults.len()) as u64);
    if more > 0 {
        let _ =
            writeln!(out, "\n  {ASIDE}… {} more; --format json has the first {}{ASIDE:#}", count(more), faults.len());
    }
}

fn one(out: &mut String, fault: &FaultView) {
    let _ = writeln!(
        out,
        "\n  {BAD}{}{BAD:#}: {FIGURE}{}{FIGURE:#} by {} of process {}, {}",
        fault.kind.title(),
        fault.addr,
        thread(&fault.thread),
        fault.thread.pid,
        instant(fault.at_ns)
    );
    frames::append_functions(out, &fault.by.frames, fault.by.stack, FRAMES, 6);
    if let Some(InvolvedView { block, offset, freed }) = &fault.block {
        let inside =
            if *offset > 0 { format!("; the pointer is {} into it", counted(*offset, "byte")) } else { String::new() };
        allocated(out, &format!("the block of {} at {}{inside}", bytes(block.size), block.addr), block, FRAMES);
        if let Some(freed) = freed {
            first_free(out, freed, fault.at_ns);
        }
    }
    for (side, neighbour) in [("below", &fault.below), ("above", &fault.above)] {
        if let Some(NeighbourView { block, distance }) = neighbour {
            let what = format!(
                "live block {side}, {} away: {} at {}",
                counted(*distance, "byte"),
                bytes(block.size),
                block.addr
            );
            allocated(out, &what, block, NEIGHBOURS_FRAMES);
        }
    }
}

fn allocated(out: &mut String, what: &str, block: &BlockView, frames: usize) {
    let by = printable(&block.allocated.call);
    let _ = writeln!(out, "    {what}, from {by} by {}, {}", thread(&block.thread), instant(block.at_ns));
    frames::append_functions(out, &block.allocated.frames, block.allocated.stack, frames, 6);
}

fn first_free(out: &mut String, freed: &FreedView, again_at_ns: u64) {
    let before = span(again_at_ns.saturating_sub(freed.at_ns));
    let _ = writeln!(out, "    it was freed by {}, {before} before", thread(&freed.thread));
    if freed.by.stack == StackState::None {
        let _ = writeln!(out, "      {DOUBT}by which calls is known with record --free-stacks{DOUBT:#}");
    } else {
        frames::append_functions(out, &freed.by.frames, freed.by.stack, FRAMES, 6);
    }
}

fn thread(thread: &ThreadName) -> String {
    format!("thread {} ({})", thread.number, printable(&thread.name))
}
