//! Which call stacks hold more and more over the run.
//!
//! That a block is alive at exit says little: a table that is filled once and kept is alive too. What rises for as long
//! as the program runs is a leak or a cache without a limit, whether something points to it or not.
//!
//! The run of a process is cut into [`SLICES`] of equal length. A call stack *grows* if its live bytes at the end of a
//! slice never fell below those of the slice before it in the second half of the run, rose in at least a third of all
//! slices and in the second half too. A start that fills tables rises in the first slices only; a sawtooth falls.

use rustc_hash::FxHashMap;

use crate::model::Recorded;
use crate::trace::{Block, Entry, LiveChange, ProcessIndex, Replay, StackIndex};

/// Equal parts of a run.
const SLICES: usize = 16;

/// How fast the call stacks of one process grew.
#[derive(Debug)]
pub struct Growth {
    rates: FxHashMap<StackIndex, u64>,
}

impl Growth {
    /// Replays one process.
    pub(super) fn of<R: Recorded>(recorded: &R, index: ProcessIndex) -> Result<Growth, R::Error> {
        let span = recorded.contents().processes.get(index.0 as usize);
        let (from_ns, to_ns) = span.map_or((0, 0), |process| (process.started_at_ns, process.ended_at_ns));
        let mut slices =
            Slices { from_ns, length_ns: to_ns.saturating_sub(from_ns).max(1), at: 0, live: FxHashMap::default() };
        recorded.replay(index, &mut slices)?;
        slices.close(SLICES);
        let grown = slices.live.into_iter().filter(|(_, live)| grows(&live.at_end));
        // From the end of the first slice to that of the last. What rises in less than a second is told as it would go on.
        let passed_ns = (u128::from(slices.length_ns) * (SLICES as u128 - 1) / SLICES as u128).max(1);
        let rate = |live: &Live| {
            let risen = live.at_end[SLICES - 1].saturating_sub(live.at_end[0]);
            u64::try_from(u128::from(risen) * 1_000_000_000 / passed_ns).unwrap_or(u64::MAX)
        };
        Ok(Growth { rates: grown.map(|(stack, live)| (stack, rate(&live))).collect() })
    }

    /// Bytes a second by which the live bytes of the call stack rose, if they rose over the whole run.
    #[must_use]
    pub fn rate(&self, stack: StackIndex) -> Option<u64> {
        self.rates.get(&stack).copied()
    }
}

/// Whether these live bytes, at the end of each slice, rise over the whole run.
fn grows(live: &[u64; SLICES]) -> bool {
    let steps = || live.iter().zip(&live[1..]);
    let rises = steps().filter(|(before, after)| after > before).count();
    let falls_late = steps().skip(SLICES / 2 - 1).any(|(before, after)| after < before);
    let rises_late = live[SLICES - 1] > live[SLICES / 2];
    rises >= SLICES / 3 && !falls_late && rises_late
}

#[derive(Default)]
struct Live {
    now: u64,
    at_end: [u64; SLICES],
}

struct Slices {
    from_ns: u64,
    length_ns: u64,
    /// Slices that are over.
    at: usize,
    live: FxHashMap<StackIndex, Live>,
}

impl Slices {
    /// Notes what is live at the ends of the slices up to `slice`.
    fn close(&mut self, slice: usize) {
        let slice = slice.min(SLICES);
        if slice > self.at {
            for live in self.live.values_mut() {
                live.at_end[self.at..slice].fill(live.now);
            }
            self.at = slice;
        }
    }

    fn gain(&mut self, block: &Block) {
        let live = self.live.entry(block.stack).or_default();
        live.now = live.now.saturating_add(block.size_bytes);
    }

    fn lose(&mut self, block: &Block) {
        // A block from before a fork was never gained.
        if let Some(live) = self.live.get_mut(&block.stack) {
            live.now = live.now.saturating_sub(block.size_bytes);
        }
    }
}

impl Replay for Slices {
    fn inherited(&mut self, _: u32, block: &Block) {
        self.gain(block);
    }

    fn entry(&mut self, entry: Entry<'_>) {
        let passed_ns = entry.at_ns.saturating_sub(self.from_ns);
        let slice = u128::from(passed_ns) * SLICES as u128 / u128::from(self.length_ns);
        self.close(usize::try_from(slice).unwrap_or(SLICES));
        match entry.event.live_change() {
            Some(LiveChange::Begins { block, .. }) => self.gain(block),
            Some(LiveChange::Ends { block, .. }) => self.lose(block),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::server;

    #[test]
    fn what_rises_to_the_end_grows_and_what_is_filled_once_does_not() {
        let line = |of: fn(u64) -> u64| std::array::from_fn(|slice| of(slice as u64));
        assert!(grows(&line(|slice| slice * 10)));
        assert!(grows(&line(|slice| 500 + slice / 2 * 10)));
        for (what, live) in [
            ("a table", line(|slice| slice.min(4) * 100)),
            ("a constant", line(|_| 7)),
            ("a sawtooth", line(|slice| slice % 4 * 10 + slice)),
            ("a run that ended with a clean-up", line(|slice| if slice == 15 { 0 } else { slice })),
            ("nothing in the second half", line(|slice| slice.min(8))),
        ] {
            assert!(!grows(&live), "{what}");
        }
    }

    #[test]
    fn the_cache_of_the_server_grows_while_its_strings_and_its_settings_do_not() {
        let sample = server();
        let growth = Growth::of(&sample, ProcessIndex(0)).expect("a sample has no errors");
        let [cache, header, config] = [1_000, 24, 30_720].map(|size| sample.stack_of(size));
        assert!(growth.rate(cache).is_some_and(|rate| rate > 1_000_000), "{growth:?}");
        assert_eq!([growth.rate(header), growth.rate(config)], [None, None]);
    }
}
