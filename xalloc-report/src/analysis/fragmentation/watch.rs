//! The second pass: the layout on its way to the moment that is asked for, looked at now and then.

use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::units::PAGE_BYTES;

use super::free::{FreeSizes, Recent, UnusableView};
use super::growth::Growths;
use super::isolation::Births;
use super::moment::Still;
use super::picture::{Modelled, Picture};
use super::pins::Pins;
use super::rss::{Measured, RssView};
use super::sites::LiveSites;
use super::views::ResidencyView;
use crate::analysis::names::address;
use crate::model::layout::{Imbalance, Layout, Place, Range, RangeKind, Span};
use crate::model::survey::Survey;
use crate::trace::{Block, Contents, Entry, Event, Replay, Snapshot, StackIndex};

/// Looks at the heap on the way, evenly over the process's life.
const LOOKS: u64 = 96;
/// Spans that may be walked for them in all: some 20 ns each.
const WALKED_SPANS: u64 = 12 << 20;
/// Cells of a column of the map.
const CELLS: u64 = 160;
/// What a chunk of the heap has beside its block.
const CHUNK_HEAD: u64 = 8;
/// Operations that a thread may be within when the moment comes: it is put off to the end of one of them.
const PUT_OFF: u32 = 4096;

/// A look at the kernel's tables counts for a moment that is at most this part of the process's life away.
const CLOSE: u64 = 100;

/// When the picture is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// After so many events.
    Seq(u64),
    /// Before the first event that is later.
    Time(u64),
}

/// A stretch of addresses of the map, in cells of equal size.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct MapRange {
    /// First address.
    pub from: String,
    /// Length in bytes at this time.
    pub size_bytes: u64,
    /// Bytes of a cell, a multiple of the page size.
    pub cell_bytes: u64,
    /// What most of each cell is: `l`ive, `c`ached (fast bins too), `f`ree in a bin, `t`op, the heap's own `m`etadata.
    pub classes: String,
    /// Share of each cell that is live, 0 to 9 tenths.
    pub live_tenths: String,
}

/// The heap at one time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct ColumnView {
    /// Nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Requested bytes that live.
    pub requested: u64,
    /// Bytes that the heap has from the system.
    pub footprint: u64,
    /// Free bytes on pages with something live.
    pub pinned_bytes: u64,
    /// The arenas' ranges, by address.
    pub ranges: Vec<MapRange>,
}

/// The pass.
pub(super) struct Watch<'c> {
    contents: &'c Contents,
    layout: Layout,
    target: Target,
    picture: Option<Result<Picture, Imbalance>>,
    put_off: u32,
    snapshot: Option<&'c Snapshot>,
    rss: Option<RssView>,
    /// The pages of a snapshot that is close to the picture's moment.
    measured: Option<Measured>,
    growths: Growths,
    recent: Recent,
    births: Births,
    /// Event after which the requested bytes are most; the index and the sites' bytes then.
    peak_seq: u64,
    unusable_at_peak: Vec<UnusableView>,
    peak_bytes: FxHashMap<StackIndex, u64>,
    next_look_ns: u64,
    look_every_ns: u64,
    life_ns: (u64, u64),
    walked_spans: u64,
    spans: u64,
    /// Byte-seconds by site, in bytes times nanoseconds, and since when the shares of the last look hold.
    pin_time: FxHashMap<StackIndex, u128>,
    shares: Vec<(StackIndex, u64)>,
    shares_since_ns: u64,
    map: Vec<ColumnView>,
}

/// What it gave.
pub(super) struct Watched {
    pub(super) picture: Picture,
    pub(super) growths: Growths,
    /// Bytes times nanoseconds that each site has pinned.
    pub(super) pin_time: FxHashMap<StackIndex, u128>,
    /// Bytes of each site when the requested bytes were most.
    pub(super) peak_bytes: FxHashMap<StackIndex, u64>,
    pub(super) map: Vec<ColumnView>,
    pub(super) rss: Option<RssView>,
    pub(super) residency: ResidencyView,
    /// Pages by call stack that were written to first.
    pub(super) faults: FxHashMap<StackIndex, u64>,
}

