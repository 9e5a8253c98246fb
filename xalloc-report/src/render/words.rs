//! Sentences that several formats of a verdict share.

use super::escape::printable;
use super::number::{bytes, count, counted, exact_bytes};
use super::text::sampled;
use crate::check::{BudgetLine, Fault, FaultNeighbour, Leak, Place, RunVerdict, Standing, Subject, Unit};

/// A figure of a budget with its unit.
pub(super) fn figure(unit: Unit, value: u64) -> String {
    match unit {
        Unit::Bytes => exact_bytes(value),
        Unit::Count => count(value),
        Unit::BasisPoints => format!("{}.{:02} %", count(value / 100), value % 100),
    }
}

/// What was measured for a budget, with its standard error if it was estimated.
pub(super) fn measured(line: &BudgetLine) -> String {
    let error = line.error.map_or_else(String::new, |error| format!(" ± {}", figure(line.unit, error)));
    format!("{}{error}", figure(line.unit, line.value))
}

/// What a reader of a run's verdict has to know: first that its figures are estimates, if they are.
pub(super) fn notes(run: &RunVerdict) -> Vec<String> {
    let estimated = run.sampling.map(|sampling| {
        let (figures, unseen) = (sampled(sampling.mean_interval_bytes), bytes(sampling.unseen_bytes()));
        if run.budgets.is_empty() {
            return figures;
        }
        format!(
            "{figures}; a budget is exceeded where two standard errors leave no doubt, and kept where none is left by these \
             and {unseen}, of which nothing may have been seen"
        )
    });
    estimated.into_iter().chain(run.notes.iter().cloned()).collect()
}

/// Value, limit and margin of a budget.
pub(super) fn budget_sentence(line: &BudgetLine) -> String {
    let BudgetLine { subject, unit, value, error, limit, margin, standing } = line;
    let [value, limit, margin] = [*value, *limit, margin.unsigned_abs()].map(|number| figure(*unit, number));
    let title = subject.title();
    if error.is_some() {
        let said = match standing {
            Standing::Kept => "kept",
            Standing::Broken => "broken",
            Standing::Unknown => "which the estimate does not decide",
        };
        return format!("{title}: {} of at most {limit}, {said}", measured(line));
    }
    match standing {
        Standing::Unknown if *subject == Subject::TemporaryShare => {
            format!("{title}: {value} of at most {limit}, which the estimate does not decide")
        }
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
        let source = place.source_or_module();
        lines.push(format!("{mark} {}  {}", printable(&place.name()), printable(&source)).trim_end().to_owned());
    }
    lines.push(format!("programs: {}", leak.programs.join(", ")));
    lines.join("\n")
}

/// The fault in a sentence: `free or realloc of a block that was freed before, at parse (a.c:9); the block has 100 bytes
/// from load (a.c:3), freed by drop (a.c:7)`.
pub(super) fn fault_sentence(fault: &Fault) -> String {
    let innermost = |frames: &[Place]| {
        let place = frames.first()?;
        let source = place.source().map(|source| format!(" ({source})")).unwrap_or_default();
        Some(format!("{}{source}", place.name()))
    };
    let mut text = fault.kind.title().to_owned();
    if let Some(at) = innermost(&fault.frames) {
        text += &format!(", at {at}");
    }
    if fault.times > 1 {
        text += &format!(", {} times", count(fault.times));
    }
    if let Some(block) = &fault.block {
        text += &format!("; the block has {}", counted(block.size, "byte"));
        if let Some(from) = innermost(&block.allocated) {
            text += &format!(" from {from}");
        }
        if let Some(by) = block.freed.as_deref().and_then(innermost) {
            text += &format!(", freed by {by}");
        }
    }
    text
}

/// The fault with everybody's call stacks, one function a line, innermost first.
pub(super) fn fault_lines(fault: &Fault) -> String {
    let mut lines = vec![fault_sentence(fault)];
    for (title, frames) in fault_stacks(fault) {
        lines.push(format!("{title}:"));
        lines.extend(frames.iter().map(|place| {
            let source = place.source_or_module();
            format!("  {}  {}", printable(&place.name()), printable(&source)).trim_end().to_owned()
        }));
    }
    lines.join("\n")
}

/// The call stacks that belong to a fault, each with what it is of.
pub(super) fn fault_stacks(fault: &Fault) -> Vec<(String, &[Place])> {
    let mut stacks = vec![("the call".to_owned(), fault.frames.as_slice())];
    if let Some(block) = &fault.block {
        stacks.push((format!("the block of {}, allocated", counted(block.size, "byte")), &block.allocated));
        stacks.extend(block.freed.as_deref().map(|frames| ("freed".to_owned(), frames)));
    }
    for (side, neighbour) in [("below", &fault.below), ("above", &fault.above)] {
        if let Some(FaultNeighbour { size, distance, allocated }) = neighbour {
            let (size, distance) = (counted(*size, "byte"), counted(*distance, "byte"));
            stacks.push((format!("live block {side}, {distance} away: {size}, allocated"), allocated));
        }
    }
    stacks
}
