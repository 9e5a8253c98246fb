//! The layout with which a process begins, and two replays in one pass.

use super::FragmentationError;
use crate::model::Recorded;
use crate::model::layout::Layout;
use crate::model::survey::Survey;
use crate::trace::{Block, Entry, ProcessIndex, Replay};

/// The layout with which a process begins: empty, or what its parent's was at the fork.
pub(super) fn begin<R: Recorded>(recorded: &R, process: ProcessIndex) -> Result<Layout, FragmentationError<R::Error>> {
    let contents = recorded.contents();
    let told = contents.processes.get(process.0 as usize);
    let Some((told, parent)) = told.filter(|told| told.forked).and_then(|told| Some((told, told.parent?))) else {
        return Ok(Layout::of(contents));
    };
    // A parent's index is smaller than its child's; a damaged trace could otherwise go round for ever.
    if parent >= process {
        return Ok(Layout::of(contents));
    }
    let mut survey = Survey::looking_for_fork(told.started_at_ns);
    recorded.replay(parent, &mut survey).map_err(FragmentationError::Recorded)?;
    let mut until = Until { layout: begin(recorded, parent)?, seq: survey.fork_seq.unwrap_or(u64::MAX) };
    recorded.replay(parent, &mut until).map_err(FragmentationError::Recorded)?;
    Ok(until.layout)
}

/// A layout that takes the events before a number.
struct Until {
    layout: Layout,
    seq: u64,
}

impl Replay for Until {
    fn inherited(&mut self, slot: u32, block: &Block) {
        self.layout.inherited(slot, block);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        if entry.seq < self.seq {
            self.layout.entry(entry);
        }
    }
}

/// Two replays in one pass.
pub(super) struct Both<A, B>(pub(super) A, pub(super) B);

impl<A: Replay, B: Replay> Replay for Both<A, B> {
    fn inherited(&mut self, slot: u32, block: &Block) {
        self.0.inherited(slot, block);
        self.1.inherited(slot, block);
    }

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        self.0.entry(entry);
        self.1.entry(entry);
    }
}
