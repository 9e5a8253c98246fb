//! Records that stand for several events at once.
//!
//! What a program frees beyond its thread's cache is put away by the arena in at most a merge and a way into a bin, and
//! both follow from the block and from very little else; so does what is done with the chunks of fast bins that are
//! emptied. What leads to an [allocation](super::LedTo) follows from the block as well. On interpreters such steps were half
//! of all records. One record for all of them costs a store and a time stamp where two to seven were made, and nothing is
//! left out: a reader takes them [apart](Stamped::apart) again, into the very events that they were.

use super::fill::MOST_FILLED;
use super::record::SIZE_LIMIT;
use super::{BinKind, Event, HeapEvent, Merged, Stamped};
use crate::units::{Addr, CHUNK_HEADER_BYTES, StackId};

/// What an arena did with a chunk that was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PutAway {
    /// Bytes of the chunk.
    pub freed_bytes: u64,
    /// Bytes of what it became; the same if it was not merged.
    pub total_bytes: u64,
    /// With which neighbours it was merged.
    pub merged: Merged,
    /// The bin that the result went to, a fast, small or the unsorted one. `None`: the top took it, or it is not known yet.
    pub bin: Option<BinKind>,
}

impl PutAway {
    /// The way of a chunk of `size_bytes` into its fast bin.
    #[must_use]
    #[inline(always)]
    pub const fn into_fast_bin(size_bytes: u64) -> PutAway {
        let merged = Merged { previous: false, next: false, top: false };
        PutAway { freed_bytes: size_bytes, total_bytes: size_bytes, merged, bin: Some(BinKind::Fast) }
    }

    /// What `step` says of the chunk of `block`, if it is the first step of its being put away and can be told by this.
    #[must_use]
    #[inline(always)]
    pub fn begun_by(step: &HeapEvent, block: Addr) -> Option<PutAway> {
        if let HeapEvent::Bin { addr, size_bytes, bin, index } = *step {
            let merged = Merged::default();
            let begun = PutAway { freed_bytes: size_bytes, total_bytes: size_bytes, merged, bin: Some(bin) };
            return (begun.says(addr, size_bytes, index, block) && size_bytes < SIZE_LIMIT).then_some(begun);
        }
        if let HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } = *step {
            let begun = PutAway { freed_bytes, total_bytes, merged, bin: None };
            return (begun.addr(block) == Some(addr) && total_bytes < SIZE_LIMIT).then_some(begun);
        }
        None
    }

    /// Whether the way into a bin that this tells is that of the chunk at `addr`.
    #[inline(always)]
    fn says(&self, addr: Addr, size_bytes: u64, index: u8, block: Addr) -> bool {
        let is_told = self.bin.and_then(|bin| bin.told_with_free(size_bytes)) == Some(index);
        is_told && size_bytes == self.total_bytes && self.addr(block) == Some(addr)
    }

    /// Whether another step follows at once: what was merged, but not into the top, goes to a bin.
    #[must_use]
    #[inline(always)]
    pub fn goes_on(&self) -> bool {
        self.bin.is_none() && !self.merged.top
    }

    /// With that step, if it is `step` and can be told by this.
    #[must_use]
    #[inline(always)]
    pub fn ended_by(self, step: &HeapEvent, block: Addr) -> Option<PutAway> {
        let HeapEvent::Bin { addr, size_bytes, bin, index } = *step else { return None };
        let ended = PutAway { bin: Some(bin), ..self };
        (self.goes_on() && ended.says(addr, size_bytes, index, block)).then_some(ended)
    }

    /// Where the result is: known but where both neighbours below and above joined, for their sizes are not.
    #[inline(always)]
    fn addr(&self, block: Addr) -> Option<Addr> {
        let chunk = block.0.wrapping_sub(CHUNK_HEADER_BYTES);
        let Merged { previous, next, top } = self.merged;
        match (previous, next | top) {
            (false, _) => Some(Addr(chunk)),
            (true, false) => Some(Addr(chunk.wrapping_sub(self.total_bytes.wrapping_sub(self.freed_bytes)))),
            (true, true) => None,
        }
    }

    /// The step by which the chunk of `block` was merged.
    #[must_use]
    #[inline(always)]
    pub fn merge_step(&self, block: Addr) -> Option<HeapEvent> {
        let PutAway { freed_bytes, total_bytes, merged, .. } = *self;
        let addr = self.addr(block)?;
        (merged != Merged::default()).then_some(HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged })
    }

    /// The step by which the result went to its bin.
    #[must_use]
    #[inline(always)]
    pub fn bin_step(&self, block: Addr) -> Option<HeapEvent> {
        let (bin, size_bytes) = (self.bin?, self.total_bytes);
        let index = bin.told_with_free(size_bytes)?;
        Some(HeapEvent::Bin { addr: self.addr(block)?, size_bytes, bin, index })
    }
}

