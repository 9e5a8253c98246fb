//! The check for leaks: what of the process's memory its program can still reach.
//!
//! At every way out of the program that this library sees, and when somebody asks, the process stops its threads, asks
//! the recorder for the list of its live blocks, and marks in it what it finds pointers to ([`xalloc_core::reach`]).
//! What that means is for the recorder to say.
//!
//! # Where the stack ends
//! Words that a function left on the stack when it returned look like pointers. So a stack is read from its stack pointer
//! up and no further. At `exit` that is the caller's stack pointer, with the registers that a callee must keep
//! ([`way_out`]): an exit handler stands far below it, on what the program used before. After `main` has returned no
//! frame of the program is left, and nothing of its stack is read.
//!
//! # Why `main` is not wrapped
//! A wrapper around `main`, by interposing `__libc_start_main`, would know when `main` returns; it would also be a frame
//! of ours in every stack of the program, in its own backtraces too. The stack of the exit handler says the same: if
//! between libc's `exit` and the outermost frame there is nothing but libc, nobody is at work any more.
//!
//! # What it may not do
//! Nothing that it finds, and nothing that fails, changes how the program ends. All waits are bounded. It allocates from
//! the kernel only, and gives that back.
//!
//! # Heap chunks that are used again
//! A block that was not written since it was allocated holds what its former owner left there, pointers included, and
//! such a pointer hides a leak. To clear chunks when they are freed would cost every `free` a write over the whole
//! chunk, and change what a faulty program reads; so the miss is accepted: of eight
//! programs it hid something in one (bench/results/2026-11-22-stale-words.md). LSan clears each block it hands out.
//!
//! # Safety
//! - The shared file is mapped for as long as this module uses it; it is as long as its block count asks for, which is
//!   checked, and the recorder does not write to it after it has answered.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use xalloc_core::reach::{Block, Mark, Marker, Scratch, Span, Verdict, flag};
use xalloc_core::session::blocks::{self, BLOCKS_MAGIC, BlocksHeader, answer, result};
use xalloc_core::session::leak_check;
use xalloc_core::sys::clock;
use xalloc_core::units::PAGE_BYTES;

use crate::host::{self, File};
use crate::segment::Segment;
use crate::thread;

mod apart;
mod asked;
mod control;
mod excluded;
mod fault;
mod memory;
mod on_demand;
mod own_break;
mod pages;
pub(crate) mod root_regions;
mod roots;
mod say;
mod stop;
mod told;
mod way_out;

pub(crate) use asked::{on_check, on_final_check};
pub(crate) use on_demand::watch as watch_demands;
pub(crate) use own_break::moved as break_moved;
pub(crate) use way_out::{
    at_exit_handler, at_quick_exit_handler, before_abort, before_assertion, before_exit, before_quick_exit,
    exit_at_once, watch_signals,
};

use control::Control;
use memory::Map;
use roots::Boundary;
use stop::Stopped;

/// Words that are read at most to find disguised pointers.
const MOST_HINT_WORDS: u64 = 32 << 20;

/// Why there are no marks: a value of [`result`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Failure(u32);

/// One check of the process.
struct Check<'a> {
    segment: &'static Segment,
    occasion: u32,
    boundary: &'a Boundary,
    whose: Whose,
}

/// Whose memory is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    /// The process's own.
    Own,
    /// That of a copy of the process, by the copy.
    Copy,
}

/// The process in which a check is being made; 0: none. A child does not go on with its parent's.
static CHECKING: AtomicU32 = AtomicU32::new(0);

/// Begins a check, unless another thread makes one.
fn begin() -> bool {
    let me = host::pid();
    // ORDERING: pairs with the Release store in `end`: what the other check left behind is seen.
    CHECKING.swap(me, Ordering::Acquire) != me
}

fn end() {
    // ORDERING: pairs with the Acquire exchange in `begin`.
    CHECKING.store(0, Ordering::Release);
}

/// Why the process is not to be checked: a value of [`result`].
fn refusal() -> Option<u32> {
    if host::is_confined() { Some(result::CONFINED) } else { say::refusal() }
}

/// Checks the process's blocks, because it is about to end or because of `occasion`. Returns whether blocks are leaked.
fn check(segment: &'static Segment, occasion: u32, boundary: &Boundary) -> bool {
    let is_wanted = segment.options.leak_check & leak_check::AT_EXIT != 0 && segment.has_recorder();
    if !is_wanted || asked::stands_for(occasion) || !begin() {
        return false;
    }
    let leaked = host::keeping_errno(|| Check { segment, occasion, boundary, whose: Whose::Own }.run());
    on_demand::reap();
    end();
    leaked
}

