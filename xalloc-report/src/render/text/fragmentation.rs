//! Who keeps the heap's memory.

use std::fmt::Write;

use super::{Extent, fixes, frames};
use crate::analysis::FrameView;
use crate::analysis::fragmentation::{Fragmentation, PagesView, PinView, ResidencyView, Segment, StepView};
use crate::render::escape::printable;
use crate::render::number::{bytes, count, counted, instant, percent, span};
use crate::render::style::{ASIDE, DOUBT, FIGURE, FUNCTION, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

/// Lines of the shorter tables.
const LINES: usize = 5;

/// Renders the heap of one process at one moment.
#[must_use]
pub fn fragmentation(of: &Fragmentation, extent: Extent) -> String {
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
    let _ = writeln!(
        out,
        "{HEADING}heap of process {} at {} (event {}){HEADING:#}",
        of.pid,
        instant(of.at_ns),
        count(of.seq)
    );
    books(&mut out, of);
    if !of.core {
        let _ = writeln!(
            out,
            "\n{DOUBT}another allocator serves the program: the inside of its heap is not seen; record with --allocator \
             core for books, bins, tops and the release ladder{DOUBT:#}"
        );
    }
    rss(&mut out, of, extent);
    ladder(&mut out, of);
    pins(&mut out, of, extent);
    staircase(&mut out, of, extent);
    external(&mut out, of, extent);
    padding(&mut out, of);
    free(&mut out, of);
    life(&mut out, of, extent);
    fixes::append(&mut out, &of.fixes);
    out
}

pub(super) fn heading(out: &mut String, text: &str, aside: &str) {
    let _ = writeln!(out, "\n{HEADING}{text}{HEADING:#}  {ASIDE}{aside}{ASIDE:#}");
}

fn books(out: &mut String, of: &Fragmentation) {
    let whole = of.books.segments.max(of.books.live);
    let mut table = Table::default();
    let mut row = |name: &str, value: u64, meaning: String| {
        table.row([
            left(name, PLAIN),
            right(bytes(value), FIGURE),
            right(percent(value, whole), PLAIN),
            left(meaning, ASIDE),
        ]);
    };
    row("requested", of.requested, format!("in {}", counted(of.blocks, "block")));
    row("padding", of.padding, "rounding of sizes".to_owned());
    if of.core {
        let (caches, chunks) = (of.free.caches.len() as u64, of.free.caches.iter().map(|cache| cache.chunks).sum());
        row("headers", of.headers, "size words, ends of mapped pages".to_owned());
        row("cached", of.books.tcache, format!("{} in {}", counted(chunks, "chunk"), counted(caches, "thread cache")));
        row("fast bins", of.books.fastbin, "freed, not merged".to_owned());
        row("free in bins", of.books.bin_free, format!("largest {}", bytes(of.free.largest_bytes)));
        row("top", of.books.top, "the frontier, not cut yet".to_owned());
        row("metadata", of.books.metadata, "arenas, caches, fences".to_owned());
        row("segments", of.books.segments, arenas(of));
    }
    table.write(out, 2);
}

fn arenas(of: &Fragmentation) -> String {
    let arenas = of.arenas.iter().filter(|view| view.arena.is_some()).count() as u64;
    let mapped = of.arenas.iter().find(|view| view.arena.is_none()).map_or(0, |view| view.books.segments);
    format!("all that the heap has: {}, {} in mapped chunks", counted(arenas, "arena"), bytes(mapped))
}

fn segment(of: Segment) -> &'static str {
    match of {
        Segment::Text => "text",
        Segment::Data => "data",
        Segment::Bss => "bss",
        Segment::Heap => "heap",
        Segment::Arenas => "thread arenas",
        Segment::MappedChunks => "mapped chunks",
        Segment::Stacks => "stacks",
        Segment::Files => "files",
        Segment::Recorder => "the recorder's own",
        Segment::OtherAnonymous => "other anonymous",
    }
}