impl BinKind {
    /// The number of the bin for a freed chunk, if that can share the record of the free.
    #[inline(always)]
    fn told_with_free(self, size_bytes: u64) -> Option<u8> {
        match self {
            BinKind::Fast | BinKind::Unsorted | BinKind::Small => self.index_of(size_bytes),
            BinKind::Cache | BinKind::Large => None,
        }
    }
}

/// A merge that is no part of a free, and the way of the result into its bin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MergeBinned {
    /// Where the result is.
    pub addr: Addr,
    /// Bytes of the chunk that was freed.
    pub freed_bytes: u64,
    /// Bytes of what it became.
    pub total_bytes: u64,
    /// With which neighbours it was merged; not with the top.
    pub merged: Merged,
    /// The bin that the result went to, a small or the unsorted one.
    pub bin: BinKind,
}

impl MergeBinned {
    /// Both steps as one, if `bin` is of what `merge` made and one record can tell both.
    #[must_use]
    #[inline(always)]
    pub fn of(merge: &HeapEvent, bin: &HeapEvent) -> Option<MergeBinned> {
        let HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged } = *merge else { return None };
        let HeapEvent::Bin { addr: chunk, size_bytes, bin, index } = *bin else { return None };
        let follows = chunk == addr && size_bytes == total_bytes && bin.told_with_free(size_bytes) == Some(index);
        let fits = !merged.top && bin != BinKind::Fast && total_bytes < SIZE_LIMIT && freed_bytes < SIZE_LIMIT;
        (follows && fits).then_some(MergeBinned { addr, freed_bytes, total_bytes, merged, bin })
    }

    /// The two steps; one of them is none only in a record that nobody wrote.
    #[must_use]
    #[inline(always)]
    pub fn steps(self) -> [Option<HeapEvent>; 2] {
        let MergeBinned { addr, freed_bytes, total_bytes, merged, bin } = self;
        let index = bin.told_with_free(total_bytes);
        let into_bin = index.map(|index| HeapEvent::Bin { addr, size_bytes: total_bytes, bin, index });
        [Some(HeapEvent::Coalesce { addr, freed_bytes, total_bytes, merged }), into_bin]
    }
}

impl Stamped {
    /// The events that this one stands for, in their order; itself, if it stands for no others.
    pub fn apart(self) -> impl Iterator<Item = Stamped> {
        let Stamped { stamp, stack, event } = self;
        let same = |event| Some(Stamped { stamp, stack, event });
        let events: [Option<Stamped>; MOST_FILLED] =
            if let Event::FreeBinned { addr, call, arena, seq, put_away } = event {
                let free = Stamped { stamp, stack: StackId::NONE, event: Event::Free { addr, call } };
                let merge = put_away.merge_step(addr);
                let bin_seq = seq.wrapping_add(u16::from(merge.is_some()));
                let bin = put_away.bin_step(addr).and_then(|step| same(Event::Heap { arena, seq: bin_seq, step }));
                [Some(free), merge.and_then(|step| same(Event::Heap { arena, seq, step })), bin, None, None]
            } else if let Event::MergeBinned { arena, seq, merging } = event {
                let [merge, bin] = merging.steps();
                let bin = bin.and_then(|step| same(Event::Heap { arena, seq: seq.wrapping_add(1), step }));
                [merge.and_then(|step| same(Event::Heap { arena, seq, step })), bin, None, None, None]
            } else if let Event::CacheFill { arena, seq, size_bytes, chunks } = event {
                let mut next_seq = seq;
                chunks.map(|addr| {
                    let index = BinKind::Cache.index_of(size_bytes).filter(|_| addr.0 != 0)?;
                    let seq = next_seq;
                    next_seq = seq.wrapping_add(1);
                    let step = HeapEvent::Bin { addr, size_bytes, bin: BinKind::Cache, index };
                    same(Event::Heap { arena, seq, step })
                })
            } else if let Event::AllocAfter { .. } = event {
                event.steps_and_allocation().map(|event| event.and_then(same))
            } else {
                [same(event), None, None, None, None]
            };
        events.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ArenaId, Stamp};
    use crate::wire::Call;

    const BLOCK: Addr = Addr(0x5010);

    fn events(event: Event) -> Vec<Event> {
        let stamped = Stamped { stamp: Stamp(7), stack: StackId(9), event };
        let through_the_ring = stamped.encode().decode().unwrap();
        through_the_ring.apart().map(|stamped| stamped.event).collect()
    }

    fn merged(previous: bool, next: bool, top: bool) -> Merged {
        Merged { previous, next, top }
    }

    /// The steps of a free as one record, if they can be.
    fn together(steps: &[HeapEvent]) -> Option<Event> {
        let mut put_away = PutAway::begun_by(&steps[0], BLOCK)?;
        if let Some(second) = steps.get(1) {
            put_away = put_away.ended_by(second, BLOCK)?;
        }
        Some(Event::FreeBinned { addr: BLOCK, call: Call::FreeSized, arena: ArenaId(3), seq: u16::MAX, put_away })
    }

