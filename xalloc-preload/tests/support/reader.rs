//! Reads the segment of a process that has ended.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xalloc_core::session::{Header, RingHeader, SEGMENT_MAGIC, SPILL_MAGIC, SpillHeader, layout};
use xalloc_core::wire::{Event, Record, Stamped};

/// An event with its thread and its text.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) thread: u32,
    pub(crate) stamped: Stamped,
    pub(crate) text: Vec<u8>,
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) pid: u32,
    pub(crate) birth: u32,
    pub(crate) fork_serial: u32,
    pub(crate) state: u32,
    pub(crate) lost: Vec<u64>,
    /// Times at which a thread waited for room in its ring, and for how long in all, nanoseconds.
    pub(crate) waits: (u64, u64),
    /// Stacks for which there was no room in the trie.
    pub(crate) lost_stacks: u64,
    /// In the order of their stamps; one thread's in the order in which it pushed them.
    pub(crate) events: Vec<Recorded>,
    /// Events that a thread pushed with a stamp before that of the one pushed earlier.
    pub(crate) out_of_order: usize,
    file: File,
}

fn bytes_at(file: &File, at: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at as u64).expect("the file is long enough");
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The records that lie one behind the other in `bytes`.
fn records_in(bytes: &[u8]) -> impl Iterator<Item = Record> {
    bytes.as_chunks().0.iter().map(Record::from_bytes)
}

/// Offset of `tail` in the ring's indices: the second cache line.
const TAIL: usize = offset_of!(RingHeader, indices) + 64;

impl Recording {
    pub(crate) fn read(path: &Path) -> Recording {
        let file = File::open(path).expect("the segment can be opened");
        // Only what is used is read: the file is large and sparse.
        let header = bytes_at(&file, 0, size_of::<Header>());
        assert_eq!(u64_at(&header, offset_of!(Header, magic)), SEGMENT_MAGIC, "{}", path.display());
        let mut threads: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        let length = file.metadata().expect("a size").len();
        let end = u64_at(&header, offset_of!(Header, spill_end)).min(length) as usize;
        let mut at = layout::SEGMENT_BYTES;
        while at < end {
            let head = bytes_at(&file, at, size_of::<SpillHeader>());
            let header = SpillHeader::from_bytes(head.first_chunk().expect("as long as a header"));
            assert_eq!(header.magic, SPILL_MAGIC);
            let batch = bytes_at(&file, at + head.len(), header.records as usize * size_of::<Record>());
            threads.entry(header.thread).or_default().extend(records_in(&batch));
            at += head.len() + batch.len();
        }
        let rings = bytes_at(&file, layout::RING_HEADERS.start, layout::RINGS * size_of::<RingHeader>());
        for (ring, header) in rings.chunks_exact(size_of::<RingHeader>()).enumerate() {
            let head = u64_at(header, offset_of!(RingHeader, indices));
            let tail = u64_at(header, TAIL);
            if tail == head {
                continue;
            }
            let slots = bytes_at(&file, layout::slots_of(ring).start, layout::slots_of(ring).len());
            let thread = u32_at(header, offset_of!(RingHeader, thread));
            let slots: Vec<Record> = records_in(&slots).collect();
            let records = (tail..head).map(|number| slots[number as usize % slots.len()]);
            threads.entry(thread).or_default().extend(records);
        }
        let (mut events, mut out_of_order) = (Vec::new(), 0);
        for (thread, records) in threads {
            let mut last = 0;
            for (event, count) in typed(thread, &records) {
                out_of_order += usize::from(count < last);
                last = count;
                events.push(event);
            }
        }
        events.sort_by_key(|event| event.stamped.stamp);
        Recording {
            pid: u32_at(&header, offset_of!(Header, pid)),
            birth: u32_at(&header, offset_of!(Header, birth)),
            fork_serial: u32_at(&header, offset_of!(Header, fork_serial)),
            state: u32_at(&header, offset_of!(Header, state)),
            lost: (0..8).map(|reason| u64_at(&header, offset_of!(Header, lost) + reason * 8)).collect(),
            waits: (u64_at(&header, offset_of!(Header, waits)), u64_at(&header, offset_of!(Header, waited_ns))),
            lost_stacks: u64_at(&header, offset_of!(Header, stacks) + 8),
            events,
            out_of_order,
            file,
        }
    }

    /// Number of frames of an event's stack, by following parents in the trie.
    pub(crate) fn depth(&self, event: &Recorded) -> usize {
        let (mut id, mut depth) = (event.stamped.stack.0 as usize, 0);
        while id > 1 {
            depth += 1;
            id = u32_at(&bytes_at(&self.file, layout::NODES.start + id * 16 + 8, 4), 0) as usize;
        }
        depth
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(&event.stamped.event)).count()
    }
}

/// The records of a thread as events, text put to the event it belongs to, each with its stamp.
fn typed(thread: u32, records: &[Record]) -> Vec<(Recorded, u64)> {
    let mut events: Vec<(Recorded, u64)> = Vec::new();
    for record in records {
        let stamped = record.decode().unwrap_or_else(|| panic!("{record:?} has no reading"));
        if let Event::Text { bytes } = stamped.event {
            let (event, _) = events.last_mut().expect("text follows an event");
            event.text.extend_from_slice(&bytes);
            continue;
        }
        let parts = stamped.apart().map(|stamped| Recorded { thread, stamped, text: Vec::new() });
        events.extend(parts.map(|event| (event, stamped.stamp.0)));
    }
    events
}
