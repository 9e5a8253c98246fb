//! What differs between the versions of glibc's malloc, as data.
//!
//! The rooms of the heap never ask for a version; they ask for one of the flags here. A profile is the set of flags
//! of one release (placement policy, section 11), and the default one is that of the libc that is running, so that the
//! heap places chunks as the program's own libc would have.
//!
//! # What is verified
//! The profile of 2.35 and 2.36 is compared with the real libc chunk for chunk (`tests/placement.rs`). The others are
//! written from the table of differences and run through the same property tests, but have met no real libc yet.

/// When a thread's cache comes into being.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheBirth {
    /// At the thread's first malloc, calloc, realloc or free of any size.
    AnyCall,
    /// At the first allocation that a cache bin could have served (since 2.42).
    CacheableAllocation,
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
    /// The size and the old top, at least 1 MiB (up to 2.34, and since 2.38).
    AtLeast,
    /// While the arena is contiguous the size and the old top rounded up to 1 MiB, later the plain size (2.35 to 2.37).
    Rounded,
}

/// The placement rules of one release of glibc.
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
    /// When a cache is made.
    pub tcache_birth: CacheBirth,
    /// Whether `calloc` takes from the cache.
    pub calloc_uses_tcache: bool,
    /// Whether a freed small chunk goes to its small bin at once instead of through the unsorted bin.
    pub small_free_skips_unsorted: bool,
    /// Whether there are fast bins.
    pub fastbins: bool,
    /// Whether an aligned allocation looks for an aligned chunk in the cache.
    pub memalign_scans_tcache: bool,
    /// Leader and tail of an aligned allocation.
    pub memalign_rests: AlignedRests,
    /// Whether `memalign` fails for an alignment above `PTRDIFF_MAX` with `ENOMEM`.
    pub memalign_limits_alignment: bool,
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
    /// Whether the mmap threshold may not be tuned above 32 MiB.
    pub mmap_threshold_is_limited: bool,
    /// Bytes that a mapped chunk needs beyond its rounded request before the size is rounded to pages.
    pub mapped_extra_bytes: u64,
}

impl Policy {
    /// glibc 2.35 and 2.36 (Ubuntu 22.04, Debian 12).
    pub const GLIBC_2_36: Policy = Policy {
        tcache: true,
        tcache_struct_bytes: 640,
        tcache_count: 7,
        tcache_chunk_max_bytes: 1040,
        tcache_birth: CacheBirth::AnyCall,
        calloc_uses_tcache: false,
        small_free_skips_unsorted: false,
        fastbins: true,
        memalign_scans_tcache: false,
        memalign_rests: AlignedRests::Freed,
        memalign_limits_alignment: true,
        aligned_alloc_is_strict: false,
        realloc_slack: ReallocSlack::Split,
        inner_free_uses_tcache: true,
        break_fallback: BreakFallback::Rounded,
        heap_header_bytes: 48,
        mmap_threshold_is_limited: false,
        mapped_extra_bytes: 8,
    };

    /// glibc 2.30 to 2.34 (Ubuntu 20.04, Debian 11, RHEL 9).
    pub const GLIBC_2_31: Policy = Policy {
        break_fallback: BreakFallback::AtLeast,
        heap_header_bytes: 32,
        mmap_threshold_is_limited: true,
        ..Policy::GLIBC_2_36
    };

    /// glibc 2.26 to 2.29: the cache's counts are bytes.
    pub const GLIBC_2_27: Policy = Policy { tcache_struct_bytes: 576, ..Policy::GLIBC_2_31 };

    /// glibc 2.37.
    pub const GLIBC_2_37: Policy = Policy { realloc_slack: ReallocSlack::KeepToTrimThreshold, ..Policy::GLIBC_2_36 };

    /// glibc 2.38. Its scan of the bins for an aligned chunk, which no other release has, is not implemented.
    pub const GLIBC_2_38: Policy = Policy {
        realloc_slack: ReallocSlack::KeepSmall,
        memalign_scans_tcache: true,
        aligned_alloc_is_strict: true,
        break_fallback: BreakFallback::AtLeast,
        ..Policy::GLIBC_2_36
    };

    /// glibc 2.39 and 2.40 (Ubuntu 24.04).
    pub const GLIBC_2_39: Policy = Policy { memalign_rests: AlignedRests::Merged, ..Policy::GLIBC_2_38 };

    /// glibc 2.41 (Debian 13).
    pub const GLIBC_2_41: Policy =
        Policy { calloc_uses_tcache: true, small_free_skips_unsorted: true, ..Policy::GLIBC_2_39 };

    /// glibc 2.42. Its optional cache bins for chunks up to 4 MiB are not implemented.
    pub const GLIBC_2_42: Policy = Policy {
        tcache_struct_bytes: 760,
        tcache_chunk_max_bytes: 1024,
        tcache_birth: CacheBirth::CacheableAllocation,
        inner_free_uses_tcache: false,
        ..Policy::GLIBC_2_41
    };

    /// glibc 2.43 as it was in development.
    pub const GLIBC_2_43: Policy =
        Policy { tcache_count: 16, fastbins: false, mapped_extra_bytes: 16, ..Policy::GLIBC_2_42 };

    /// The profile for a version string as `gnu_get_libc_version` returns it ("2.36"), or `None` for a version that
    /// has no profile: older than 2.26, newer than 2.43, or no version at all.
    #[must_use]
    pub fn for_libc(version: &str) -> Option<Policy> {
        let mut parts = version.split('.');
        let major: u32 = parts.next()?.parse().ok()?;
        let digits = parts.next()?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let minor: u32 = digits[..end].parse().ok()?;
        match (major, minor) {
            (2, 26..=29) => Some(Policy::GLIBC_2_27),
            (2, 30..=34) => Some(Policy::GLIBC_2_31),
            (2, 35 | 36) => Some(Policy::GLIBC_2_36),
            (2, 37) => Some(Policy::GLIBC_2_37),
            (2, 38) => Some(Policy::GLIBC_2_38),
            (2, 39 | 40) => Some(Policy::GLIBC_2_39),
            (2, 41) => Some(Policy::GLIBC_2_41),
            (2, 42) => Some(Policy::GLIBC_2_42),
            (2, 43) => Some(Policy::GLIBC_2_43),
            _ => None,
        }
    }
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
    fn an_unknown_version_has_no_profile() {
        for version in ["2.17", "2.99", "3.0", "musl", "", "2", "2."] {
            assert_eq!(Policy::for_libc(version), None, "{version:?}");
        }
    }
}
