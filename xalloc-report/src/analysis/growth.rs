//! Which call stacks hold more and more over the run, and how fast.
//!
//! That a block is alive at exit says little: a table that is filled once and kept is alive too. What rises for as long
//! as the program runs is a leak or a cache without a limit, whether something points to it or not.
//!
//! The run of a process is cut into [`SLICES`] of equal length. A call stack *grows* if its live bytes at the end of a
//! slice never fell below those of the slice before it in the second half of the run, rose in at least a third of all
//! slices and in the second half too, and have a slope above zero. A start that fills tables rises in the first slices
//! only; a sawtooth falls.
//!
//! The slope is that of the straight line closest to the [`SLICES`] figures, by least squares. Two of them, the first and
//! the last, would give a rate as well, and one that a single large block at either end decides.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;

use crate::model::Recorded;
use crate::trace::{Block, Entry, LiveChange, ProcessIndex, Replay, Sampling, StackIndex};

/// Equal parts of a run.
const SLICES: usize = 16;

/// How the live bytes of a call stack changed for as long as a process ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Slope {
    /// Bytes a second: the straight line closest to the live bytes at the ends of 16 equal parts of the run. Negative: they
    /// fell.
    pub bytes_per_s: i64,
    /// From the first of these moments to the last, nanoseconds. Over less than a second the slope tells how a start went,
    /// not how it would go on.
    pub over_ns: u64,
    /// Whether they rose over the whole run: what the rule `growth` of `check` asks.
    pub rises: bool,
}

impl Slope {
    /// Bytes a second, where they rose over the whole run.
    #[must_use]
    pub fn rate(self) -> Option<u64> {
        u64::try_from(self.bytes_per_s).ok().filter(|_| self.rises)
    }
}

/// How the live bytes of the call stacks of one process changed.
#[derive(Debug)]
pub struct Growth {
    slopes: FxHashMap<StackIndex, Slope>,
}

impl Growth {
    /// Replays one process.
    pub(super) fn of<R: Recorded>(recorded: &R, index: ProcessIndex) -> Result<Growth, R::Error> {
        let span = recorded.contents().processes.get(index.0 as usize);
        let (from_ns, to_ns) = span.map_or((0, 0), |process| (process.started_at_ns, process.ended_at_ns));
        let mut slices = Slices {
            from_ns,
            length_ns: to_ns.saturating_sub(from_ns).max(1),
            sampling: recorded.contents().recording.sampling,
            at: 0,
            live: FxHashMap::default(),
        };
        recorded.replay(index, &mut slices)?;
        slices.close(SLICES);
        let slopes = slices.live.into_iter().map(|(stack, live)| (stack, slope(&live.at_end, slices.length_ns)));
        Ok(Growth { slopes: slopes.collect() })
    }

    /// How the live bytes of the call stack changed; `None`: it never had any.
    #[must_use]
    pub fn slope(&self, stack: StackIndex) -> Option<Slope> {
        self.slopes.get(&stack).copied()
    }
}

/// The line closest to these live bytes, at the end of each slice of a run of that length.
fn slope(live: &[u64; SLICES], length_ns: u64) -> Slope {
    let length_ns = i128::from(length_ns.max(1));
    let slices = SLICES as i128;
    // Twice the distance of each moment from the middle, in slices, so that all are whole: their squares add up to
    // n (n^2 - 1) / 3. A slope by them is one for half a slice.
    let weighted = (0..).zip(live).map(|(nth, &bytes)| (2 * nth + 1 - slices) * i128::from(bytes));
    let squares = slices * (slices * slices - 1) / 3;
    let bytes_per_s = 2 * weighted.sum::<i128>() * slices * 1_000_000_000 / (squares * length_ns);
    let bytes_per_s = bytes_per_s.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
    let over_ns = (length_ns * (slices - 1) / slices) as u64;
    Slope { bytes_per_s, over_ns, rises: bytes_per_s > 0 && rises(live) }
}

