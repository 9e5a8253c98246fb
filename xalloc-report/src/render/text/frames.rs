//! Call stacks below the line that they belong to.

use crate::analysis::{CallStack, FrameView, StackState};
use crate::render::escape::printable;
use crate::render::number::counted;
use crate::render::style::{ASIDE, DOUBT, FUNCTION, PLAIN};
use crate::render::table::{Table, left};

/// Where a frame is: file and line, else the module and why there is no more.
pub(super) fn place(frame: &FrameView) -> String {
    if frame.jumped {
        return "left by a jump".to_owned();
    }
    match (frame.place(), &frame.function, frame.module_name()) {
        (Some(place), _, _) => printable(&place).into_owned(),
        (None, Some(_), Some(module)) => format!("in {}", printable(module)),
        (None, None, Some(module)) => format!("unknown: {} has no symbol here", printable(module)),
        (None, _, None) => "unknown: code without a file".to_owned(),
    }
}

/// Appends at most `limit` functions of the stack, innermost first, and the id by which other commands know it.
pub(super) fn append(out: &mut String, stack: &CallStack, limit: usize, indent: usize) {
    append_functions(out, &stack.frames, stack.stack, limit, indent);
    if !matches!(stack.stack, StackState::Lost | StackState::None) {
        let mut id = Table::default();
        id.row([left(format!("site {}", stack.id), ASIDE)]);
        id.write(out, indent);
    }
}

/// Appends at most `limit` of these functions of a stack, innermost first, and what is missing from it.
pub(super) fn append_functions(out: &mut String, frames: &[FrameView], state: StackState, limit: usize, indent: usize) {
    let mut table = Table::default();
    for frame in frames.iter().take(limit) {
        let place = if frame.inlined { format!("{} (inlined)", place(frame)) } else { place(frame) };
        table.row([left(printable(&frame.name()), FUNCTION), left(place, ASIDE)]);
    }
    let hidden = frames.len().saturating_sub(limit);
    if hidden > 0 {
        table.row([left(format!("… {}", counted(hidden as u64, "more caller")), ASIDE)]);
    }
    let missing = match state {
        StackState::Whole if frames.is_empty() => Some("inside the allocator"),
        StackState::Whole => None,
        StackState::Cut => Some("… deeper than the recording goes"),
        StackState::Lost => Some("unknown: the process's stack table was full"),
        StackState::None => Some("unknown: no call stack was captured"),
    };
    table.write(out, indent);
    if let Some(missing) = missing {
        let mut note = Table::default();
        note.row([left("", PLAIN), left(missing, DOUBT)]);
        note.write(out, indent.saturating_sub(2));
    }
}
