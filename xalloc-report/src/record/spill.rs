//! What a process without a recorder wrote behind its segment: batches of records, each of one thread.
//!
//! A batch is a header with a count and the records. A process that was killed while it wrote one leaves a hole, whose
//! length nobody knows; the next batch is then found by its mark, and the hole is counted. What was in the hole is in the
//! ring still. A file that lost its end says in its header how many records it had.

use std::collections::HashMap;

use xalloc_core::session::{SPILL_MAGIC, SpillHeader, layout, ring_state};
use xalloc_core::units::Stamp;
use xalloc_core::wire::Record;

use crate::os::segment::{HeaderCounter, Segment};

const HEADER_BYTES: usize = size_of::<SpillHeader>();
const RECORD_BYTES: usize = size_of::<Record>();

/// Batches and remaining rings of a file, by thread.
#[derive(Debug)]
pub(crate) struct Spilled {
    threads: Vec<SpilledThread>,
    /// Places where something that is no batch lay between batches.
    pub(crate) holes: u64,
    /// Records that were in the file, and are not there any more.
    pub(crate) cut_records: u64,
}

#[derive(Debug)]
struct SpilledThread {
    serial: u32,
    /// Offset and count of each batch, last one first.
    batches: Vec<(usize, usize)>,
    /// The rings that hold the thread's last records, to be read from the last. One, unless a ring could not be spilled when the
    /// thread gave it back, and the thread called again.
    rings: Vec<usize>,
}

impl Spilled {
    /// Finds all batches behind the segment, up to the end of the file.
    pub(crate) fn find(segment: &Segment) -> Spilled {
        let whole = segment.header_u64(HeaderCounter::Spilled);
        let mut spilled = Spilled { threads: Vec::new(), holes: 0, cut_records: whole };
        let mut by_serial: HashMap<u32, usize> = HashMap::new();
        let mut at = layout::SEGMENT_BYTES;
        let mut in_hole = false;
        while let Some(batch) = batch_at(segment, at) {
            match batch {
                Some(SpillHeader { thread, records, .. }) => {
                    in_hole = false;
                    at += HEADER_BYTES;
                    // Of the last batch of a file that was cut, the first records are there.
                    let there = (records as usize).min((segment.len_bytes() - at) / RECORD_BYTES);
                    spilled.cut_records = spilled.cut_records.saturating_sub(there as u64);
                    spilled.thread(&mut by_serial, thread).batches.push((at, there));
                    at += records as usize * RECORD_BYTES;
                }
                None => {
                    spilled.holes += u64::from(!in_hole);
                    in_hole = true;
                    at += HEADER_BYTES;
                }
            }
        }
        for ring in 0..layout::RINGS {
            if segment.ring_state(ring) != ring_state::FREE {
                spilled.thread(&mut by_serial, segment.ring_thread(ring)).rings.push(ring);
            }
        }
        for thread in &mut spilled.threads {
            thread.batches.reverse();
            thread.rings.reverse();
        }
        spilled
    }

    fn thread(&mut self, by_serial: &mut HashMap<u32, usize>, serial: u32) -> &mut SpilledThread {
        let threads = &mut self.threads;
        let at = *by_serial.entry(serial).or_insert_with(|| {
            threads.push(SpilledThread { serial, batches: Vec::new(), rings: Vec::new() });
            threads.len() - 1
        });
        &mut self.threads[at]
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    pub(crate) fn serial(&self, thread: usize) -> u32 {
        self.threads[thread].serial
    }

    /// Copies the next records of `thread` behind `into`; nothing if there are no more.
    pub(crate) fn refill(&mut self, thread: usize, segment: &mut Segment, into: &mut Vec<Record>) {
        let thread = &mut self.threads[thread];
        while into.is_empty()
            && let Some((at, records)) = thread.batches.pop()
        {
            read_records(segment, at, records, into);
        }
        while into.is_empty()
            && let Some(ring) = thread.rings.pop()
        {
            segment.take(ring, Stamp(u64::MAX), usize::MAX, into);
        }
    }
}

/// What the bytes at `at` say, if they are a batch's header; `None` at the file's end.
fn batch_at(segment: &Segment, at: usize) -> Option<Option<SpillHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    let header = segment.copy(at, &mut bytes).then(|| SpillHeader::from_bytes(&bytes))?;
    Some((header.magic == SPILL_MAGIC).then_some(header))
}

fn read_records(segment: &Segment, at: usize, records: usize, into: &mut Vec<Record>) {
    let mut bytes = [0; RECORD_BYTES];
    for number in 0..records {
        if !segment.copy(at + number * RECORD_BYTES, &mut bytes) {
            return;
        }
        into.push(Record::from_bytes(&bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use xalloc_core::session::birth;
    use xalloc_core::units::{Addr, StackId};
    use xalloc_core::wire::{Call, Event};

    use super::*;
    use crate::os::segment::fake::{Birth, FakeProcess};

    #[test]
    fn rings_that_could_not_be_spilled_are_read_behind_a_batch_that_was_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let birth = Birth { pid: 1, parent_pid: 1, birth: birth::EXEC, fork_serial: 0, started: Stamp(0) };
        let process = FakeProcess::create(&directory.path().join("file"), birth);
        for ring in 0..2 {
            let mut thread = process.thread(ring, 0);
            let event = Event::Free { addr: Addr(16 + ring as u64), call: Call::Free };
            thread.push(Stamp(ring as u64 + 1), StackId::NONE, event);
            thread.exit();
        }
        let behind_header = (layout::SEGMENT_BYTES + HEADER_BYTES) as u64;
        process.file().write_all_at(&[7; RECORD_BYTES], behind_header).unwrap();
        let mut segment = Segment::map_shared(process.file()).unwrap();
        let mut spilled = Spilled::find(&segment);
        assert_eq!((spilled.threads(), spilled.holes), (1, 1));
        for expected in [1, 2] {
            let mut records = Vec::new();
            spilled.refill(0, &mut segment, &mut records);
            assert_eq!(records.iter().map(|record| record.stamp).collect::<Vec<_>>(), [expected]);
        }
    }
}
