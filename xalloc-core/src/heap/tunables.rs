//! The numbers that a user may set: by `GLIBC_TUNABLES`, by the `MALLOC_` variables, by `mallopt`.
//!
//! [`Tunables`] is what the environment says before the first allocation; the heap's live copy, which `mallopt` and the
//! dynamic mmap threshold change, is [`super::settings::Settings`].
//!
//! A name that is no tunable of malloc, and a value that is no number, are ignored, as glibc ignores them. The caller
//! does not read the environment of a process of raised privilege (`AT_SECURE`).

use super::chunk::{ALIGNMENT, MXFAST_LIMIT, OVERHEAD};
use super::policy::Policy;
use super::tcache::LARGE_LIMIT;

/// Placement policy, section 1: largest value of the dynamic mmap threshold, and of a tuned one up to 2.34.
pub(super) const MMAP_THRESHOLD_MAX: u64 = 32 << 20;

/// The tunables of malloc; `None` leaves the policy's default in force.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tunables {
    /// Bytes that a growing main arena takes beyond the need, and that trimming leaves (`M_TOP_PAD`).
    pub top_pad_bytes: Option<u64>,
    /// Size of the top from which a free trims (`M_TRIM_THRESHOLD`).
    pub trim_threshold_bytes: Option<u64>,
    /// Chunk size from which the system is asked for a mapping (`M_MMAP_THRESHOLD`).
    pub mmap_threshold_bytes: Option<u64>,
    /// Most chunks with a mapping of their own (`M_MMAP_MAX`).
    pub mmap_max: Option<u64>,
    /// Largest request that the fast bins serve (`M_MXFAST`), at most 160 bytes.
    pub mxfast_bytes: Option<u64>,
    /// Most arenas (`M_ARENA_MAX`); 0 is no limit of the user's.
    pub arena_max: Option<u64>,
    /// Arenas from which the number of cores limits them (`M_ARENA_TEST`).
    pub arena_test: Option<u64>,
    /// Most chunks in a bin of a thread's cache; 0 disables the cache's use.
    pub tcache_count: Option<u64>,
    /// Largest request that a thread's cache serves, at most 1,032 bytes.
    pub tcache_max_bytes: Option<u64>,
    /// Chunks that one allocation stashes from the unsorted bin before it returns; 0 is no limit.
    pub tcache_unsorted_limit: Option<u64>,
    /// Byte that fills what is freed to an arena, and whose complement fills what one serves (`M_PERTURB`).
    pub perturb: Option<u64>,
    /// 1: transparent huge pages are asked for by advice; 2: huge pages are mapped, of the default size; from 3 on their
    /// size in bytes.
    pub hugetlb: Option<u64>,
}

/// One of the numbers. Their values are those of [`crate::wire::HeapCall::Tunable`]'s argument, and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "each is the field of `Tunables` of that name")]
pub enum Tunable {
    TopPad = 0,
    TrimThreshold = 1,
    MmapThreshold = 2,
    MmapMax = 3,
    MaxFast = 4,
    ArenaMax = 5,
    ArenaTest = 6,
    TcacheCount = 7,
    TcacheMax = 8,
    TcacheUnsortedLimit = 9,
    Perturb = 10,
    HugeTlb = 11,
}

impl Tunable {
    /// All of them, by number.
    pub const ALL: [Tunable; 12] = [
        Tunable::TopPad,
        Tunable::TrimThreshold,
        Tunable::MmapThreshold,
        Tunable::MmapMax,
        Tunable::MaxFast,
        Tunable::ArenaMax,
        Tunable::ArenaTest,
        Tunable::TcacheCount,
        Tunable::TcacheMax,
        Tunable::TcacheUnsortedLimit,
        Tunable::Perturb,
        Tunable::HugeTlb,
    ];

