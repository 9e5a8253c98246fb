//! A process that writes a segment as the preload does, for tests: same types, same order of steps, no hooks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use xalloc_core::ring::{Full, Producer};
use xalloc_core::session::{SEGMENT_MAGIC, ring_state, segment_state};
use xalloc_core::wire::{self, Event, Stamped, TEXT_BYTES};

use super::*;

/// What the header of a made-up process says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    pub(crate) pid: u32,
    pub(crate) parent_pid: u32,
    pub(crate) birth: u32,
    pub(crate) fork_serial: u32,
    pub(crate) started: Stamp,
}

/// The writing side of a segment.
#[derive(Debug)]
pub(crate) struct FakeProcess {
    pub(crate) segment: Segment,
    file: File,
}

impl FakeProcess {
    pub(crate) fn create(path: &Path, birth: Birth) -> FakeProcess {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(layout::SEGMENT_BYTES as u64).unwrap();
        let put = |offset: usize, bytes: &[u8]| file.write_all_at(bytes, offset as u64).unwrap();
        put(offset_of!(Header, magic), &SEGMENT_MAGIC.to_le_bytes());
        put(offset_of!(Header, version), &u32::from(wire::VERSION).to_le_bytes());
        put(offset_of!(Header, pid), &birth.pid.to_le_bytes());
        put(offset_of!(Header, parent_pid), &birth.parent_pid.to_le_bytes());
        put(offset_of!(Header, birth), &birth.birth.to_le_bytes());
        put(offset_of!(Header, fork_serial), &birth.fork_serial.to_le_bytes());
        put(offset_of!(Header, started), &birth.started.0.to_le_bytes());
        put(offset_of!(Header, started_monotonic_ns), &xalloc_core::sys::clock::monotonic_ns().to_le_bytes());
        put(offset_of!(Header, exe), b"/bin/fake\0");
        put(offset_of!(Header, command), b"fake\0--flag\0\0");
        let process = FakeProcess { segment: Segment::map_shared(&file).unwrap(), file };
        process.set_state(segment_state::LIVE);
        process
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn set_state(&self, state: u32) {
        self.segment.view::<AtomicU32>(offset_of!(Header, state)).store(state, Ordering::Release);
    }

    pub(crate) fn set_rings(&self, rings: u32) {
        self.segment.view::<AtomicU32>(offset_of!(Header, rings)).store(rings, Ordering::Release);
    }

    /// Claims ring `ring` for thread `serial`. The caller makes one thread a ring.
    pub(crate) fn thread(&self, ring: usize, serial: u32) -> FakeThread<'_> {
        self.segment.ring_word(ring, offset_of!(RingHeader, thread)).store(serial, Ordering::Relaxed);
        self.segment.ring_word(ring, offset_of!(RingHeader, state)).store(ring_state::CLAIMED, Ordering::Release);
        let rings = self.segment.view::<AtomicU32>(offset_of!(Header, rings));
        rings.fetch_max(ring as u32 + 1, Ordering::Release);
        // SAFETY: the tests make one producer a ring at a time; the slots are the consumer's.
        let producer = unsafe { Producer::new(self.segment.indices(ring), self.segment.slots(ring)) };
        FakeThread { process: self, ring, producer }
    }

    pub(crate) fn intern(&self, parent: StackId, frame: FrameWord) -> StackId {
        // SAFETY: inside the map by the first bullet of the module.
        let index = unsafe { self.segment.map.as_ptr().add(layout::INDEX.start) }.cast::<AtomicU32>();
        // SAFETY: the index's first level lies there; atomics.
        let level = unsafe { slice::from_raw_parts(index, xalloc_core::intern::LEVELS[0]) };
        Trie::new(self.segment.counters(), self.segment.nodes(), &[level]).insert(parent, frame)
    }

    /// Writes to the producer's index of ring `ring`, as a broken program might.
    pub(crate) fn smash_ring(&self, ring: usize, head: u64) {
        let at = layout::RING_HEADERS.start + ring * size_of::<RingHeader>() + offset_of!(RingHeader, indices);
        self.file.write_all_at(&head.to_le_bytes(), at as u64).unwrap();
    }
}

/// One thread of a made-up process.
#[derive(Debug)]
pub(crate) struct FakeThread<'a> {
    process: &'a FakeProcess,
    ring: usize,
    producer: Producer<'a>,
}

impl FakeThread<'_> {
    pub(crate) fn push(&mut self, stamp: Stamp, stack: StackId, event: Event) {
        self.push_all(&[Stamped { stamp, stack, event }.encode()]);
    }

    pub(crate) fn push_text(&mut self, stamp: Stamp, event: Event, text: &[u8]) {
        let mut records = vec![Stamped { stamp, stack: StackId::NONE, event }.encode()];
        for part in text.chunks(TEXT_BYTES) {
            let mut bytes = [0; TEXT_BYTES];
            bytes[..part.len()].copy_from_slice(part);
            records.push(Stamped { stamp, stack: StackId::NONE, event: Event::Text { bytes } }.encode());
        }
        self.push_all(&records);
    }

    /// Pushes raw records, waiting while the ring is full.
    pub(crate) fn push_all(&mut self, records: &[Record]) {
        while self.producer.push(records) == Err(Full) {
            if let Some(seen) = self.producer.prepare_wait(records.len()) {
                let space = self.process.segment.indices(self.ring).space();
                futex::wait(space, seen, futex::Scope::Shared, 100_000_000);
            }
        }
    }

    pub(crate) fn exit(self) {
        let state = self.process.segment.ring_word(self.ring, offset_of!(RingHeader, state));
        state.store(ring_state::CLOSING, Ordering::Release);
    }
}