fn rss(out: &mut String, of: &Fragmentation, extent: Extent) {
    let Some(rss) = &of.rss else {
        if of.core {
            heading(out, "resident memory", "unknown: the process ended before its memory was looked at");
        }
        return;
    };
    let title = format!("resident memory at {}: {}", instant(rss.at_ns), bytes(rss.total));
    heading(out, &title, "from what was asked for to what the kernel says");
    let mut table = Table::default();
    let mut row = |sign: &str, name: &str, value: u64, meaning: String| {
        table.row([
            right(sign, ASIDE),
            left(name, PLAIN),
            right(bytes(value), FIGURE),
            right(percent(value, rss.total), PLAIN),
            left(meaning, ASIDE),
        ]);
    };
    let plain = String::new;
    if of.core {
        row("", "requested", rss.requested, plain());
        row("+", "padding and headers", rss.overhead, plain());
        row("+", "cached", rss.cached, "thread caches and fast bins".to_owned());
        row("+", "free in bins", rss.bin_free, plain());
        row("+", "top", rss.top, plain());
        row("+", "metadata", rss.metadata, plain());
        row("=", "the heap's segments", rss.segments, plain());
        row("-", "not resident", rss.not_resident, "never touched, or given back".to_owned());
        row("=", "resident heap", rss.heap_resident, plain());
    }
    for view in rss.map.iter().filter(|view| view.resident_bytes > 0) {
        // Under another allocator no row says what the heap is made of.
        let is_heap = [Segment::Heap, Segment::Arenas, Segment::MappedChunks].contains(&view.segment);
        let sign = if is_heap && of.core { "of it" } else { "+" };
        row(sign, segment(view.segment), view.resident_bytes, format!("of {} mapped", bytes(view.virtual_bytes)));
    }
    let (sign, meaning) = match rss.unexplained {
        0 => ("", ""),
        1.. => ("+", "the kernel counts more than the rows above"),
        ..0 => ("-", "the kernel counts less than the rows above"),
    };
    row(sign, "unexplained", rss.unexplained.unsigned_abs(), meaning.to_owned());
    table.write(out, 2);
    let _ = writeln!(
        out,
        "  {ASIDE}{} minor and {} major page faults; {} took {} of a processor in all, {} of the process's life{ASIDE:#}",
        count(rss.minor_faults),
        count(rss.major_faults),
        counted(rss.looks, "look"),
        span(rss.looks_cost_ns),
        percent(rss.looks_cost_ns, of.life_ns)
    );
    let pages_from = match rss.pages_from {
        PagesView::Pagemap => None,
        PagesView::Mincore => {
            Some("its page tables could not be read from outside: it told its pages itself, by mincore")
        }
        PagesView::Nobody => Some("its page tables could not be read: which pages are resident is modelled"),
    };
    if let Some(told) = pages_from {
        let _ = writeln!(out, "  {DOUBT}{told}{DOUBT:#}");
    }
    for site in rss.untouched.iter().filter(|site| site.bytes * 50 > rss.total).take(extent.sites.min(LINES)) {
        let _ = writeln!(
            out,
            "  never touched: {FIGURE}{}{FIGURE:#} in {} from {FUNCTION}{}{FUNCTION:#}",
            bytes(site.bytes),
            counted(site.blocks, "block"),
            leaf(&site.at.frames)
        );
    }
}

fn ladder(out: &mut String, of: &Fragmentation) {
    if !of.core {
        return;
    }
    let known = match (of.residency, of.rss.as_ref().map(|rss| rss.pages_from)) {
        (ResidencyView::Modelled, _) => "of the arenas' resident memory, by the model of pages",
        (ResidencyView::Measured, Some(PagesView::Mincore)) => {
            "of the arenas' resident memory, as the process itself was told (mincore)"
        }
        (ResidencyView::Measured, _) => "of the arenas' resident memory, by the kernel's tables",
    };
    heading(out, "what would go back", known);
    let ladder = of.ladder;
    let mut table = Table::default();
    let mut row = |name: &str, value: u64, meaning: &str| {
        let share = percent(value, ladder.resident);
        table.row([left(name, PLAIN), right(bytes(value), FIGURE), right(share, PLAIN), left(meaning, ASIDE)]);
    };
    row("resident", ladder.resident, "");
    row("automatic trim", ladder.systrim, "what the next large free would return");
    row("malloc_trim(0)", ladder.malloc_trim, "free pages within the heap, and the top");
    row("after a flush", ladder.after_flush, "with all thread caches emptied first");
    row("ideal", ladder.ideal, "if what is in use lay close together");
    row("unreleasable", ladder.unreleasable, "free, resident, and kept by what lives on the same pages");
    table.write(out, 2);
}

/// The function that a line names for a call stack: the innermost, or who calls a program's own wrappers of malloc.
pub(super) fn leaf(frames: &[FrameView]) -> String {
    let is_wrapper = |frame: &&FrameView| {
        let name = frame.function.as_deref().unwrap_or_default().to_ascii_lowercase();
        ["malloc", "calloc", "realloc"].iter().any(|call| name.contains(call))
    };
    let told = frames.iter().find(|frame| !is_wrapper(frame)).or(frames.first());
    told.map_or_else(|| "an unknown call stack".to_owned(), |leaf| printable(&leaf.name()).into_owned())
}

