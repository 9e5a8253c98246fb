//! What differs between the versions of glibc's malloc, as data.
//!
//! The rooms of the heap never ask for a version; they ask for one of the flags here. A profile is the set of flags
//! of one release (placement policy, section 11), and the default one is that of the libc that is running, so that the
//! heap places chunks as the program's own libc would have.
//!
//! # What is verified
//! The profiles of 2.31, 2.36, 2.41, 2.43 and 2.44 are compared with the real libcs chunk for chunk
//! (`tests/placement.rs`, golden traces included). Those of 2.27, 2.37, 2.38, 2.39 and 2.42 are written from the table of
//! differences and run through the same property tests, but have met no real libc: Debian packages
//! none of them.

use super::chunk::{HEADER, MIN_CHUNK, OVERHEAD};

/// When a thread's cache comes into being.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheBirth {
    /// At the thread's first malloc, calloc, realloc or free of any size.
    AnyCall,
    /// At the first allocation that a cache bin could have served (2.42).
    CacheableAllocation,
    /// At the first free that a cache bin can take, or before that where an allocation finds a chunk of exactly its size
    /// in the unsorted or a small bin; the bookkeeping is then 16 bytes larger (2.43).
    FreeOrFit,
    /// At the first free that a cache bin can take, or before that where an allocation finds a chunk in its small bin
    /// (since 2.44).
    FreeOrSmallFit,
}

/// What becomes of the leader and the tail that an aligned allocation cuts off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlignedRests {
    /// They are freed like any chunk, and may end in the thread's cache.
    Freed,
    /// They go to the bins at once, and the tail goes back even when it is shorter than a chunk but borders free
    /// memory (since 2.39).
    Merged,
}

/// When `realloc` keeps a chunk that has become too large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReallocSlack {
    /// Never: what can be split off is split off.
    Split,
    /// When the excess is at most the trim threshold (2.37).
    KeepToTrimThreshold,
    /// When the excess of a heap chunk is below 16 bytes, that of a mapped one at most a page (since 2.38).
    KeepSmall,
}

/// How much is mapped when the break cannot move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakFallback {
    /// What the break was asked for and the old top, each in whole pages, at least 1 MiB (up to 2.34, and 2.38 to 2.42).
    AtLeast,
    /// While the arena is contiguous the size and the old top rounded up to 1 MiB, later the plain size (2.35 to 2.37).
    Rounded,
    /// The size as if there were no old top, at least 1 MiB (since 2.43).
    Plain,
}

/// How many arenas there may be, unless `arena_max` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArenaLimit {
    /// As many as are asked for until there are more than `arena_test`, then 8 for each processor.
    EightPerCore,
    /// `arena_test`, or one for each processor if those are more (since 2.44).
    ArenaTestOrCores,
}

/// What `glibc.malloc.hugetlb` means to a release.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugeTlb {
    /// Nothing (up to 2.34).
    Unknown,
    /// A sub-heap is as long as four of the pages that are to be mapped, and advice does not change how one grows (2.35 and
    /// 2.36).
    FourPages,
    /// As before; and where huge pages are to be mapped, one is the mmap threshold, for good (2.37 to 2.42).
    FourPagesAndThreshold,
    /// Sub-heaps keep their length, and advised ones grow by huge pages; the threshold as before (2.43).
    Rounded,
    /// As before, and the whole sub-heap is advised as often as it grows (since 2.44).
    RoundedAndAdvised,
}

impl HugeTlb {
    /// Whether what grows the heap is rounded up to huge pages wherever they are asked for.
    pub(super) const fn rounds_all(self) -> bool {
        matches!(self, HugeTlb::Rounded | HugeTlb::RoundedAndAdvised)
    }
}

/// How a chunk lies in a mapping of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MappedLayout {
    /// Its size is that of the mapping behind its beginning. It starts at the mapping's, or a smallest chunk or more
    /// behind that.
    ToTheEnd,
    /// Its size leaves a header's length at the end of the mapping out, as if a chunk came there, and it may start
    /// anywhere (since 2.43).
    ShortOfTheEnd,
}

/// Bit of the word before a mapped chunk: since 2.43 it says that the mapping is of huge pages.
const OF_HUGE_PAGES: u64 = 1;

impl MappedLayout {
    /// Bytes at the end of the mapping that the size word leaves out.
    pub(super) const fn tail_bytes(self) -> u64 {
        match self {
            MappedLayout::ToTheEnd => 0,
            MappedLayout::ShortOfTheEnd => HEADER,
        }
    }