impl<'c> Watch<'c> {
    pub(super) fn new(contents: &'c Contents, layout: Layout, target: Target, survey: &Survey) -> Watch<'c> {
        let life_ns = survey.life_ns();
        let growths = Growths::beginning_with(&layout);
        let look_every_ns = (life_ns.1.saturating_sub(life_ns.0) / LOOKS).max(1000);
        Watch {
            contents,
            layout,
            target,
            picture: None,
            put_off: 0,
            snapshot: None,
            rss: None,
            measured: None,
            growths,
            recent: Recent::default(),
            births: Births::default(),
            peak_seq: survey.most_requested.seq,
            unusable_at_peak: Vec::new(),
            peak_bytes: FxHashMap::default(),
            next_look_ns: life_ns.0 + look_every_ns,
            look_every_ns,
            life_ns,
            walked_spans: 0,
            spans: 0,
            pin_time: FxHashMap::default(),
            shares: Vec::new(),
            shares_since_ns: life_ns.0,
            map: Vec::new(),
        }
    }

    /// Lays a snapshot over the layout when its time comes. The picture, which is of the moment that stands still then,
    /// uses its pages if the two are close together.
    pub(super) fn lay_over(&mut self, snapshot: Option<&'c Snapshot>, still: Still) {
        let life_ns = self.life_ns.1.saturating_sub(self.life_ns.0);
        let close = snapshot.filter(|snapshot| still.distance_ns(snapshot.at_ns) <= life_ns / CLOSE);
        let close = close.filter(|snapshot| snapshot.mappings.iter().any(|mapping| mapping.runs.is_some()));
        self.measured = close.map(Measured::of);
        self.snapshot = snapshot;
    }

    #[cold]
    fn explain(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            self.rss = Some(RssView::of(self.contents, &self.layout, snapshot));
        }
    }

    /// The picture, taken at the end if its moment has not come.
    pub(super) fn finish(mut self) -> Result<Watched, Imbalance> {
        self.look(self.life_ns.1);
        self.charge(self.life_ns.1);
        self.explain();
        let mut picture = match self.picture {
            Some(picture) => picture?,
            None => Picture::of(self.contents, &self.layout, self.measured.as_ref(), &self.recent, &self.births)?,
        };
        picture.free.unusable_at_peak = self.unusable_at_peak;
        let faults = self.layout.faults().clone();
        let Watch { growths, pin_time, peak_bytes, map, rss, measured, .. } = self;
        let residency = if measured.is_some() { ResidencyView::Measured } else { ResidencyView::Modelled };
        Ok(Watched { picture, growths, pin_time, peak_bytes, map, rss, residency, faults })
    }

    #[cold]
    fn take_picture(&mut self) {
        let picture = Picture::of(self.contents, &self.layout, self.measured.as_ref(), &self.recent, &self.births);
        // Where a thread was within an operation, the books balance at its end.
        if picture.is_err() && self.put_off < PUT_OFF {
            self.put_off += 1;
            return;
        }
        self.picture = Some(picture);
    }

    fn charge(&mut self, at_ns: u64) {
        let span = u128::from(at_ns.saturating_sub(self.shares_since_ns));
        for &(site, share_bytes) in &self.shares {
            *self.pin_time.entry(site).or_default() += span * u128::from(share_bytes);
        }
        self.shares_since_ns = at_ns;
    }

    #[cold]
    fn look(&mut self, at_ns: u64) {
        self.charge(at_ns);
        if self.walked_spans > WALKED_SPANS {
            return;
        }
        let mut painter = Painter::default();
        self.spans = 0;
        let pins = Pins::and_spans(&self.layout, &Modelled(&self.layout), |span| {
            self.spans += 1;
            painter.paint(span);
        });
        self.walked_spans += self.spans;
        self.shares = pins.by_site.iter().map(|(&site, pin)| (site, pin.share_bytes)).collect();
        self.map.push(ColumnView {
            at_ns,
            requested: self.layout.requested_bytes(),
            footprint: self.layout.footprint_bytes(),
            pinned_bytes: pins.pinned_bytes,
            ranges: painter.strips.into_iter().map(Strip::view).collect(),
        });
    }
}

