//! A replay that keeps what it is told, and checks the promises about slots on the way.
#![allow(clippy::wildcard_enum_match_arm, reason = "only events of blocks have slots to check")]

use std::collections::BTreeMap;

use super::super::*;

/// An event that was told, with blocks but without slots.
pub(super) type Told = (u64, u64, u32, u32, String);

pub(super) fn name(event: &Event<'_>) -> String {
    match event {
        Event::Alloc { block, arena_seq, .. } => format!("Alloc {block:?} {arena_seq:?}"),
        Event::Free { block, .. } => format!("Free {block:?}"),
        Event::ReallocBegin { block, .. } => format!("ReallocBegin {block:?}"),
        Event::ReallocUndo { block, .. } => format!("ReallocUndo {block:?}"),
        other => format!("{other:?}"),
    }
}

/// Keeps what it is told, and checks that slots mean what they should.
#[derive(Default)]
pub(super) struct Keep {
    pub(super) inherited: Vec<Block>,
    pub(super) told: Vec<Told>,
    pub(super) slots: BTreeMap<u32, Block>,
}

impl Replay for Keep {
    fn inherited(&mut self, slot: u32, block: &Block) {
        assert!(self.slots.insert(slot, *block).is_none());
        self.inherited.push(*block);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        let Entry { seq, at_ns, thread, stack, event } = entry;
        match event {
            Event::Alloc { slot, block, .. } => assert!(self.slots.insert(slot, *block).is_none()),
            Event::ReallocUndo { slot, block } => assert!(self.slots.insert(slot, *block).is_none()),
            Event::Free { slot, block } | Event::ReallocBegin { slot, block } => {
                assert_eq!(self.slots.remove(&slot).as_ref(), Some(block));
            }
            _ => {}
        }
        self.told.push((seq, at_ns, thread.0, stack.0, name(&event)));
    }
}