    /// Whether the word before a chunk says that its mapping is of huge pages.
    pub(super) const fn is_of_huge_pages(self, prev_size: u64) -> bool {
        match self {
            MappedLayout::ToTheEnd => false,
            MappedLayout::ShortOfTheEnd => prev_size & OF_HUGE_PAGES != 0,
        }
    }

    /// What the word before a chunk at the start of a mapping of huge pages says.
    pub(super) const fn mark_of_huge_pages(self) -> u64 {
        match self {
            MappedLayout::ToTheEnd => 0,
            MappedLayout::ShortOfTheEnd => OF_HUGE_PAGES,
        }
    }

    /// The distance from the mapping's beginning that the word before a chunk says.
    pub(super) const fn offset(self, prev_size: u64) -> u64 {
        prev_size & !self.mark_of_huge_pages()
    }

    /// Bytes that are needed beyond the rounded request before the size is rounded to pages. A mapped chunk has no chunk
    /// above it whose first word it could use.
    pub(super) const fn extra_bytes(self) -> u64 {
        match self {
            MappedLayout::ToTheEnd => OVERHEAD,
            MappedLayout::ShortOfTheEnd => HEADER,
        }
    }

    /// Bytes of the size that the program cannot have.
    pub(super) const fn unusable_bytes(self) -> u64 {
        match self {
            MappedLayout::ToTheEnd => HEADER,
            MappedLayout::ShortOfTheEnd => OVERHEAD,
        }
    }

    /// Least distance from the mapping's beginning of a chunk that does not start there.
    pub(super) const fn least_offset(self) -> u64 {
        match self {
            MappedLayout::ToTheEnd => MIN_CHUNK,
            MappedLayout::ShortOfTheEnd => 0,
        }
    }
}

/// How a free judges the shape of a chunk: what it says of one that cannot be, and of which it notices nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShapeChecks {
    /// A chunk that wraps the address space or is misaligned is an invalid pointer; one that is too small or no multiple of
    /// the alignment long has an invalid size (up to 2.42).
    PlaceThenSize,
    /// Only a misaligned one is an invalid pointer, and a size that is no multiple of the alignment is not noticed (since
    /// 2.43).
    SizeAtOnce,
}

/// The placement rules of one release of glibc, and the words of its checks where those differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Whether threads have caches at all.
    pub tcache: bool,
    /// Request by which a cache's bookkeeping is allocated in the heap, in bytes.
    pub tcache_struct_bytes: u64,
    /// Largest number of chunks in a cache bin, unless tuned.
    pub tcache_count: u16,
    /// Largest chunk that a cache holds, in bytes, unless tuned.
    pub tcache_chunk_max_bytes: u64,
    /// Whether `tcache_max` may ask for twelve more cache bins, for chunks up to 4 MiB (since 2.42).
    pub tcache_large_bins: bool,
    /// When a cache is made.
    pub tcache_birth: CacheBirth,
    /// Whether `calloc` takes from the cache.
    pub calloc_uses_tcache: bool,
    /// Whether exact fits in the unsorted bin go to the cache, and the search goes on; else the first is the result (since
    /// 2.44).
    pub unsorted_fits_are_cached: bool,
    /// Whether a freed small chunk goes to its small bin at once instead of through the unsorted bin.
    pub small_free_skips_unsorted: bool,
    /// Whether there are fast bins.
    pub fastbins: bool,
    /// Whether an aligned allocation looks for an aligned chunk in the cache.
    pub memalign_scans_tcache: bool,
    /// Whether an aligned allocation then looks for an aligned chunk in the bins of sizes below twice its own (2.38).
    pub memalign_scans_bins: bool,
    /// Leader and tail of an aligned allocation.
    pub memalign_rests: AlignedRests,
    /// Whether `aligned_alloc` rejects what is not a power of two instead of rounding it up.
    pub aligned_alloc_is_strict: bool,
    /// Excess that `realloc` leaves on a chunk.
    pub realloc_slack: ReallocSlack,
    /// Whether the frees inside `realloc` and inside the growth of an arena may end in the thread's cache.
    pub inner_free_uses_tcache: bool,
    /// What is mapped when the break is blocked.
    pub break_fallback: BreakFallback,
    /// Bytes of a sub-heap's header.
    pub heap_header_bytes: u64,
    /// How many arenas there may be, unless tuned.
    pub arena_limit: ArenaLimit,
    /// Bytes of an arena's state in its first sub-heap.
    pub arena_bytes: u64,
    /// Whether the mmap threshold may not be tuned above 32 MiB.
    pub mmap_threshold_is_limited: bool,
    /// How a chunk lies in a mapping of its own.
    pub mapped_layout: MappedLayout,
    /// What becomes of the wish for huge pages.
    pub hugetlb: HugeTlb,
    /// What is said of a chunk that cannot be one.
    pub shape_checks: ShapeChecks,
    /// What is said of a top whose size was overwritten: an assertion, which names the line of the source.
    pub top_shape_words: &'static str,
}

