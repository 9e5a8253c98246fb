//! The words by which reports name the closed sets of the format.

use xalloc_core::heap::{Parameter, Tunable};
use xalloc_core::wire::{Advice, BinKind, FaultKind, GrowthRule, LossReason, Protection};

/// A closed set whose members have names: on the command line, in JSON and in text the same.
pub trait Named: Copy + 'static {
    /// Every member, in the order in which help lists them.
    const ALL: &'static [Self];

    /// Its name: lower case, words joined by `-`.
    fn name(self) -> &'static str;

    /// The member with this name.
    #[must_use]
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|member| member.name() == name)
    }
}

pub(super) const fn bin(bin: BinKind) -> &'static str {
    match bin {
        BinKind::Fast => "fast",
        BinKind::Unsorted => "unsorted",
        BinKind::Small => "small",
        BinKind::Large => "large",
        BinKind::Cache => "cache",
    }
}

pub(super) const fn rule(rule: GrowthRule) -> &'static str {
    match rule {
        GrowthRule::Shrink => "shrink",
        GrowthRule::First => "first",
        GrowthRule::NoFit => "no-fit",
        GrowthRule::BreakBlocked => "break-blocked",
        GrowthRule::HeapFull => "heap-full",
    }
}

pub(super) const fn advice(advice: Advice) -> &'static str {
    match advice {
        Advice::Other => "other",
        Advice::DontNeed => "dontneed",
        Advice::Free => "free",
        Advice::HugePage => "hugepage",
        Advice::NoHugePage => "nohugepage",
        Advice::Lock => "lock",
        Advice::Unlock => "unlock",
        Advice::WillNeed => "willneed",
    }
}

pub(super) const fn loss(reason: LossReason) -> &'static str {
    match reason {
        LossReason::RingFull => "ring-full",
        LossReason::NoRing => "no-ring",
        LossReason::RecorderGone => "recorder-gone",
        LossReason::Nested => "nested",
        LossReason::Text => "text",
        LossReason::Cut => "cut",
    }
}

/// What was wrong with a pointer.
pub(super) const fn fault(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotABlock => "not-a-block",
        FaultKind::InsideBlock => "inside-block",
        FaultKind::OnStack => "on-stack",
        FaultKind::DoubleFree => "double-free",
        FaultKind::Overwritten => "overwritten",
        FaultKind::CorruptedLists => "corrupted-lists",
    }
}

/// Access rights as `ls` and `/proc/PID/maps` write them.
pub(super) fn protection(protection: Protection) -> String {
    let letter = |granted, letter| if granted { letter } else { '-' };
    [letter(protection.read, 'r'), letter(protection.write, 'w'), letter(protection.execute, 'x')].iter().collect()
}

/// A parameter of `mallopt` by its name in `malloc.h`; one that is none by its number.
pub(super) fn parameter(number: i32) -> String {
    let name = match Parameter::from_number(number) {
        Some(Parameter::MaxFast) => "M_MXFAST",
        Some(Parameter::TrimThreshold) => "M_TRIM_THRESHOLD",
        Some(Parameter::TopPad) => "M_TOP_PAD",
        Some(Parameter::MmapThreshold) => "M_MMAP_THRESHOLD",
        Some(Parameter::MmapMax) => "M_MMAP_MAX",
        Some(Parameter::CheckAction) => "M_CHECK_ACTION",
        Some(Parameter::Perturb) => "M_PERTURB",
        Some(Parameter::ArenaTest) => "M_ARENA_TEST",
        Some(Parameter::ArenaMax) => "M_ARENA_MAX",
        None => return number.to_string(),
    };
    name.to_owned()
}

/// A tunable of malloc by its name in `GLIBC_TUNABLES`; one that this version does not know by its number.
pub(super) fn tunable(number: i32) -> String {
    let known = usize::try_from(number).ok().and_then(|number| Tunable::ALL.get(number));
    known.map_or_else(|| number.to_string(), |tunable| tunable.name().to_owned())
}

/// An address as JSON and text show it.
pub(super) fn address(addr: u64) -> String {
    format!("{addr:#x}")
}