impl Check<'_> {
    fn run(&self) -> bool {
        let handshake = &self.segment.header().handshake;
        let before = handshake.request.load(Ordering::Relaxed);
        if !self.segment.waits_for(&handshake.read, |read| read == before) {
            return false;
        }
        let number = before + 1;
        // Relaxed: published with the request's number.
        handshake.occasion.store(self.occasion, Ordering::Relaxed);
        handshake.exit_stack.store(self.boundary.stack.0, Ordering::Relaxed);
        let marked = if thread::is_inside() { Err(Failure(result::INSIDE)) } else { self.mark_all(number) };
        self.finish(number, marked)
    }

    /// Says what came of the request. Returns whether blocks are leaked.
    fn finish(&self, number: u32, marked: Result<bool, Failure>) -> bool {
        let handshake = &self.segment.header().handshake;
        let (outcome, leaked) = match marked {
            Ok(leaked) => (result::MARKED, leaked),
            Err(Failure(why)) => (why, false),
        };
        // Relaxed: published with the number below.
        handshake.result.store(outcome, Ordering::Relaxed);
        handshake.request.fetch_max(number, Ordering::Relaxed);
        // ORDERING: pairs with the recorder's Acquire load: the marks were written before.
        handshake.done.store(number, Ordering::Release);
        self.segment.ring_doorbell();
        leaked
    }

    fn mark_all(&self, number: u32) -> Result<bool, Failure> {
        if let Some(why) = refusal() {
            return Err(Failure(why));
        }
        let suppressions = say::suppressions();
        let marked = apart::on_own_stack(|| {
            let stopped = Stopped::all_others().ok_or(Failure(result::NO_MEMORY))?;
            let control = self.plant()?;
            self.request(number);
            let leaked = self.mark(number, &stopped, suppressions);
            drop(control);
            leaked
        });
        marked.unwrap_or(Err(Failure(result::NO_MEMORY)))
    }

    /// Lays the positive control out, and says where.
    fn plant(&self) -> Result<Control, Failure> {
        let control = Control::planted().ok_or(Failure(result::NO_MEMORY))?;
        // Relaxed: published with the request's number.
        self.segment.header().handshake.control_addr.store(control.addr(), Ordering::Relaxed);
        Ok(control)
    }

    /// Marks the blocks, while the other threads stand still or in a copy that has none.
    fn mark(&self, number: u32, stopped: &Stopped, suppressions: Option<&CStr>) -> Result<bool, Failure> {
        let began_ns = clock::monotonic_ns();
        let table = self.table(number)?;
        let (found, blocks) = {
            let (blocks, marks) = (table.blocks(), table.marks());
            let scratch = Working::for_blocks(blocks.len()).ok_or(Failure(result::NO_MEMORY))?;
            // Read when the list is there, which is a mapping too.
            let map = Map::read().ok_or(Failure(result::NO_MAPS))?;
            let guarded = fault::Guard::new();
            let memory = memory::Own::new(&map, &guarded);
            let marker = Marker::new(blocks, marks, scratch.scratch(), memory);
            let marker = marker.ok_or(Failure(result::NO_MEMORY))?;
            (roots::mark(marker, &map, stopped, self.boundary, self.whose, table.regions()), blocks)
        };
        let header = table.header();
        header.paused_ns = clock::monotonic_ns() - began_ns;
        header.root_bytes = found.root_bytes;
        header.unreadable_pages = found.unreadable_pages;
        header.threads = stopped.known() + 1;
        header.running_threads = stopped.running();
        header.regions = found.regions;
        header.suppressions_bytes = say::copy(suppressions, table.suppressions());
        let leaked = table.marks().iter().zip(blocks).any(|(mark, block)| {
            let verdict = Verdict::from_number(mark.verdict);
            matches!(verdict, Some(Verdict::Definite | Verdict::Cycle)) && !block.has(flag::CONTROL)
        });
        Ok(leaked)
    }

    /// Asks the recorder for the table.
    fn request(&self, number: u32) {
        // ORDERING: pairs with the recorder's Acquire load: everything of this thread was pushed before.
        self.segment.header().handshake.request.store(number, Ordering::Release);
        self.segment.ring_doorbell();
    }

    /// Waits for the table.
    fn table(&self, number: u32) -> Result<Table, Failure> {
        let handshake = &self.segment.header().handshake;
        if !self.segment.waits_for(&handshake.answer, |answered| answered == number) {
            return Err(Failure(result::NO_ANSWER));
        }
        // Relaxed: published with the number.
        if handshake.answer_is.load(Ordering::Relaxed) != answer::TABLE {
            return Err(Failure(result::REFUSED));
        }
        let path = self.segment.blocks_path(number);
        Table::open(path.as_c(), number).ok_or(Failure(result::NO_TABLE))
    }
}