/// The assertion about the top, behind what each release puts before it.
macro_rules! top_assertion {
    ($before:literal) => {
        concat!(
            $before,
            "(old_top == initial_top (av) && old_size == 0) || ((unsigned long) (old_size) >= MINSIZE && ",
            "prev_inuse (old_top) && ((unsigned long) old_end & (pagesize - 1)) == 0)"
        )
    };
}

impl Policy {
    /// glibc 2.35 and 2.36 (Ubuntu 22.04, Debian 12).
    pub const GLIBC_2_36: Policy = Policy {
        tcache: true,
        tcache_struct_bytes: 640,
        tcache_count: 7,
        tcache_chunk_max_bytes: 1040,
        tcache_large_bins: false,
        tcache_birth: CacheBirth::AnyCall,
        calloc_uses_tcache: false,
        unsorted_fits_are_cached: true,
        small_free_skips_unsorted: false,
        fastbins: true,
        memalign_scans_tcache: false,
        memalign_scans_bins: false,
        memalign_rests: AlignedRests::Freed,
        aligned_alloc_is_strict: false,
        realloc_slack: ReallocSlack::Split,
        inner_free_uses_tcache: true,
        break_fallback: BreakFallback::Rounded,
        heap_header_bytes: 48,
        arena_limit: ArenaLimit::EightPerCore,
        arena_bytes: 2200,
        mmap_threshold_is_limited: false,
        mapped_layout: MappedLayout::ToTheEnd,
        hugetlb: HugeTlb::FourPages,
        shape_checks: ShapeChecks::PlaceThenSize,
        top_shape_words: top_assertion!("Fatal glibc error: malloc assertion failure in sysmalloc: "),
    };

    /// glibc 2.30 to 2.34 (Ubuntu 20.04, Debian 11, RHEL 9).
    pub const GLIBC_2_31: Policy = Policy {
        break_fallback: BreakFallback::AtLeast,
        heap_header_bytes: 32,
        mmap_threshold_is_limited: true,
        hugetlb: HugeTlb::Unknown,
        ..Policy::GLIBC_2_36
    };

    /// glibc 2.26 to 2.29: the cache's counts are bytes.
    pub const GLIBC_2_27: Policy = Policy { tcache_struct_bytes: 576, ..Policy::GLIBC_2_31 };

    /// glibc 2.37.
    pub const GLIBC_2_37: Policy = Policy {
        realloc_slack: ReallocSlack::KeepToTrimThreshold,
        hugetlb: HugeTlb::FourPagesAndThreshold,
        ..Policy::GLIBC_2_36
    };

    /// glibc 2.38.
    pub const GLIBC_2_38: Policy = Policy {
        realloc_slack: ReallocSlack::KeepSmall,
        memalign_scans_tcache: true,
        memalign_scans_bins: true,
        aligned_alloc_is_strict: true,
        break_fallback: BreakFallback::AtLeast,
        hugetlb: HugeTlb::FourPagesAndThreshold,
        ..Policy::GLIBC_2_36
    };

    /// glibc 2.39 and 2.40 (Ubuntu 24.04).
    pub const GLIBC_2_39: Policy =
        Policy { memalign_scans_bins: false, memalign_rests: AlignedRests::Merged, ..Policy::GLIBC_2_38 };

    /// glibc 2.41 (Debian 13).
    pub const GLIBC_2_41: Policy = Policy {
        calloc_uses_tcache: true,
        small_free_skips_unsorted: true,
        top_shape_words: top_assertion!("Fatal glibc error: malloc.c:2601 (sysmalloc): assertion failed: "),
        ..Policy::GLIBC_2_39
    };

