//! What is measured while requests are served.

use xalloc_core::heap::sim::{Simulation, SystemCalls};
use xalloc_core::heap::{Class, NoSink};
use xalloc_core::units::Addr;
use xalloc_core::wire::HeapEvent;

use crate::model::Segments;

/// A free chunk of this size serves a request of 64 KiB.
const CHUNK_OF_64_KIB: u64 = (64 << 10) + 16;

/// What came out of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Measured {
    /// Most bytes that the heap held from the system at once: break, sub-heaps, chunks with mappings of their own.
    pub peak_footprint_bytes: u64,
    /// When that was first reached, nanoseconds since the recording's start.
    pub peak_at_ns: u64,
    /// Mean of the footprint over the time from the first event to the last.
    pub mean_footprint_bytes: u64,
    /// Mean of the footprint after each request.
    pub mean_by_request_bytes: u64,
    /// Footprint after the last request.
    pub end_footprint_bytes: u64,
    /// Most bytes on pages that were written to, if the program writes to all of each block that it gets.
    pub peak_resident_bytes: u64,
    /// The same after the last request.
    pub end_resident_bytes: u64,
    /// Bytes that the program asked for and still has after the last request.
    pub end_live_bytes: u64,
    /// System calls.
    pub calls: SystemCalls,
    /// Bytes after the last request that are free and on resident pages: in caches with their bookkeeping, in bins, in
    /// the tops.
    pub free_bytes: u64,
    /// Of these, what even `malloc_trim` after flushing every cache does not give back.
    pub unreleasable_bytes: u64,
    /// Share of these that a request of 64 KiB could not use, the tops aside (F_u of 64 KiB).
    pub unusable_index_64k: f64,
    /// Requests that the simulated heap refused or could not make sense of.
    pub refused: u64,
}

/// The footprint, followed through a run.
#[derive(Debug, Default)]
pub(super) struct Meter {
    segments: Segments,
    footprint_bytes: u64,
    /// Held besides the heap.
    beside_bytes: u64,
    peak_bytes: u64,
    peak_at_ns: u64,
    now_ns: u64,
    requests: u64,
    sum_by_request: u128,
    /// Byte-nanoseconds.
    sum_by_time: u128,
    peak_resident_bytes: u64,
}

impl Meter {
    /// A run that begins at that time.
    pub(super) fn starting(at_ns: u64) -> Meter {
        Meter { now_ns: at_ns, ..Meter::default() }
    }

    /// The heap does a step.
    pub(super) fn step(&mut self, step: HeapEvent) {
        if self.segments.apply(step).is_some() {
            self.footprint_bytes = self.segments.bytes() + self.beside_bytes;
            self.compare_with_peak();
        }
    }

    /// So much is held besides the heap from here on.
    pub(super) fn beside(&mut self, bytes: u64) {
        self.footprint_bytes = self.segments.bytes() + bytes;
        self.beside_bytes = bytes;
        self.compare_with_peak();
    }

    /// The most that is held during a request counts, not what is held after it: a block that moves is there twice.
    fn compare_with_peak(&mut self) {
        if self.footprint_bytes > self.peak_bytes {
            self.peak_bytes = self.footprint_bytes;
            self.peak_at_ns = self.now_ns;
        }
    }

    /// A request has been served.
    pub(super) fn served(&mut self) {
        self.requests += 1;
        self.sum_by_request += u128::from(self.footprint_bytes);
    }

    /// What was held since the last time is weighed by the time that passed.
    pub(super) fn tick(&mut self, at_ns: u64) {
        let passed = at_ns.saturating_sub(self.now_ns);
        self.sum_by_time += u128::from(self.footprint_bytes) * u128::from(passed);
        self.now_ns = at_ns;
    }

    /// So many bytes are resident.
    pub(super) fn resident(&mut self, bytes: u64) {
        self.peak_resident_bytes = self.peak_resident_bytes.max(bytes);
    }

    /// The run is over: reads what is left of the heap, and takes it apart.
    pub(super) fn finish(self, simulation: &mut Simulation, started_ns: u64, threads: usize) -> Measured {
        let calls = simulation.calls();
        let end_footprint_bytes = self.footprint_bytes;
        let end_resident_bytes = simulation.resident_bytes();
        for thread in 0..threads {
            simulation.exit(thread, &mut NoSink);
        }
        simulation.trim(0, &mut NoSink, 0);
        let released_bytes = end_resident_bytes.saturating_sub(simulation.resident_bytes());
        let Free { resident_bytes, binned_bytes, serving_bytes } = free_of(simulation);
        let passed = u128::from(self.now_ns.saturating_sub(started_ns));
        Measured {
            peak_footprint_bytes: self.peak_bytes,
            peak_at_ns: self.peak_at_ns,
            mean_footprint_bytes: self.sum_by_time.checked_div(passed).map_or(end_footprint_bytes, |mean| mean as u64),
            mean_by_request_bytes: self.sum_by_request.checked_div(self.requests.into()).unwrap_or(0) as u64,
            end_footprint_bytes,
            peak_resident_bytes: self.peak_resident_bytes,
            end_resident_bytes,
            end_live_bytes: 0,
            calls,
            free_bytes: resident_bytes + released_bytes,
            unreleasable_bytes: resident_bytes,
            unusable_index_64k: if binned_bytes == 0 { 0.0 } else { 1.0 - serving_bytes as f64 / binned_bytes as f64 },
            refused: 0,
        }
    }
}

/// The free bytes of a heap whose caches and fast bins are empty.
struct Free {
    resident_bytes: u64,
    binned_bytes: u64,
    /// Of the binned ones, those in chunks that serve a request of 64 KiB.
    serving_bytes: u64,
}

fn free_of(simulation: &mut Simulation) -> Free {
    let mut free = Free { resident_bytes: 0, binned_bytes: 0, serving_bytes: 0 };
    let mut spans: Vec<(Addr, u64)> = Vec::new();
    // A walk that stops early has met a region that is not remembered; what it saw counts.
    let _stopped = simulation.walk(|span| {
        match span.class {
            Class::Binned => {
                free.binned_bytes += span.size_bytes;
                if span.size_bytes >= CHUNK_OF_64_KIB {
                    free.serving_bytes += span.size_bytes;
                }
                spans.push((span.addr, span.size_bytes));
            }
            Class::Cached | Class::Fast | Class::Top => spans.push((span.addr, span.size_bytes)),
            Class::Live | Class::Metadata => {}
        }
        true
    });
    free.resident_bytes = spans.iter().map(|&(addr, len)| simulation.resident_bytes_of(addr, len)).sum();
    free
}
