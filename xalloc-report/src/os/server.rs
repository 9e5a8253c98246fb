//! A process that serves recorded requests by whatever allocator is loaded into it.
//!
//! xalloc-report starts itself once more with a library preloaded and two arguments that no user writes: the word
//! [`WORD`] and a file of requests. [`at_start`] sees them before `main`, before std has allocated anything, serves the
//! requests, writes what it measured to standard output and ends the process. Everything of its own lies in mappings,
//! so the allocator serves the recorded requests and, for each thread, what `pthread_create` itself asks for.
//!
//! # Why not an executable of its own
//! It would have to be built by another cargo and unpacked before use, as the preload library is, for the sake of two
//! hundred lines; and a program compiled when it is needed would need a compiler. The price of this way is one
//! comparison of an argument at each start of the program.
//!
//! # Safety
//! - The state is touched by the main thread before a second one exists, or by the thread that has the turn
//!   ([`threads`]), which the one before it gave up by a Release store.
//! - A slot is empty or has a block that the allocator handed out and that was not freed since.
//! - libc's functions get pointers to locals or to mappings of this module, with their true lengths.
#![allow(unsafe_code)]

mod batch;
mod format;
mod memory;
mod slots;
mod threads;

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use xalloc_core::units::PAGE_BYTES;

use batch::Batch;
pub use format::{Answer, Ask, Header, Touch, ask};
use memory::Meter;
use slots::Slots;
use threads::{Threads, hand_over, wait_for_turn};

/// The argument by which the process knows what it is.
pub const WORD: &str = "--serve-recorded-requests";

/// Called by the C library before `main`, and before std's own start.
#[used]
// SAFETY: an entry of this section is a function that the C library calls with these three arguments.
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn(c_int, *const *const c_char, *const *const c_char) = at_start;

extern "C" fn at_start(count: c_int, arguments: *const *const c_char, _: *const *const c_char) {
    if count != 3 {
        return;
    }
    // SAFETY: the C library passes `count` strings.
    let word = unsafe { arguments.wrapping_add(1).read() };
    // SAFETY: as above.
    if unsafe { CStr::from_ptr(word) }.to_bytes() != WORD.as_bytes() {
        return;
    }
    // SAFETY: as above.
    let path = unsafe { arguments.wrapping_add(2).read() };
    // SAFETY: as above.
    let status = match serve(unsafe { CStr::from_ptr(path) }) {
        Some(answer) if write_all(libc::STDOUT_FILENO, &answer.to_words()) => 0,
        Some(_) | None => 1,
    };
    // SAFETY: ends the process at once; nothing of std has begun.
    unsafe { libc::_exit(status) };
}

const PAGE: usize = PAGE_BYTES as usize;
/// How often memory is looked at.
const SAMPLES: u64 = 2000;
/// After a request of this size it is looked at as well.
const LARGE: u64 = 1 << 20;

/// The state of the thread that has the turn.
struct State {
    batch: Batch,
    slots: Slots,
    threads: Threads,
    meter: Meter,
    touch: Touch,
    is_glibc: bool,
    /// The slot that the next realloc takes its block from.
    changing: usize,
    /// Bytes of the next block that are written to, where that was told.
    told: Option<usize>,
    refused: u64,
    served: u64,
    /// Requests from one look at the memory to the next.
    interval: u64,
}

struct Place(UnsafeCell<State>);
// SAFETY: by the first bullet of the module.
unsafe impl Sync for Place {}

static STATE: Place = Place(UnsafeCell::new(State {
    batch: Batch::none(),
    slots: Slots::none(),
    threads: Threads::none(),
    meter: Meter::new(),
    touch: Touch::Nothing,
    is_glibc: false,
    changing: NO_SLOT,
    told: None,
    refused: 0,
    served: 0,
    interval: 1,
}));

/// A slot beyond all.
const NO_SLOT: usize = usize::MAX;

