//! Budgets: what a run may cost, and what it did cost.
//!
//! A budget is judged on one run, which is the recording of one command with its children. Counts are added up over its
//! processes; a peak and a share are those of the process that has the most, because processes peak apart and a sum of
//! peaks never existed.

use schemars::JsonSchema;
use serde::Serialize;

/// What a run may cost; `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Budgets {
    /// Most leaked bytes: definite, cycle and indirect.
    pub max_leaked_bytes: Option<u64>,
    /// Most leaked blocks.
    pub max_leaked_blocks: Option<u64>,
    /// Most leaked bytes of one call stack, what they hold included.
    pub max_leaked_bytes_per_stack: Option<u64>,
    /// Most requested bytes alive at exit.
    pub max_alive_bytes: Option<u64>,
    /// Most blocks alive at exit.
    pub max_alive_blocks: Option<u64>,
    /// Largest live requested bytes of a process.
    pub max_peak_bytes: Option<u64>,
    /// Most allocations, reallocs included.
    pub max_allocations: Option<u64>,
    /// Largest share of temporary allocations, hundredths of a per cent.
    pub max_temporary: Option<u64>,
    /// Most growth of a figure against the baseline, hundredths of a per cent.
    pub max_growth: Option<u64>,
}

impl Budgets {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Budgets::default()
    }
}

/// What a budget limits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Leaked bytes: definite, cycle and indirect; what is suppressed or not ours is not counted.
    LeakedBytes,
    /// Leaked blocks, likewise.
    LeakedBlocks,
    /// Leaked bytes of the call stack that leaks most.
    LeakedBytesPerStack,
    /// Requested bytes alive at exit; whether something still points to them is not asked.
    AliveAtExitBytes,
    /// Blocks alive at exit, likewise.
    AliveAtExitBlocks,
    /// Largest live requested bytes of a process.
    PeakLiveBytes,
    /// Allocations.
    Allocations,
    /// Temporary allocations, of all allocations.
    TemporaryShare,
    /// Growth of the largest live bytes against the baseline.
    PeakLiveBytesGrowth,
    /// Growth of the number of allocations against the baseline.
    AllocationsGrowth,
    /// Growth of the bytes alive at exit against the baseline.
    AliveAtExitBytesGrowth,
}

/// What the figures of a budget count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// Hundredths of a per cent.
    BasisPoints,
}

impl Subject {
    /// What its figures count.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Subject::LeakedBytes
            | Subject::LeakedBytesPerStack
            | Subject::AliveAtExitBytes
            | Subject::PeakLiveBytes => Unit::Bytes,
            Subject::LeakedBlocks | Subject::AliveAtExitBlocks | Subject::Allocations => Unit::Count,
            Subject::TemporaryShare
            | Subject::PeakLiveBytesGrowth
            | Subject::AllocationsGrowth
            | Subject::AliveAtExitBytesGrowth => Unit::BasisPoints,
        }
    }

    /// The id in machine-readable reports.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Subject::LeakedBytes => "xalloc/budget-leaked-bytes",
            Subject::LeakedBlocks => "xalloc/budget-leaked-blocks",
            Subject::LeakedBytesPerStack => "xalloc/budget-leaked-bytes-per-stack",
            Subject::AliveAtExitBytes => "xalloc/budget-alive-at-exit-bytes",
            Subject::AliveAtExitBlocks => "xalloc/budget-alive-at-exit-blocks",
            Subject::PeakLiveBytes => "xalloc/budget-peak-live-bytes",
            Subject::Allocations => "xalloc/budget-allocations",
            Subject::TemporaryShare => "xalloc/budget-temporary-share",
            Subject::PeakLiveBytesGrowth => "xalloc/budget-peak-live-bytes-growth",
            Subject::AllocationsGrowth => "xalloc/budget-allocations-growth",
            Subject::AliveAtExitBytesGrowth => "xalloc/budget-alive-at-exit-bytes-growth",
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Subject::LeakedBytes => "leaked bytes",
            Subject::LeakedBlocks => "leaked blocks",
            Subject::LeakedBytesPerStack => "leaked bytes of one stack",
            Subject::AliveAtExitBytes => "bytes alive at exit",
            Subject::AliveAtExitBlocks => "blocks alive at exit",
            Subject::PeakLiveBytes => "peak of live bytes",
            Subject::Allocations => "allocations",
            Subject::TemporaryShare => "temporary allocations",
            Subject::PeakLiveBytesGrowth => "growth of the peak",
            Subject::AllocationsGrowth => "growth of allocations",
            Subject::AliveAtExitBytesGrowth => "growth of bytes alive at exit",
        }
    }
}

/// Whether a rule or a budget is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is: the value is within the limit.
    Kept,
    /// It is not.
    Broken,
    /// What is known keeps it, and what is missing could break it.
    Unknown,
}

/// One budget, with what was measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BudgetLine {
    /// What is limited.
    pub subject: Subject,
    /// What the figures count.
    pub unit: Unit,
    /// What was measured.
    pub value: u64,
    /// Standard error of a value that was estimated; `null`: it is exact, or a share of estimates, whose error is not known.
    pub error: Option<u64>,
    /// The most that is allowed.
    pub limit: u64,
    /// What is left of the limit; negative: by how much it is exceeded.
    pub margin: i64,
    /// Whether it is kept.
    pub standing: Standing,
}

