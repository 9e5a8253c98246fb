//! The layout with which a process begins, and two replays in one pass.

use super::FragmentationError;
use crate::model::Recorded;
use crate::model::layout::Layout;
use crate::trace::{Block, Entry, Event, Inheritance, LiveChange, ProcessEvent, ProcessIndex, Replay};

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
    let mut search = ForkOf {
        inheritance: recorded.inheritance(process).map_err(FragmentationError::Recorded)?,
        started_at_ns: told.started_at_ns,
        reached: recorded.inheritance(parent).map_err(FragmentationError::Recorded)?,
        by_inheritance: None,
        by_time: None,
    };
    recorded.replay(parent, &mut search).map_err(FragmentationError::Recorded)?;
    let mut until = Until { layout: begin(recorded, parent)?, seq: search.seq().unwrap_or(u64::MAX) };
    recorded.replay(parent, &mut until).map_err(FragmentationError::Recorded)?;
    Ok(until.layout)
}

/// Looks among a process's forks for the one that a child came from.
///
/// A child begins with its first call, and its parent may have forked others by then: the time alone does not tell
/// them apart. How often the parent had allocated and how many of those blocks it held does: between two forks that
/// agree in both it did neither allocate nor free.
struct ForkOf {
    inheritance: Inheritance,
    started_at_ns: u64,
    /// What the parent has come to.
    reached: Inheritance,
    /// Events before the fork and its own, by what the child has and by when it began.
    by_inheritance: Option<u64>,
    by_time: Option<u64>,
}

impl ForkOf {
    /// Events up to the fork. Of a damaged trace, where no fork agrees, the last before the child began is meant.
    fn seq(&self) -> Option<u64> {
        self.by_inheritance.or(self.by_time)
    }
}

impl Replay for ForkOf {
    /// Counted already.
    fn inherited(&mut self, _slot: u32, _block: &Block) {}

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        match entry.event.live_change() {
            Some(LiveChange::Begins { .. }) => self.reached.live += 1,
            Some(LiveChange::Ends { .. }) => self.reached.live = self.reached.live.saturating_sub(1),
            None => {}
        }
        if let Event::Alloc { .. } = entry.event {
            self.reached.allocations += 1;
        } else if let Event::Process(ProcessEvent::Fork) = entry.event {
            if self.reached == self.inheritance {
                self.by_inheritance = Some(entry.seq + 1);
            }
            if entry.at_ns <= self.started_at_ns {
                self.by_time = Some(entry.seq + 1);
            }
        }
    }
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