/// A mapping of this process's own, resident at once and all zeros.
fn map(bytes: usize) -> Option<*mut u8> {
    anonymous(bytes, libc::MAP_POPULATE)
}

/// A mapping that becomes resident as it is touched.
fn reserve(bytes: usize) -> Option<*mut u8> {
    anonymous(bytes, libc::MAP_NORESERVE)
}

fn anonymous(bytes: usize, flags: c_int) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: the kernel chooses the place.
    let place = unsafe { libc::mmap(null_mut(), bytes.max(1), libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    (place != libc::MAP_FAILED).then(|| place.cast())
}

fn open(path: &CStr, flags: c_int) -> c_int {
    // SAFETY: the path is a C string.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }
}

fn write_all(file: c_int, words: &[u64]) -> bool {
    // SAFETY: the slice lives through the call.
    let written = unsafe { libc::write(file, words.as_ptr().cast(), size_of_val(words)) };
    written == size_of_val(words) as isize
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the local struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Whether a library with the name in `LD_PRELOAD` is mapped.
fn is_preloaded() -> bool {
    // SAFETY: the name is a C string; no other thread runs.
    let wanted = unsafe { libc::getenv(c"LD_PRELOAD".as_ptr()) };
    if wanted.is_null() {
        return true;
    }
    // SAFETY: an opened library is only asked for; with RTLD_NOLOAD nothing is loaded.
    !unsafe { libc::dlopen(wanted, libc::RTLD_NOLOAD | libc::RTLD_LAZY) }.is_null()
}

/// Serves the requests of the file.
fn serve(path: &CStr) -> Option<Answer> {
    // SAFETY: by the first bullet of the module there is no second thread yet.
    let state = unsafe { &mut *STATE.0.get() };
    let file = open(path, libc::O_RDONLY);
    let mut words = [0_u64; Header::WORDS];
    // SAFETY: the array is writable and has that many bytes.
    let got = unsafe { libc::read(file, words.as_mut_ptr().cast(), size_of_val(&words)) };
    if got != size_of_val(&words) as isize {
        return None;
    }
    let header = Header::from_words(words)?;
    state.batch = Batch::of(file)?;
    state.slots = Slots::with_count(header.slots as usize)?;
    state.threads = Threads::with_count(header.threads as usize)?;
    state.touch = header.touch;
    state.is_glibc = header.is_glibc;
    state.interval = (header.requests / SAMPLES).max(1);
    let is_preloaded = is_preloaded();
    state.meter.begin();
    let started_ns = now_ns();
    take_turns(0);
    let ended_ns = now_ns();
    // SAFETY: by the first bullet of the module: the turn is this thread's again, and all others wait for ever.
    let state = unsafe { &mut *STATE.0.get() };
    let measured = state.meter.end();
    Some(Answer {
        peak_footprint_bytes: measured.peak_footprint_bytes,
        mean_footprint_bytes: measured.mean_footprint_bytes,
        mean_by_request_bytes: measured.mean_by_request_bytes,
        end_footprint_bytes: measured.end_footprint_bytes,
        peak_rss_bytes: measured.peak_rss_bytes,
        end_rss_bytes: measured.end_rss_bytes,
        page_faults: measured.page_faults,
        duration_ns: (ended_ns - started_ns).saturating_sub(measured.sampling_ns),
        refused: state.refused,
        samples: measured.samples,
        is_preloaded,
    })
}

extern "C" fn thread_main(number: *mut c_void) -> *mut c_void {
    let me = number.addr() as u32;
    wait_for_turn(me);
    take_turns(me);
    null_mut()
}

/// Serves requests while they are this thread's, hands the turn over where they are not. Returns in the main thread
/// when all are served, in another one when it is to end.
fn take_turns(me: u32) {
    loop {
        // SAFETY: by the first bullet of the module this thread has the turn.
        let state = unsafe { &mut *STATE.0.get() };
        if me == 0 {
            state.threads.join_leaving();
        }
        let Some(request) = state.batch.peek() else {
            if me != 0 {
                hand_over(0);
                wait_for_turn(me);
                continue;
            }
            return;
        };
        let owner = state.owner_of(&request);
        if owner != me {
            hand_over(owner);
            wait_for_turn(me);
            continue;
        }
        state.batch.advance();
        if request.kind == ask::EXIT && me != 0 {
            state.threads.leave(me);
            hand_over(0);
            return;
        }
        state.carry_out(&request);
    }
}

impl State {
    /// The thread that serves a request: its own while that runs, else the main thread. A thread is started by the
    /// main one.
    fn owner_of(&self, request: &Ask) -> u32 {
        let is_running = request.kind != ask::START && self.threads.is_running(request.thread.into());
        if is_running { request.thread.into() } else { 0 }
    }

    fn carry_out(&mut self, request: &Ask) {
        let &Ask { size, slot, kind, align_log2, thread } = request;
        let bytes = size as usize;
        match kind {
            // SAFETY: any size may be asked for.
            ask::MALLOC => self.made(request, unsafe { libc::malloc(bytes) }),
            // SAFETY: as above.
            ask::CALLOC => self.made(request, unsafe { libc::calloc(1, bytes) }),
            ask::MEMALIGN => {
                // SAFETY: as above; the alignment is a power of two.
                let block = unsafe { libc::memalign(1 << align_log2.min(62), bytes) };
                self.made(request, block);
            }
            ask::REALLOC_OF => {
                self.changing = slot as usize;
                return;
            }
            ask::TOUCH => {
                self.told = Some(bytes);
                return;
            }
            ask::TICK => return self.meter.tick(size),
            ask::REALLOC => {
                let from = std::mem::replace(&mut self.changing, NO_SLOT);
                let old = self.slots.take(from);
                // SAFETY: by the second bullet of the module.
                let block = unsafe { libc::realloc(old, bytes) };
                if block.is_null() {
                    self.slots.put(from, old);
                }
                self.made(request, block);
            }
            ask::FREE => {
                let old = self.slots.take(slot as usize);
                // SAFETY: by the second bullet of the module.
                unsafe { libc::free(old) };
            }
            ask::START => {
                let started = self.threads.start(thread.into(), thread_main);
                self.refused += u64::from(started.is_err());
            }
            // SAFETY: the program moved the break so as well; allocators allow for that.
            ask::BREAK => drop(unsafe { libc::sbrk(size as isize) }.is_null()),
            // SAFETY: any padding may be asked for.
            ask::TRIM if self.is_glibc => drop(unsafe { libc::malloc_trim(bytes) }),
            // SAFETY: what is no parameter is refused.
            ask::MALLOPT if self.is_glibc => drop(unsafe { libc::mallopt(slot as c_int, size as c_int) }),
            // What another allocator has no word for, and what this version does not know.
            _ => {}
        }
        self.served += 1;
        if self.served.is_multiple_of(self.interval) || size >= LARGE {
            self.meter.sample();
        }
    }

    fn made(&mut self, request: &Ask, block: *mut c_void) {
        let told = self.told.take();
        if block.is_null() {
            self.refused += 1;
            return;
        }
        self.slots.put(request.slot as usize, block);
        let bytes = request.size as usize;
        let end = match self.touch {
            Touch::All => bytes,
            Touch::Told => told.map_or(bytes, |told| told.min(bytes)),
            Touch::First => bytes.min(1),
            Touch::Nothing => 0,
        };
        let block = block.cast::<u8>();
        let mut at = 0;
        while at < end {
            // SAFETY: within the block, which has `bytes` bytes.
            unsafe { block.wrapping_add(at).write_volatile(1) };
            // On with the first byte of the next page.
            at += PAGE - (block.addr() + at) % PAGE;
        }
    }
}