impl BudgetLine {
    /// For a value that is known.
    #[must_use]
    pub fn of(subject: Subject, value: u64, limit: u64) -> BudgetLine {
        BudgetLine::between(subject, value, value, limit)
    }

    /// For a value that is at least `value` and at most `at_most`.
    #[must_use]
    pub fn between(subject: Subject, value: u64, at_most: u64, limit: u64) -> BudgetLine {
        let distance = i64::try_from(limit.abs_diff(value)).unwrap_or(i64::MAX);
        let (margin, standing) = match (value > limit, at_most > limit) {
            (true, _) => (-distance, Standing::Broken),
            (false, true) => (distance, Standing::Unknown),
            (false, false) => (distance, Standing::Kept),
        };
        BudgetLine { subject, unit: subject.unit(), value, error: None, limit, margin, standing }
    }

    /// For a share of estimates: how far off it is is not known, so only what no share exceeds is sure to be kept.
    #[must_use]
    pub fn estimated_share(subject: Subject, value: u64, limit: u64) -> BudgetLine {
        let standing = BudgetLine::between(subject, 0, WHOLE, limit).standing;
        BudgetLine { standing, ..BudgetLine::of(subject, value, limit) }
    }

    /// For a value that was estimated, with its standard error and what of it may not have been seen at all. It is too
    /// much where the limit is further below than two standard errors; it is kept where the limit is further above than
    /// these and the unseen, of which no standard error knows.
    #[must_use]
    pub fn estimated(subject: Subject, value: u64, error: u64, unseen: u64, limit: u64) -> BudgetLine {
        let doubt = error.saturating_mul(2);
        let at_most = value.saturating_add(doubt).saturating_add(unseen);
        let standing = BudgetLine::between(subject, value.saturating_sub(doubt), at_most, limit).standing;
        BudgetLine { error: Some(error), standing, ..BudgetLine::of(subject, value, limit) }
    }
}

/// The whole, in hundredths of a per cent.
const WHOLE: u64 = 10_000;

/// The share of `part` in `whole`, hundredths of a per cent; of nothing it is 0.
#[must_use]
pub(super) fn share(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * u128::from(WHOLE) / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// By how much a figure grew, hundredths of a per cent, rounded up so that no growth is none; 0 if it shrank. From 0 it
/// grows as from 1.
#[must_use]
pub(super) fn growth(from: u64, to: u64) -> u64 {
    let more = u128::from(to.saturating_sub(from)) * 10_000;
    u64::try_from(more.div_ceil(u128::from(from.max(1)))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_up_to_its_last_byte() {
        let line = |value| BudgetLine::of(Subject::PeakLiveBytes, value, 100);
        assert_eq!((line(100).standing, line(100).margin), (Standing::Kept, 0));
        assert_eq!((line(101).standing, line(101).margin), (Standing::Broken, -1));
        assert_eq!(line(u64::MAX).margin, -i64::MAX);
    }

    #[test]
    fn a_bound_decides_where_it_can() {
        let line = |value, at_most| BudgetLine::between(Subject::LeakedBytes, value, at_most, 100).standing;
        assert_eq!(line(5, 100), Standing::Kept);
        assert_eq!(line(5, 101), Standing::Unknown);
        assert_eq!(line(101, 500), Standing::Broken);
    }

    #[test]
    fn an_estimate_decides_where_two_standard_errors_and_the_unseen_leave_no_doubt() {
        let line = |value| BudgetLine::estimated(Subject::Allocations, value, 10, 30, 100).standing;
        assert_eq!(
            [50, 51, 120, 121].map(line),
            [Standing::Kept, Standing::Unknown, Standing::Unknown, Standing::Broken]
        );
    }

    #[test]
    fn what_was_never_seen_is_not_known_to_be_nothing() {
        let line = |limit| BudgetLine::estimated(Subject::AliveAtExitBytes, 0, 0, 3_000, limit).standing;
        assert_eq!([0, 2_999, 3_000].map(line), [Standing::Unknown, Standing::Unknown, Standing::Kept]);
    }

    #[test]
    fn an_estimated_share_has_no_error_and_decides_nothing() {
        let line = |limit| BudgetLine::estimated_share(Subject::TemporaryShare, 9_000, limit);
        assert_eq!(
            [1, 9_999, 10_000].map(|limit| line(limit).standing),
            [Standing::Unknown, Standing::Unknown, Standing::Kept]
        );
        assert_eq!(line(1).error, None);
    }

    #[test]
    fn the_smallest_growth_is_more_than_none() {
        assert_eq!([growth(100, 100), growth(100, 150), growth(u64::MAX - 1, u64::MAX)], [0, 5_000, 1]);
        assert_eq!([growth(100, 50), growth(0, 3), growth(0, u64::MAX)], [0, 30_000, u64::MAX]);
        assert_eq!([share(0, 0), share(1, 4), share(4, 4)], [0, 2_500, 10_000]);
    }
}