/// Whether these live bytes, at the end of each slice, rise over the whole run.
fn rises(live: &[u64; SLICES]) -> bool {
    let steps = || live.iter().zip(&live[1..]);
    let risen = steps().filter(|(before, after)| after > before).count();
    let falls_late = steps().skip(SLICES / 2 - 1).any(|(before, after)| after < before);
    let rises_late = live[SLICES - 1] > live[SLICES / 2];
    risen >= SLICES / 3 && !falls_late && rises_late
}

#[derive(Default)]
struct Live {
    now: u64,
    at_end: [u64; SLICES],
}

struct Slices {
    from_ns: u64,
    length_ns: u64,
    sampling: Option<Sampling>,
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

    /// The bytes that a block counts for.
    fn bytes(&self, block: &Block) -> u64 {
        self.sampling.map_or(block.size_bytes, |sampling| sampling.bytes(block.size_bytes))
    }

    fn gain(&mut self, block: &Block) {
        let bytes = self.bytes(block);
        let live = self.live.entry(block.stack).or_default();
        live.now = live.now.saturating_add(bytes);
    }

    fn lose(&mut self, block: &Block) {
        let bytes = self.bytes(block);
        // A block from before a fork was never gained.
        if let Some(live) = self.live.get_mut(&block.stack) {
            live.now = live.now.saturating_sub(bytes);
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
        let rises = |live: &[u64; SLICES]| slope(live, 1_000_000_000).rises;
        assert!(rises(&line(|slice| slice * 10)));
        assert!(rises(&line(|slice| 500 + slice / 2 * 10)));
        for (what, live) in [
            ("a table", line(|slice| slice.min(4) * 100)),
            ("a constant", line(|_| 7)),
            ("a sawtooth", line(|slice| slice % 4 * 10 + slice)),
            ("a run that ended with a clean-up", line(|slice| if slice == 15 { 0 } else { slice })),
            ("nothing in the second half", line(|slice| slice.min(8))),
            ("much at first, and less after it", line(|slice| if slice < 2 { 9_000 } else { slice })),
        ] {
            assert!(!rises(&live), "{what}");
        }
    }

    #[test]
    fn a_slope_is_that_of_the_closest_line_in_bytes_a_second() {
        let line = |of: fn(u64) -> u64| std::array::from_fn(|slice| of(slice as u64));
        // 16 slices of a second each.
        let per_s = |live: [u64; SLICES]| slope(&live, 16_000_000_000).bytes_per_s;
        assert_eq!(per_s(line(|slice| 70 + 10 * slice)), 10);
        assert_eq!(per_s(line(|slice| 1_000 - 10 * slice)), -10);
        assert_eq!(per_s(line(|_| 5)), 0);
        // y = 0, ..., 0, 1360: the last one alone weighs 15 of the 680 that a whole slice's squares are.
        assert_eq!(per_s(line(|slice| if slice == 15 { 1_360 } else { 0 })), 30);
        assert_eq!(per_s([u64::MAX; SLICES]), 0);
        let half = slope(&line(|slice| 10 * slice), 8_000_000_000);
        assert_eq!((half.bytes_per_s, half.over_ns, half.rate()), (20, 7_500_000_000, Some(20)));
        assert_eq!(slope(&line(|slice| 1_000 - slice), 1).rate(), None);
    }

    #[test]
    fn the_cache_of_the_server_grows_while_its_strings_and_its_settings_do_not() {
        let sample = server();
        let growth = Growth::of(&sample, ProcessIndex(0)).expect("a sample has no errors");
        let rate = |stack| growth.slope(stack).and_then(Slope::rate);
        let [cache, header, config] = [1_000, 24, 30_720].map(|size| sample.stack_of(size));
        assert!(rate(cache).is_some_and(|rate| rate > 1_000_000), "{growth:?}");
        assert_eq!([rate(header), rate(config)], [None, None]);
        assert_eq!(growth.slope(config).map(|slope| slope.rises), Some(false));
    }
}