fn pins(out: &mut String, of: &Fragmentation, extent: Extent) {
    if of.pinned_bytes == 0 {
        return;
    }
    let title = format!("{} pinned on {}", bytes(of.pinned_bytes), counted(of.live_pages, "page"));
    heading(out, &title, "free bytes that stay because something lives on their page");
    let mut table = Table::default();
    let shown = &of.pins[..of.pins.len().min(extent.sites)];
    for (nth, pin) in shown.iter().enumerate() {
        table.row([
            right((nth + 1).to_string(), ASIDE),
            right(bytes(pin.share_bytes), FIGURE),
            right(percent(pin.share_bytes, of.pinned_bytes), PLAIN),
            left(format!("by {} in {}", bytes(pin.live_bytes), counted(pin.live_blocks, "block")), PLAIN),
            left(format!("{} without them", bytes(pin.marginal_bytes)), PLAIN),
            left(format!("up to {} old{}", span(pin.oldest_ns), outlived(pin)), ASIDE),
        ]);
    }
    for (line, pin) in table.lines(2).iter().zip(shown) {
        let _ = writeln!(out, "{line}");
        frames::append(out, &pin.at, extent.frames, 8);
    }
    if let [.., last] = &of.cover[..]
        && of.cover.len() > 1
    {
        let mut names: Vec<String> = Vec::new();
        for name in of.cover.iter().map(|site| leaf(&site.at.frames)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let _ = writeln!(out, "  together: without {} {} go back", names.join(", "), bytes(last.released_bytes));
    }
}

/// What of its neighbours is dead, where that is nearly all of them.
fn outlived(pin: &PinView) -> String {
    let dead = pin.isolation.filter(|&share| share >= 0.9);
    dead.map_or_else(String::new, |share| format!(", {:.0} % of what was born beside them dead", 100.0 * share))
}

fn staircase(out: &mut String, of: &Fragmentation, extent: Extent) {
    let steps: Vec<&StepView> = of.staircase.iter().take(extent.sites.min(LINES)).collect();
    if steps.is_empty() {
        return;
    }
    heading(out, "what keeps the top", "live chunks above free memory, and what each step holds");
    for step in steps {
        let what = if step.chunks == 1 {
            format!("1 chunk of {}", bytes(step.size))
        } else {
            format!(
                "{}, {}, the uppermost of {},",
                counted(step.chunks, "chunk"),
                bytes(step.live_bytes),
                bytes(step.size)
            )
        };
        let keeps = if step.chunks == 1 { "keeps" } else { "keep" };
        let of_arena = if step.arena == 0 { String::new() } else { format!(" of arena {}", step.arena) };
        let above = if step.gain_bytes == step.step_bytes {
            String::new()
        } else {
            format!(" ({} with what keeps the memory above)", bytes(step.gain_bytes))
        };
        let _ = writeln!(
            out,
            "  {what} from {FUNCTION}{}{FUNCTION:#} {keeps} {FIGURE}{}{FIGURE:#}{of_arena} from being returned{above}, {} \
             old{}",
            leaf(&step.at.frames),
            bytes(step.step_bytes),
            span(step.age_ns),
            if step.is_mixed { ", with blocks of others" } else { "" }
        );
        frames::append(out, &step.at, extent.frames, 8);
    }
}

fn external(out: &mut String, of: &Fragmentation, extent: Extent) {
    let Some(first) = of.external.first() else { return };
    let events: u64 = of.external.iter().map(|growth| growth.events).sum();
    let grown: u64 = of.external.iter().map(|growth| growth.grown_bytes).sum();
    let title =
        format!("{} of {} by {} although enough was free", count(events), counted(of.growths, "growth"), bytes(grown));
    heading(out, &title, "external fragmentation where it cost memory");
    for growth in of.external.iter().take(LINES) {
        let largest =
            growth.largest_free_bytes.map_or_else(String::new, |size| format!(", the largest piece {}", bytes(size)));
        let between = growth.separated_by.as_ref();
        let between = between.map_or_else(String::new, |site| format!("; {} lies between", leaf(&site.frames)));
        let _ = writeln!(
            out,
            "  {FIGURE}{}{FIGURE:#} in {} for {FUNCTION}{}{FUNCTION:#}: {} needed, {} free{largest}{between}; {}",
            bytes(growth.grown_bytes),
            counted(growth.events, "growth"),
            leaf(&growth.at.frames),
            bytes(growth.needed_bytes),
            bytes(growth.free_bytes),
            printable(&growth.rule)
        );
    }
    frames::append(out, &first.at, extent.frames.min(LINES), 8);
}

fn padding(out: &mut String, of: &Fragmentation) {
    let shown = of.padding_by_size.iter().filter(|size| size.padding_bytes * 100 > of.requested).take(LINES);
    let mut table = Table::default();
    let mut any = false;
    for size in shown {
        any = true;
        let better = match size.smaller_bytes {
            Some(smaller) => format!("{} or {} would waste nothing", bytes(size.full_bytes), bytes(smaller)),
            None => format!("{} would waste nothing", bytes(size.full_bytes)),
        };
        table.row([
            right(bytes(size.padding_bytes), FIGURE),
            left(format!("in {} of {}", counted(size.blocks, "block"), bytes(size.size_bytes)), PLAIN),
            left(better, PLAIN),
            left(leaf(&size.at.frames), FUNCTION),
        ]);
    }
    if any {
        heading(out, "padding", "what rounding adds to these sizes");
        table.write(out, 2);
    }
}

fn free(out: &mut String, of: &Fragmentation) {
    if of.free.unusable.is_empty() {
        return;
    }
    heading(out, "free in bins", "share in chunks too small for a request of");
    let mut table = Table::default();
    table.row(of.free.unusable.iter().map(|index| right(bytes(index.chunk_bytes), ASIDE)));
    let share = |index: f64| format!("{:.1} %", 100.0 * index);
    table.row(of.free.unusable.iter().map(|index| right(share(index.index), PLAIN)));
    table.write(out, 2);
    if let Some(index) = of.free.unusable_for_requests {
        let _ = writeln!(out, "  {} for what the program asked for last: its last 1,024 sizes, averaged", share(index));
    }
}

/// Resident bytes over requested ones, as a change; as a factor where the change is no longer what one thinks in.
fn realized(over: f64) -> String {
    if over < 10.0 { format!("{:+.1} %", 100.0 * over) } else { format!("{:.0} times what is requested", over + 1.0) }
}

fn life(out: &mut String, of: &Fragmentation, extent: Extent) {
    if !of.core {
        return;
    }
    heading(out, "over the whole life", "footprint to requested bytes; calls to the system");
    let ratio = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let _ = writeln!(
        out,
        "  mean {}, at most requested {}, at largest {}, largest to most {}, realized here {}",
        ratio(of.ratios.mean),
        ratio(of.ratios.at_most_requested),
        ratio(of.ratios.at_largest),
        ratio(of.ratios.largest_to_most),
        of.ratios.realized.map_or_else(|| "none: nothing is requested".to_owned(), realized)
    );
    if let Some(threshold) = &of.mmap_threshold {
        let _ = writeln!(
            out,
            "  mmap threshold moved to {} at {} by a free in {FUNCTION}{}{FUNCTION:#}",
            bytes(threshold.bytes),
            instant(threshold.at_ns),
            leaf(&threshold.at.frames)
        );
    }
    let calls = of.system_calls.total;
    let _ = writeln!(
        out,
        "  {} brk, {} mmap, {} munmap, {} mremap, {} madvise; grown by {}",
        count(calls.brk),
        count(calls.mmap),
        count(calls.munmap),
        count(calls.mremap),
        count(calls.madvise),
        bytes(calls.grown_bytes)
    );
    for site in of.system_calls.sites.iter().take(extent.sites.min(3)) {
        let sum = site.calls.brk + site.calls.mmap + site.calls.munmap + site.calls.mremap + site.calls.madvise;
        let _ = writeln!(out, "    {} of them from {FUNCTION}{}{FUNCTION:#}", count(sum), leaf(&site.at.frames));
    }
    let own = of.program_calls.total;
    if own.brk + own.mmap + own.munmap + own.mremap + own.madvise > 0 {
        let _ = writeln!(
            out,
            "  the program itself: {} brk, {} mmap, {} munmap, {} mremap, {} madvise; most from {FUNCTION}{}{FUNCTION:#}",
            count(own.brk),
            count(own.mmap),
            count(own.munmap),
            count(own.mremap),
            count(own.madvise),
            leaf(of.program_calls.sites.first().map_or(&[], |site| &site.at.frames))
        );
    }
    if let Some(most) = of.system_calls.sites.iter().max_by_key(|site| site.calls.page_faults)
        && most.calls.page_faults > 0
    {
        let _ = writeln!(
            out,
            "  {} pages of the heap written to first, {} of them for {FUNCTION}{}{FUNCTION:#}",
            count(calls.page_faults),
            count(most.calls.page_faults),
            leaf(&most.at.frames)
        );
    }
    for pair in of.free_pairs.pairs.iter().take(extent.sites.min(3)) {
        let _ = writeln!(
            out,
            "  {} of blocks of {FUNCTION}{}{FUNCTION:#} by {FUNCTION}{}{FUNCTION:#}, past the caches",
            counted(pair.frees, "free"),
            leaf(&pair.allocated.frames),
            leaf(&pair.freed.frames)
        );
    }
    if let Some(most) = of.cross_thread_frees.sites.first() {
        let _ = writeln!(
            out,
            "  {} by another thread than the one that allocated, {} of them of {FUNCTION}{}{FUNCTION:#}",
            counted(of.cross_thread_frees.frees, "free"),
            count(most.frees),
            leaf(&most.at.frames)
        );
    }
}
