//! Sentences that several formats of a verdict share.

use super::escape::printable;
use super::number::{count, counted, exact_bytes};
use crate::check::{BudgetLine, Leak, Standing, Unit};

/// A figure of a budget with its unit.
pub(super) fn figure(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Bytes => exact_bytes(value),
        Unit::Count => count(value),
        Unit::BasisPoints => format!("{}.{:02} %", count(value / 100), value % 100),
    }
}

/// Value, limit and margin of a budget.
pub(super) fn budget_sentence(line: &BudgetLine) -> String {
    let BudgetLine { subject, unit, value, limit, margin, standing } = line;
    let [value, limit, margin] = [*value, *limit, margin.unsigned_abs()].map(|number| figure(*unit, number));
    let title = subject.title();
    match standing {
        Standing::Kept => format!("{title}: {value} of at most {limit}, {margin} left"),
        Standing::Broken => format!("{title}: {value} of at most {limit}, {margin} too much"),
        Standing::Unknown => {
            format!("{title}: at least {value} of at most {limit}, but not every process was checked for leaks")
        }
    }
}

/// The leak without its stack: `definite leak: 4,000 bytes in 4 blocks from cache_insert`.
pub(super) fn sentence(leak: &Leak) -> String {
    let sum = |bytes, blocks| format!("{} in {}", counted(bytes, "byte"), counted(blocks, "block"));
    let mut text = format!("{}: {} from {}", leak.rule().title(), sum(leak.bytes, leak.blocks), leak.function());
    if leak.holds.blocks > 0 {
        text += &format!(", which hold {} more", sum(leak.holds.bytes, leak.holds.blocks));
    }
    if let Some(was) = &leak.baseline {
        text += &format!(" ({} in the baseline)", sum(was.bytes, was.blocks));
    }
    if let Some(rate) = leak.growth_bytes_per_s {
        text += &format!(", growing by {} a second", counted(rate, "byte"));
    }
    text
}

/// The leak's stack, one frame a line, innermost first.
pub(super) fn stack_lines(leak: &Leak) -> String {
    let mut lines = vec![sentence(leak)];
    lines.extend(leak.hint.clone());
    for (nth, place) in leak.frames.iter().enumerate() {
        let mark = if leak.blamed == Some(nth as u32) { ">" } else { " " };
        let source = place.source().or_else(|| place.module.clone()).unwrap_or_default();
        lines.push(format!("{mark} {}  {}", printable(&place.name()), printable(&source)).trim_end().to_owned());
    }
    lines.push(format!("programs: {}", leak.programs.join(", ")));
    lines.join("\n")
}