/// The shared file, mapped.
struct Table {
    base: NonNull<u8>,
    bytes: usize,
}

impl Table {
    fn open(path: &CStr, number: u32) -> Option<Table> {
        let file = File::open(path, libc::O_RDWR)?;
        let bytes = file.size() as usize;
        if bytes < blocks::SUPPRESSIONS.end {
            return None;
        }
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { file.map(bytes, core::ptr::null_mut()) }?;
        let table = Table { base, bytes };
        let header = *table.header();
        let is_it = header.magic == BLOCKS_MAGIC
            && header.request == u64::from(number)
            && header.blocks < u64::from(u32::MAX)
            && blocks::marks_in_file(header.blocks as usize).end <= bytes;
        is_it.then_some(table)
    }

    #[allow(clippy::mut_from_ref, reason = "each part of the file is borrowed once at a time, in `mark_all`")]
    fn header(&self) -> &mut BlocksHeader {
        // SAFETY: by the bullet of the module the header lies in the mapping, and nobody else uses it.
        unsafe { self.base.cast::<BlocksHeader>().as_mut() }
    }

    fn count(&self) -> usize {
        self.header().blocks as usize
    }

    fn blocks<'a>(&self) -> &'a [Block] {
        // SAFETY: by the bullet of the module.
        let first = unsafe { self.base.add(blocks::blocks_in_file(self.count()).start) };
        // SAFETY: as above; the recorder wrote them before it answered.
        unsafe { core::slice::from_raw_parts(first.as_ptr().cast(), self.count()) }
    }

    #[allow(clippy::mut_from_ref, reason = "see `header`")]
    fn marks<'a>(&self) -> &'a mut [Mark] {
        // SAFETY: by the bullet of the module.
        let first = unsafe { self.base.add(blocks::marks_in_file(self.count()).start) };
        // SAFETY: as above; zeroes are marks.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr().cast(), self.count()) }
    }

    #[allow(clippy::mut_from_ref, reason = "see `header`")]
    fn suppressions<'a>(&self) -> &'a mut [u8] {
        // SAFETY: by the bullet of the module.
        let first = unsafe { self.base.add(blocks::SUPPRESSIONS.start) };
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), blocks::SUPPRESSIONS.len()) }
    }

    #[allow(clippy::mut_from_ref, reason = "see `header`")]
    fn regions<'a>(&self) -> &'a mut [blocks::Region] {
        // SAFETY: by the bullet of the module.
        let first = unsafe { self.base.add(blocks::REGIONS.start) };
        // SAFETY: as above; zeroes are regions.
        unsafe { core::slice::from_raw_parts_mut(first.as_ptr().cast(), blocks::MOST_REGIONS) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        unsafe { host::unmap(self.base, self.bytes) };
    }
}

/// Memory for the marker.
struct Working {
    base: NonNull<u8>,
    bytes: usize,
    count: usize,
}

impl Working {
    fn for_blocks(count: usize) -> Option<Working> {
        let words = Scratch::words_for(count) * size_of::<u32>();
        let bytes = (words.next_multiple_of(64) + count * size_of::<Span>()).next_multiple_of(PAGE_BYTES as usize);
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { host::map_anonymous(bytes.max(PAGE_BYTES as usize), core::ptr::null_mut()) }?;
        Some(Working { base, bytes: bytes.max(PAGE_BYTES as usize), count })
    }

    fn scratch(&self) -> Scratch<'_> {
        let words = Scratch::words_for(self.count);
        // SAFETY: the mapping is that long, and this is called once.
        let words_in = unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr().cast(), words) };
        let behind = (words * size_of::<u32>()).next_multiple_of(64);
        // SAFETY: the spans lie behind the words in the mapping.
        let first = unsafe { self.base.add(behind) };
        // SAFETY: as above; zeroes are spans.
        let spans = unsafe { core::slice::from_raw_parts_mut(first.as_ptr().cast(), self.count) };
        Scratch { words: words_in, spans }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        unsafe { host::unmap(self.base, self.bytes) };
    }
}
