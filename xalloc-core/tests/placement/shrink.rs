//! From a trace that shows a difference to the smallest one that still does.

use std::collections::HashSet;

use crate::trace::{Kind, Op};

/// Whether a trace makes sense: threads run while they act, blocks are made before they are freed or resized.
fn is_sound(ops: &[Op]) -> bool {
    let mut running = HashSet::from([0]);
    let mut live = HashSet::new();
    ops.iter().all(|op| match op.kind {
        Kind::Start | Kind::StartBare => running.insert(op.thread),
        Kind::Exit => running.remove(&op.thread),
        Kind::Malloc | Kind::Calloc | Kind::Memalign => running.contains(&op.thread) && live.insert(op.slot),
        Kind::Free => running.contains(&op.thread) && live.remove(&op.slot),
        Kind::Realloc => running.contains(&op.thread) && live.contains(&op.slot),
        Kind::Trim | Kind::Mallopt | Kind::Sbrk | Kind::Block => running.contains(&op.thread),
    })
}

/// Shrinks `ops` as long as `differs`, within `budget` attempts: cuts the end, then runs of operations, then single
/// ones together with the free of their block.
pub(crate) fn shrink(mut ops: Vec<Op>, mut budget: u32, mut differs: impl FnMut(&[Op]) -> Option<usize>) -> Vec<Op> {
    while let Some(at) = differs(&ops) {
        if at + 1 == ops.len() {
            break;
        }
        ops.truncate(at + 1);
    }
    let mut run = (ops.len() / 2).max(1);
    loop {
        let mut start = 0;
        let mut shortened = false;
        while start < ops.len() && budget > 0 {
            let shorter = without(&ops, start, run);
            budget -= 1;
            match shorter.filter(|shorter| is_sound(shorter)).and_then(|shorter| differs(&shorter).map(|_| shorter)) {
                Some(shorter) => {
                    ops = shorter;
                    shortened = true;
                }
                None => start += run,
            }
        }
        if budget == 0 || (run == 1 && !shortened) {
            return ops;
        }
        run = (run / 2).max(1);
    }
}

/// The trace without `run` operations from `start` on, nor what needs the blocks that those made.
fn without(ops: &[Op], start: usize, run: usize) -> Option<Vec<Op>> {
    let end = (start + run).min(ops.len());
    let mut dead: HashSet<u32> = HashSet::new();
    let mut kept = ops[..start].to_vec();
    let live = |kept: &[Op], slot: u32| {
        kept.iter()
            .rev()
            .find(|op| op.slot == slot && op.kind != Kind::Start)
            .is_some_and(|op| !matches!(op.kind, Kind::Free | Kind::Trim | Kind::Mallopt | Kind::Sbrk | Kind::Block))
    };
    for op in &ops[start..end] {
        dead.insert(op.slot);
    }
    for op in &ops[end..] {
        let makes = matches!(op.kind, Kind::Malloc | Kind::Calloc | Kind::Memalign);
        let uses = matches!(op.kind, Kind::Free | Kind::Realloc);
        if dead.contains(&op.slot) {
            if uses && !live(&kept, op.slot) {
                continue;
            }
            if makes && live(&kept, op.slot) {
                kept.push(Op { kind: Kind::Free, size: 0, align: 0, ..*op });
            }
        }
        kept.push(*op);
    }
    (kept.len() < ops.len()).then_some(kept)
}
