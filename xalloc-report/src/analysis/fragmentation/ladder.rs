//! The release ladder: how much resident memory would go back, step by step.

use xalloc_core::units::PAGE_BYTES;

use super::pages::{Residency, resident_bytes};
use crate::model::layout::{Layout, Place, RangeKind, Span};

/// Smallest chunk, and the byte more that a trim leaves (placement policy, section 7).
const KEPT: u64 = 33;
/// Words of a free chunk that `malloc_trim` leaves alone (placement policy, section 7).
const CHUNK_WORDS: u64 = 48;

/// Bytes of resident memory that each step would give back; every step contains the one before.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Ladder {
    /// By an automatic trim of the main arena's top, as the next large free would do.
    pub(super) systrim: u64,
    /// By `malloc_trim(0)`.
    pub(super) malloc_trim: u64,
    /// By emptying all threads' caches and `malloc_trim(0)` after that.
    pub(super) after_flush: u64,
    /// If live chunks and the heap's own lay close together.
    pub(super) ideal: u64,
    /// Resident bytes of the arenas.
    pub(super) resident: u64,
}

/// What counts as free on a rung.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rung {
    MallocTrim,
    AfterFlush,
}

impl Rung {
    fn merges(self, place: Place) -> bool {
        match place {
            Place::Fast(_) | Place::Binned(_) => true,
            Place::Cached(_) => self == Rung::AfterFlush,
            Place::Live(_) | Place::Handed | Place::Top | Place::Header | Place::Bookkeeping | Place::Fence => false,
        }
    }
}

/// A run of chunks that would merge.
#[derive(Clone, Copy, Default)]
struct Run {
    start: u64,
    end: u64,
}

struct Climb<'r, R> {
    residency: &'r R,
    rung: Rung,
    run: Run,
    released_bytes: u64,
}

impl<R: Residency> Climb<'_, R> {
    fn span(&mut self, span: &Span) {
        if self.rung.merges(span.place) {
            if self.run.end != span.addr {
                self.end_run();
                self.run.start = span.addr;
            }
            self.run.end = span.end();
            return;
        }
        if span.place == Place::Top {
            let start = if self.run.end == span.addr && self.run.end > 0 { self.run.start } else { span.addr };
            if start == span.addr {
                self.end_run();
            }
            self.run = Run::default();
            // Only the break is trimmed; the top of a thread's arena waits for a free of its own.
            if span.range.kind == RangeKind::Main {
                let extra = (span.end() - start).saturating_sub(KEPT) / PAGE_BYTES * PAGE_BYTES;
                self.released_bytes += resident_bytes(self.residency, span.end() - extra, span.end());
            }
            return;
        }
        self.end_run();
    }

    fn end_run(&mut self) {
        let Run { start, end } = std::mem::take(&mut self.run);
        if end > start {
            self.released_bytes += resident_bytes(self.residency, start + CHUNK_WORDS, end);
        }
    }
}

impl Ladder {
    /// The ladder of the heap; `used_bytes` are the resident ones of live chunks and the heap's own: what nobody has
    /// written to takes no room anywhere.
    pub(super) fn of(layout: &Layout, residency: &impl Residency, used_bytes: u64) -> Ladder {
        let climb = |rung| Climb { residency, rung, run: Run::default(), released_bytes: 0 };
        let (mut trim, mut flush) = (climb(Rung::MallocTrim), climb(Rung::AfterFlush));
        let (mut resident, mut last) = (0, None);
        layout.spans(|span| {
            if span.range.kind == RangeKind::Mapped {
                return;
            }
            if last != Some(span.range.start) {
                last = Some(span.range.start);
                resident += resident_bytes(residency, span.range.start, span.range.end);
                trim.end_run();
                flush.end_run();
            }
            trim.span(&span);
            flush.span(&span);
        });
        trim.end_run();
        flush.end_run();
        Ladder {
            systrim: systrim(layout, residency),
            malloc_trim: trim.released_bytes,
            after_flush: flush.released_bytes,
            ideal: resident.saturating_sub(used_bytes.next_multiple_of(PAGE_BYTES)),
            resident,
        }
    }
}

fn systrim(layout: &Layout, residency: &impl Residency) -> u64 {
    let threshold = layout.trim_threshold_bytes();
    let Some((top, end)) = layout.top(0).filter(|(top, end)| end - top >= threshold) else { return 0 };
    let extra = (end - top).saturating_sub(KEPT).saturating_sub(layout.top_pad_bytes()) / PAGE_BYTES * PAGE_BYTES;
    resident_bytes(residency, end - extra, end)
}