    /// Its name in `GLIBC_TUNABLES`, behind `glibc.malloc.`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Tunable::TopPad => "top_pad",
            Tunable::TrimThreshold => "trim_threshold",
            Tunable::MmapThreshold => "mmap_threshold",
            Tunable::MmapMax => "mmap_max",
            Tunable::MaxFast => "mxfast",
            Tunable::ArenaMax => "arena_max",
            Tunable::ArenaTest => "arena_test",
            Tunable::TcacheCount => "tcache_count",
            Tunable::TcacheMax => "tcache_max",
            Tunable::TcacheUnsortedLimit => "tcache_unsorted_limit",
            Tunable::Perturb => "perturb",
            Tunable::HugeTlb => "hugetlb",
        }
    }

    /// Largest value that a release takes, if there is one; it ignores what is larger.
    #[must_use]
    pub fn most(self, policy: &Policy) -> Option<u64> {
        match self {
            Tunable::MaxFast => Some(MXFAST_LIMIT),
            Tunable::MmapThreshold => policy.mmap_threshold_is_limited.then_some(MMAP_THRESHOLD_MAX),
            Tunable::TcacheCount => Some(u64::from(u16::MAX)),
            Tunable::TcacheMax if policy.tcache_large_bins => Some(LARGE_LIMIT - ALIGNMENT - OVERHEAD),
            Tunable::TcacheMax => policy.tcache_chunk_max_bytes.checked_sub(OVERHEAD),
            Tunable::TopPad
            | Tunable::TrimThreshold
            | Tunable::MmapMax
            | Tunable::ArenaMax
            | Tunable::ArenaTest
            | Tunable::TcacheUnsortedLimit
            | Tunable::Perturb
            | Tunable::HugeTlb => None,
        }
    }

    /// The name of the environment variable that sets it, if there is one.
    #[must_use]
    pub const fn variable(self) -> Option<&'static str> {
        match self {
            Tunable::TopPad => Some("MALLOC_TOP_PAD_"),
            Tunable::TrimThreshold => Some("MALLOC_TRIM_THRESHOLD_"),
            Tunable::MmapThreshold => Some("MALLOC_MMAP_THRESHOLD_"),
            Tunable::MmapMax => Some("MALLOC_MMAP_MAX_"),
            Tunable::ArenaMax => Some("MALLOC_ARENA_MAX"),
            Tunable::ArenaTest => Some("MALLOC_ARENA_TEST"),
            Tunable::Perturb => Some("MALLOC_PERTURB_"),
            Tunable::MaxFast
            | Tunable::TcacheCount
            | Tunable::TcacheMax
            | Tunable::TcacheUnsortedLimit
            | Tunable::HugeTlb => None,
        }
    }
}

impl Tunables {
    /// Nothing tuned.
    pub const NONE: Tunables = Tunables {
        top_pad_bytes: None,
        trim_threshold_bytes: None,
        mmap_threshold_bytes: None,
        mmap_max: None,
        mxfast_bytes: None,
        arena_max: None,
        arena_test: None,
        tcache_count: None,
        tcache_max_bytes: None,
        tcache_unsorted_limit: None,
        perturb: None,
        hugetlb: None,
    };

    /// The value of one of the numbers.
    #[must_use]
    pub const fn get(&self, tunable: Tunable) -> Option<u64> {
        match tunable {
            Tunable::TopPad => self.top_pad_bytes,
            Tunable::TrimThreshold => self.trim_threshold_bytes,
            Tunable::MmapThreshold => self.mmap_threshold_bytes,
            Tunable::MmapMax => self.mmap_max,
            Tunable::MaxFast => self.mxfast_bytes,
            Tunable::ArenaMax => self.arena_max,
            Tunable::ArenaTest => self.arena_test,
            Tunable::TcacheCount => self.tcache_count,
            Tunable::TcacheMax => self.tcache_max_bytes,
            Tunable::TcacheUnsortedLimit => self.tcache_unsorted_limit,
            Tunable::Perturb => self.perturb,
            Tunable::HugeTlb => self.hugetlb,
        }
    }

    /// Sets one of the numbers.
    pub fn set(&mut self, tunable: Tunable, value: u64) {
        let field = match tunable {
            Tunable::TopPad => &mut self.top_pad_bytes,
            Tunable::TrimThreshold => &mut self.trim_threshold_bytes,
            Tunable::MmapThreshold => &mut self.mmap_threshold_bytes,
            Tunable::MmapMax => &mut self.mmap_max,
            Tunable::MaxFast => &mut self.mxfast_bytes,
            Tunable::ArenaMax => &mut self.arena_max,
            Tunable::ArenaTest => &mut self.arena_test,
            Tunable::TcacheCount => &mut self.tcache_count,
            Tunable::TcacheMax => &mut self.tcache_max_bytes,
            Tunable::TcacheUnsortedLimit => &mut self.tcache_unsorted_limit,
            Tunable::Perturb => &mut self.perturb,
            Tunable::HugeTlb => &mut self.hugetlb,
        };
        *field = Some(value);
    }

    /// Sets the tunable whose `name_of` is `name` to what `text` says, if there is one and it says a number.
    fn set_named(&mut self, name: &[u8], text: &[u8], name_of: impl Fn(Tunable) -> Option<&'static str>) {
        let named = |tunable: &&Tunable| name_of(**tunable).is_some_and(|known| known.as_bytes() == name);
        if let Some(&tunable) = Tunable::ALL.iter().find(named)
            && let Some(number) = parse_number(text)
        {
            self.set(tunable, number);
        }
    }

