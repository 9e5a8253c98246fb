//! The numbers in force: what [`Tunables`] set, what `mallopt` and the dynamic mmap threshold change afterwards.
//!
//! They are atomics because threads read them without a lock; each stands for itself, so every access is Relaxed.
//! A thread that reads a threshold while another moves it decides by the old or the new one, as in glibc.
//!
//! # Safety
//! - `policy` is written once, by whoever moves `stage` from FRESH to SETTING, and read only after `stage` is READY.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::chunk::{self, MXFAST_LIMIT};
use super::huge::HugePages;
use super::policy::{HugeTlb, Policy};
use super::tunables::{MMAP_THRESHOLD_MAX, Parameter, Tunable, Tunables};

/// Placement policy, section 1: `top_pad` is 128 KiB, not the 0 of the manual.
const TOP_PAD: u64 = 131_072;
/// Placement policy, section 1: trim and mmap thresholds before they move.
const THRESHOLD: u64 = 131_072;
/// Placement policy, section 1.
const MMAP_MAX: u64 = 65_536;
/// Placement policy, section 1: largest chunk of the fast bins by default.
const MAX_FAST: u64 = 128;
/// Placement policy, section 10.
const ARENA_TEST: u64 = 8;

/// Placement policy, section 1: sub-heaps of ordinary pages.
pub(super) const SUB_HEAP_BYTES: u64 = 64 << 20;

/// Heaps that were configured in this process: it numbers them.
static HEAPS: AtomicU32 = AtomicU32::new(0);

const FRESH: u8 = 0;
const SETTING: u8 = 1;
const READY: u8 = 2;

/// A number that is read and written by itself.
#[derive(Debug)]
pub(super) struct Number(AtomicU64);

impl Number {
    pub(super) const fn new(value: u64) -> Number {
        Number(AtomicU64::new(value))
    }

    #[inline(always)]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, and returns the sum.
    pub(super) fn add(&self, value: u64) -> u64 {
        self.0.fetch_add(value, Ordering::Relaxed).wrapping_add(value)
    }

    /// Subtracts.
    pub(super) fn sub(&self, value: u64) {
        self.0.fetch_sub(value, Ordering::Relaxed);
    }

    /// Raises the number to `value` if that is larger.
    pub(super) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

/// The numbers in force.
#[derive(Debug)]
pub(super) struct Settings {
    stage: AtomicU8,
    policy: UnsafeCell<Policy>,
    /// The heap's own number, from 1; 0 before it is configured.
    heap: AtomicU32,
    pub(super) top_pad: Number,
    pub(super) trim_threshold: Number,
    pub(super) mmap_threshold: Number,
    pub(super) mmap_max: Number,
    /// Largest chunk of the fast bins.
    pub(super) max_fast: Number,
    pub(super) arena_max: Number,
    pub(super) arena_test: Number,
    pub(super) tcache_count: Number,
    /// Largest chunk of the caches; 0 disables them.
    pub(super) tcache_chunk_max: Number,
    pub(super) tcache_unsorted_limit: Number,
    /// Byte that freed memory is filled with, and its complement what is allocated; 0: nothing is filled.
    pub(super) perturb: Number,
    /// Bytes of the transparent huge pages that the heap grows by; 0: of none.
    pub(super) transparent_page_bytes: Number,
    /// Length from which a range is advised to be made of such.
    pub(super) advised_from_bytes: Number,
    /// Bytes of the huge pages that the heap grows by; 0: of none.
    pub(super) mapped_page_bytes: Number,
    /// Size and alignment of a sub-heap.
    pub(super) sub_heap_bytes: Number,
    /// Set for good when a threshold was set by hand: the dynamic rule is off.
    thresholds_fixed: AtomicBool,
}

// SAFETY: by the bullet of the module the cell is written by one thread before any other reads it.
unsafe impl Sync for Settings {}

impl Settings {
    pub(super) const fn new() -> Settings {
        Settings {
            stage: AtomicU8::new(FRESH),
            policy: UnsafeCell::new(Policy::GLIBC_2_36),
            heap: AtomicU32::new(0),
            top_pad: Number::new(TOP_PAD),
            trim_threshold: Number::new(THRESHOLD),
            mmap_threshold: Number::new(THRESHOLD),
            mmap_max: Number::new(MMAP_MAX),
            max_fast: Number::new(MAX_FAST),
            arena_max: Number::new(0),
            arena_test: Number::new(ARENA_TEST),
            tcache_count: Number::new(0),
            tcache_chunk_max: Number::new(0),
            tcache_unsorted_limit: Number::new(0),
            perturb: Number::new(0),
            transparent_page_bytes: Number::new(0),
            advised_from_bytes: Number::new(u64::MAX),
            mapped_page_bytes: Number::new(0),
            sub_heap_bytes: Number::new(SUB_HEAP_BYTES),
            thresholds_fixed: AtomicBool::new(false),
        }
    }

    /// The rules. Takes the default ones if nobody configured the heap before its first use.
    #[inline]
    pub(super) fn policy(&self) -> &Policy {
        // ORDERING: pairs with the Release store in `configure`.
        if self.stage.load(Ordering::Acquire) != READY {
            self.configure(&Policy::default(), &Tunables::NONE, HugePages::Ordinary);
        }
        // SAFETY: `stage` is READY here, nobody writes the cell any more.
        unsafe { &*self.policy.get() }
    }