impl Replay for Watch<'_> {
    fn inherited(&mut self, slot: u32, block: &Block) {
        self.layout.inherited(slot, block);
    }

    #[inline(always)]
    fn entry(&mut self, entry: Entry<'_>) {
        if let Event::Heap { .. } = entry.event {
            self.growths.before(&self.layout, &entry);
        }
        if let (Target::Time(at_ns), None) = (self.target, &self.picture)
            && entry.at_ns > at_ns
        {
            self.take_picture();
        }
        if self.snapshot.is_some_and(|snapshot| entry.at_ns > snapshot.at_ns) {
            self.explain();
        }
        if entry.at_ns >= self.next_look_ns {
            self.look(entry.at_ns);
            // A heap that is costly to walk is looked at less often.
            let left = WALKED_SPANS.saturating_sub(self.walked_spans).max(1);
            let looks_left = (left / self.spans.max(1)).clamp(1, LOOKS);
            let span_ns = self.life_ns.1.saturating_sub(entry.at_ns) / looks_left;
            self.next_look_ns = entry.at_ns + span_ns.max(self.look_every_ns);
        }
        self.layout.entry(entry);
        if let Event::Alloc { slot, block, .. } = entry.event {
            self.births.enter(entry.seq, slot, block.addr);
            self.recent.push(block.size_bytes.saturating_add(u64::from(block.slack_bytes) + CHUNK_HEAD));
        }
        if self.layout.seq() == self.peak_seq {
            self.unusable_at_peak = FreeSizes::of(&self.layout).unusable();
            self.peak_bytes = LiveSites::of(&self.layout).bytes();
        }
        if let (Target::Seq(seq), None) = (self.target, &self.picture)
            && self.layout.seq() >= seq
        {
            self.take_picture();
        }
    }
}

/// A range as a row of cells.
struct Strip {
    from: u64,
    end: u64,
    cell_bytes: u64,
    /// Bytes of each cell by class, in the order of `CLASSES`.
    cells: Vec<[u64; 5]>,
}

const CLASSES: [char; 5] = ['l', 'c', 'f', 't', 'm'];

/// Strips of the arenas' ranges, from spans in order of address.
#[derive(Default)]
struct Painter {
    strips: Vec<Strip>,
}

impl Painter {
    fn paint(&mut self, span: &Span) {
        if span.range.kind == RangeKind::Mapped {
            return;
        }
        match self.strips.last_mut() {
            Some(strip) if strip.from == span.range.start => strip.paint(span),
            _ => {
                let mut strip = Strip::of(&span.range);
                strip.paint(span);
                self.strips.push(strip);
            }
        }
    }
}

impl Strip {
    fn of(range: &Range) -> Strip {
        let cell_bytes = range.len_bytes().div_ceil(CELLS).next_multiple_of(PAGE_BYTES);
        let cells = range.len_bytes().div_ceil(cell_bytes) as usize;
        Strip { from: range.start, end: range.end, cell_bytes, cells: vec![[0; 5]; cells] }
    }

    #[inline]
    fn paint(&mut self, span: &Span) {
        let class = match span.place {
            Place::Live(_) | Place::Handed => 0,
            Place::Cached(_) | Place::Fast(_) => 1,
            Place::Binned(_) => 2,
            Place::Top => 3,
            Place::Header | Place::Bookkeeping | Place::Fence => 4,
        };
        let mut at = span.addr - self.from;
        let end = span.end() - self.from;
        while at < end {
            let cell = at / self.cell_bytes;
            let next = ((cell + 1) * self.cell_bytes).min(end);
            if let Some(cell) = self.cells.get_mut(cell as usize) {
                cell[class] += next - at;
            }
            at = next;
        }
    }

    fn view(self) -> MapRange {
        let most = |cell: &[u64; 5]| {
            let at = (0..5).max_by_key(|&class| (cell[class], std::cmp::Reverse(class)));
            at.map_or('m', |class| CLASSES[class])
        };
        let tenths = |cell: &[u64; 5]| {
            let all: u64 = cell.iter().sum();
            char::from(b'0' + (cell[0] * 10 / all.max(1)).min(9) as u8)
        };
        MapRange {
            from: address(self.from),
            size_bytes: self.end - self.from,
            cell_bytes: self.cell_bytes,
            classes: self.cells.iter().map(most).collect(),
            live_tenths: self.cells.iter().map(tenths).collect(),
        }
    }
}