    fn assert_comes_apart_as(steps: &[HeapEvent]) {
        let free = Event::Free { addr: BLOCK, call: Call::FreeSized };
        let seqs = [u16::MAX, 0];
        let told = steps.iter().zip(seqs).map(|(&step, seq)| Event::Heap { arena: ArenaId(3), seq, step });
        let expected: Vec<Event> = std::iter::once(free).chain(told).collect();
        assert_eq!(events(together(steps).unwrap()), expected);
    }

    #[test]
    fn a_free_with_its_steps_comes_apart_as_it_was() {
        let bin = |addr, size_bytes, bin, index| HeapEvent::Bin { addr: Addr(addr), size_bytes, bin, index };
        let merge =
            |addr, total_bytes, merged| HeapEvent::Coalesce { addr: Addr(addr), freed_bytes: 48, total_bytes, merged };
        assert_comes_apart_as(&[bin(0x5000, 48, BinKind::Fast, 1)]);
        assert_comes_apart_as(&[bin(0x5000, 2_048, BinKind::Unsorted, 1)]);
        assert_comes_apart_as(&[bin(0x5000, 480, BinKind::Small, 30)]);
        assert_comes_apart_as(&[merge(0x5000, 4_096, merged(false, false, true))]);
        assert_comes_apart_as(&[
            merge(0x5000, 112, merged(false, true, false)),
            bin(0x5000, 112, BinKind::Unsorted, 1),
        ]);
        assert_comes_apart_as(&[merge(0x4fc0, 112, merged(true, false, false)), bin(0x4fc0, 112, BinKind::Small, 7)]);
    }

    fn merge_and_bin(merged: Merged, total_bytes: u64, bin: BinKind, index: u8) -> [HeapEvent; 2] {
        let addr = Addr(0x4fc0);
        [
            HeapEvent::Coalesce { addr, freed_bytes: 48, total_bytes, merged },
            HeapEvent::Bin { addr, size_bytes: total_bytes, bin, index },
        ]
    }

    #[test]
    fn a_merge_that_is_no_part_of_a_free_comes_apart_as_it_was() {
        for (previous, next, total_bytes, bin, index) in [
            (true, false, 112, BinKind::Unsorted, 1),
            (true, true, 1 << 35, BinKind::Unsorted, 1),
            (false, true, 112, BinKind::Small, 7),
        ] {
            let [merge, bin] = merge_and_bin(merged(previous, next, false), total_bytes, bin, index);
            let merging = MergeBinned::of(&merge, &bin).unwrap();
            let told = [(u16::MAX, merge), (0, bin)].map(|(seq, step)| Event::Heap { arena: ArenaId(3), seq, step });
            assert_eq!(events(Event::MergeBinned { arena: ArenaId(3), seq: u16::MAX, merging }), told);
        }
    }

    #[test]
    fn a_way_into_a_bin_that_does_not_follow_from_the_merge_is_not_told_with_it() {
        let apart = |[merge, bin]: [HeapEvent; 2]| MergeBinned::of(&merge, &bin).is_none();
        assert!(!apart(merge_and_bin(merged(true, false, false), 112, BinKind::Small, 7)));
        assert!(apart(merge_and_bin(merged(true, false, false), 112, BinKind::Small, 8)));
        assert!(apart(merge_and_bin(merged(true, false, false), 112, BinKind::Fast, 5)));
        assert!(apart(merge_and_bin(merged(true, false, false), 112, BinKind::Cache, 5)));
        assert!(apart(merge_and_bin(merged(false, false, true), 112, BinKind::Small, 7)));
        assert!(apart(merge_and_bin(merged(true, false, false), SIZE_LIMIT, BinKind::Unsorted, 1)));
        let [merge, _] = merge_and_bin(merged(true, false, false), 112, BinKind::Small, 7);
        let [_, other] = merge_and_bin(merged(true, false, false), 128, BinKind::Small, 8);
        assert!(MergeBinned::of(&merge, &other).is_none());
        assert!(MergeBinned::of(&other, &other).is_none());
    }

    #[test]
    fn steps_that_do_not_follow_from_the_block_are_not_put_together() {
        let bin = |addr, bin, index| HeapEvent::Bin { addr: Addr(addr), size_bytes: 64, bin, index };
        let merge = |merged| HeapEvent::Coalesce { addr: Addr(0x4fc0), freed_bytes: 48, total_bytes: 112, merged };
        for steps in [
            &[bin(0x5020, BinKind::Fast, 2)][..],
            &[bin(0x5000, BinKind::Fast, 3)],
            &[bin(0x5000, BinKind::Cache, 2)],
            &[bin(0x5000, BinKind::Large, 64)],
            &[merge(merged(true, true, false))],
            &[merge(merged(true, false, true))],
            &[merge(merged(true, false, false)), bin(0x5000, BinKind::Unsorted, 1)],
            &[HeapEvent::ArenaIdle],
        ] {
            assert_eq!(together(steps), None, "{steps:?}");
        }
        let huge = HeapEvent::Bin { addr: Addr(0x5000), size_bytes: SIZE_LIMIT, bin: BinKind::Unsorted, index: 1 };
        assert_eq!(together(&[huge]), None);
    }
}