    /// Sets rules and numbers once. `false`: they were set before.
    #[cold]
    pub(super) fn configure(&self, policy: &Policy, tunables: &Tunables, huge_pages: HugePages) -> bool {
        // ORDERING: the winner alone writes the cell; losers wait for READY below.
        if self.stage.compare_exchange(FRESH, SETTING, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            // ORDERING: pairs with the Release store below.
            while self.stage.load(Ordering::Acquire) != READY {
                core::hint::spin_loop();
            }
            return false;
        }
        // SAFETY: this thread moved `stage` to SETTING and writes alone.
        unsafe { self.policy.get().write(*policy) };
        self.apply_huge_pages(policy, huge_pages);
        self.apply(policy, tunables);
        self.heap.store(HEAPS.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        // ORDERING: publishes the cell and the numbers; pairs with the Acquire loads of `stage`.
        self.stage.store(READY, Ordering::Release);
        true
    }

    /// The heap's own number, by which its threads' caches know it.
    pub(super) fn heap(&self) -> u32 {
        // Relaxed: who asks has called `policy` before.
        self.heap.load(Ordering::Relaxed)
    }

    fn apply(&self, policy: &Policy, tunables: &Tunables) {
        if policy.tcache {
            self.tcache_count.set(u64::from(policy.tcache_count));
            self.tcache_chunk_max.set(policy.tcache_chunk_max_bytes);
        }
        if !policy.fastbins {
            self.max_fast.set(0);
        }
        let parameters = [
            (Parameter::TopPad, tunables.top_pad_bytes),
            (Parameter::TrimThreshold, tunables.trim_threshold_bytes),
            (Parameter::MmapThreshold, tunables.mmap_threshold_bytes),
            (Parameter::MmapMax, tunables.mmap_max),
            (Parameter::MaxFast, tunables.mxfast_bytes),
            (Parameter::ArenaMax, tunables.arena_max),
            (Parameter::ArenaTest, tunables.arena_test),
            (Parameter::Perturb, tunables.perturb),
        ];
        for (parameter, value) in parameters {
            if let Some(value) = value {
                self.set(policy, parameter, value);
            }
        }
        let in_range = |tunable: Tunable, value: &u64| tunable.most(policy).is_none_or(|most| *value <= most);
        if let Some(count) = tunables.tcache_count.filter(|count| in_range(Tunable::TcacheCount, count)) {
            self.tcache_count.set(count);
        }
        let largest = tunables.tcache_max_bytes.filter(|bytes| in_range(Tunable::TcacheMax, bytes));
        if let Some(largest) = largest.and_then(chunk::for_request) {
            self.tcache_chunk_max.set(largest);
        }
        if let Some(limit) = tunables.tcache_unsorted_limit {
            self.tcache_unsorted_limit.set(limit);
        }
    }

    fn apply_huge_pages(&self, policy: &Policy, huge_pages: HugePages) {
        match huge_pages {
            HugePages::Advised(page_bytes) => {
                self.transparent_page_bytes.set(page_bytes);
                self.advised_from_bytes.set(page_bytes);
            }
            HugePages::Everywhere(page_bytes) if policy.hugetlb.rounds_all() => {
                self.transparent_page_bytes.set(page_bytes);
            }
            HugePages::Ordinary | HugePages::Everywhere(_) => {}
            HugePages::Mapped(page_bytes) => {
                self.mapped_page_bytes.set(page_bytes);
                if !policy.hugetlb.rounds_all() {
                    self.sub_heap_bytes.set(4 * page_bytes);
                }
                if policy.hugetlb != HugeTlb::FourPages {
                    self.set(policy, Parameter::MmapThreshold, page_bytes);
                }
            }
        }
    }

    /// Sets one parameter, by the rules of `mallopt`. `false`: the value is out of its range.
    pub(super) fn set(&self, policy: &Policy, parameter: Parameter, value: u64) -> bool {
        let fix = |number: &Number| {
            number.set(value);
            self.thresholds_fixed.store(true, Ordering::Relaxed);
            true
        };
        match parameter {
            Parameter::MaxFast if value > MXFAST_LIMIT => false,
            Parameter::MaxFast => {
                if policy.fastbins {
                    self.max_fast.set(chunk::round_down(value + chunk::OVERHEAD, chunk::ALIGNMENT));
                }
                true
            }
            Parameter::TrimThreshold => fix(&self.trim_threshold),
            Parameter::TopPad => fix(&self.top_pad),
            Parameter::MmapThreshold if policy.mmap_threshold_is_limited && value > MMAP_THRESHOLD_MAX => false,
            Parameter::MmapThreshold => fix(&self.mmap_threshold),
            Parameter::MmapMax => fix(&self.mmap_max),
            Parameter::ArenaTest | Parameter::ArenaMax if value == 0 => true,
            Parameter::ArenaTest => {
                self.arena_test.set(value);
                true
            }
            Parameter::ArenaMax => {
                self.arena_max.set(value);
                true
            }
            Parameter::Perturb => {
                self.perturb.set(value & 0xff);
                true
            }
            Parameter::CheckAction => true,
        }
    }

    /// The dynamic rule: a mapped chunk of `size` bytes was freed. Returns the threshold if it moved.
    pub(super) fn learn(&self, size: u64) -> Option<u64> {
        let fixed = self.thresholds_fixed.load(Ordering::Relaxed);
        // The comparison is made with the size word, whose IS_MMAPPED bit is set (placement policy, section 1).
        if fixed || size | chunk::IS_MMAPPED <= self.mmap_threshold.get() || size > MMAP_THRESHOLD_MAX {
            return None;
        }
        self.mmap_threshold.set(size);
        self.trim_threshold.set(2 * size);
        Some(size)
    }
}