    /// glibc 2.42.
    pub const GLIBC_2_42: Policy = Policy {
        tcache_struct_bytes: 760,
        tcache_chunk_max_bytes: 1024,
        tcache_large_bins: true,
        tcache_birth: CacheBirth::CacheableAllocation,
        inner_free_uses_tcache: false,
        ..Policy::GLIBC_2_41
    };

    /// glibc 2.43 (Debian forky).
    pub const GLIBC_2_43: Policy = Policy {
        tcache_count: 16,
        tcache_chunk_max_bytes: 1040,
        tcache_birth: CacheBirth::FreeOrFit,
        break_fallback: BreakFallback::Plain,
        fastbins: false,
        mapped_layout: MappedLayout::ShortOfTheEnd,
        arena_bytes: 2112,
        hugetlb: HugeTlb::Rounded,
        shape_checks: ShapeChecks::SizeAtOnce,
        top_shape_words: top_assertion!("Fatal glibc error: malloc.c:2371 (sysmalloc): assertion failed: "),
        ..Policy::GLIBC_2_42
    };

    /// glibc 2.44.
    pub const GLIBC_2_44: Policy = Policy {
        tcache_birth: CacheBirth::FreeOrSmallFit,
        unsorted_fits_are_cached: false,
        arena_limit: ArenaLimit::ArenaTestOrCores,
        hugetlb: HugeTlb::RoundedAndAdvised,
        top_shape_words: top_assertion!("Fatal glibc error: malloc.c:2199 (sysmalloc): assertion failed: "),
        ..Policy::GLIBC_2_43
    };

    /// The profile for a version string as `gnu_get_libc_version` returns it ("2.36"), or `None` for a version that
    /// has no profile: older than 2.26, newer than 2.44, or no version at all.
    #[must_use]
    pub fn for_libc(version: &str) -> Option<Policy> {
        match numbers(version)? {
            (2, 26..=29) => Some(Policy::GLIBC_2_27),
            (2, 30..=34) => Some(Policy::GLIBC_2_31),
            (2, 35 | 36) => Some(Policy::GLIBC_2_36),
            (2, 37) => Some(Policy::GLIBC_2_37),
            (2, 38) => Some(Policy::GLIBC_2_38),
            (2, 39 | 40) => Some(Policy::GLIBC_2_39),
            (2, 41) => Some(Policy::GLIBC_2_41),
            (2, 42) => Some(Policy::GLIBC_2_42),
            (2, 43) => Some(Policy::GLIBC_2_43),
            (2, 44) => Some(Policy::GLIBC_2_44),
            _ => None,
        }
    }

    /// As [`Policy::for_libc`], but for every version: a newer one has the profile of 2.44, any other the default one.
    #[must_use]
    pub fn nearest_to(version: &str) -> Policy {
        let is_newer = numbers(version).is_some_and(|version| version > (2, 44));
        Policy::for_libc(version).unwrap_or(if is_newer { Policy::GLIBC_2_44 } else { Policy::default() })
    }
}

/// Major and minor number of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    let end = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major.parse().ok()?, minor[..end].parse().ok()?))
}

impl Default for Policy {
    /// The profile that is compared with a real libc.
    fn default() -> Policy {
        Policy::GLIBC_2_36
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_string_selects_its_profile() {
        assert_eq!(Policy::for_libc("2.36"), Some(Policy::GLIBC_2_36));
        assert_eq!(Policy::for_libc("2.31"), Some(Policy::GLIBC_2_31));
        assert_eq!(Policy::for_libc("2.42.9000"), Some(Policy::GLIBC_2_42));
        assert_eq!(Policy::for_libc("2.39-dev"), Some(Policy::GLIBC_2_39));
    }

    #[test]
    fn a_newer_release_gets_the_newest_profile_and_any_other_unknown_one_the_default() {
        assert_eq!(Policy::nearest_to("2.31"), Policy::GLIBC_2_31);
        assert_eq!(Policy::nearest_to("2.51"), Policy::GLIBC_2_44);
        assert_eq!(Policy::nearest_to("2.17"), Policy::default());
        assert_eq!(Policy::nearest_to("musl"), Policy::default());
    }

    #[test]
    fn an_unknown_version_has_no_profile() {
        for version in ["2.17", "2.99", "3.0", "musl", "", "2", "2."] {
            assert_eq!(Policy::for_libc(version), None, "{version:?}");
        }
    }
}