    /// Reads one `NAME=value` string of the environment's `MALLOC_` variables; `GLIBC_TUNABLES` is not among them.
    ///
    /// Call this for every string of the environment first and [`Tunables::apply_glibc_tunables`] afterwards: glibc
    /// lets the latter win wherever it stands.
    pub fn apply_variable(&mut self, variable: &[u8]) {
        let Some(equals) = variable.iter().position(|&byte| byte == b'=') else { return };
        self.set_named(&variable[..equals], &variable[equals + 1..], Tunable::variable);
    }

    /// Reads the value of `GLIBC_TUNABLES`: `glibc.malloc.name=value` pairs with colons between them.
    pub fn apply_glibc_tunables(&mut self, list: &[u8]) {
        for pair in list.split(|&byte| byte == b':') {
            let Some(rest) = pair.strip_prefix(b"glibc.malloc.".as_slice()) else { continue };
            let Some(equals) = rest.iter().position(|&byte| byte == b'=') else { continue };
            self.set_named(&rest[..equals], &rest[equals + 1..], |tunable| Some(tunable.name()));
        }
    }
}

/// Reads a number as the dynamic linker reads one: decimal, `0x` hexadecimal or `0` octal, a leading sign allowed, up
/// to the first byte that does not belong to it. `None` if there is no digit.
fn parse_number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (radix, digits) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', ..] => (8, text),
        rest => (10, rest),
    };
    let mut value: Option<u64> = None;
    for &byte in digits {
        let Some(digit) = char::from(byte).to_digit(radix) else { break };
        let so_far = value.unwrap_or(0);
        value = Some(so_far.saturating_mul(u64::from(radix)).saturating_add(u64::from(digit)));
    }
    value.map(|number| if negative { number.wrapping_neg() } else { number })
}

/// A parameter of `mallopt`, with the numbers of `malloc.h`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parameter {
    /// `M_MXFAST` (1).
    MaxFast,
    /// `M_TRIM_THRESHOLD` (-1).
    TrimThreshold,
    /// `M_TOP_PAD` (-2).
    TopPad,
    /// `M_MMAP_THRESHOLD` (-3).
    MmapThreshold,
    /// `M_MMAP_MAX` (-4).
    MmapMax,
    /// `M_CHECK_ACTION` (-5): accepted, without effect.
    CheckAction,
    /// `M_PERTURB` (-6).
    Perturb,
    /// `M_ARENA_TEST` (-7).
    ArenaTest,
    /// `M_ARENA_MAX` (-8).
    ArenaMax,
}

impl Parameter {
    /// The parameter that a C caller's number names.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Parameter> {
        match number {
            1 => Some(Parameter::MaxFast),
            -1 => Some(Parameter::TrimThreshold),
            -2 => Some(Parameter::TopPad),
            -3 => Some(Parameter::MmapThreshold),
            -4 => Some(Parameter::MmapMax),
            -5 => Some(Parameter::CheckAction),
            -6 => Some(Parameter::Perturb),
            -7 => Some(Parameter::ArenaTest),
            -8 => Some(Parameter::ArenaMax),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_the_three_radixes_of_c() {
        assert_eq!(parse_number(b"131072"), Some(131_072));
        assert_eq!(parse_number(b"0x20000"), Some(131_072));
        assert_eq!(parse_number(b"010"), Some(8));
        assert_eq!(parse_number(b"0"), Some(0));
        assert_eq!(parse_number(b"-1"), Some(u64::MAX));
        assert_eq!(parse_number(b"many"), None);
    }

    #[test]
    fn glibc_tunables_name_each_field_once() {
        let mut tunables = Tunables::NONE;
        tunables.apply_glibc_tunables(
            b"glibc.malloc.tcache_count=3:glibc.cpu.x=1:glibc.malloc.mmap_threshold=0x1000:glibc.malloc.nonsense=2",
        );
        let expected = Tunables { tcache_count: Some(3), mmap_threshold_bytes: Some(4096), ..Tunables::NONE };
        assert_eq!(tunables, expected);
    }

    #[test]
    fn variables_set_what_their_names_say() {
        let mut tunables = Tunables::NONE;
        for variable in [b"MALLOC_ARENA_MAX=2".as_slice(), b"MALLOC_TOP_PAD_=0", b"HOME=/", b"MALLOC_PERTURB_=7"] {
            tunables.apply_variable(variable);
        }
        let expected = Tunables { arena_max: Some(2), top_pad_bytes: Some(0), perturb: Some(7), ..Tunables::NONE };
        assert_eq!(tunables, expected);
    }
}
