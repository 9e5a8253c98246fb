//! Where a leak is, for reports that want a file: the blamed frame, or the nearest of its callers with a source.

use crate::check::{Fault, Leak, Place};

/// A place in a source file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    /// As in [`Place::file`]; the module's path where no frame has a source.
    pub(super) path: &'a str,
    /// From 1; 1 where it is not known.
    pub(super) line: u32,
    /// Whether the path is relative to the source root.
    pub(super) in_tree: bool,
}

impl<'a> Spot<'a> {
    /// Where the leak is; `None` if not even a module is known.
    pub(super) fn of(leak: &'a Leak) -> Option<Spot<'a>> {
        let from_blamed = || leak.frames.iter().skip(leak.blamed.unwrap_or_default() as usize);
        let source = from_blamed().find_map(Spot::at);
        source.or_else(|| {
            let path = from_blamed().find_map(|place| place.module.as_deref())?;
            Some(Spot { path, line: 1, in_tree: false })
        })
    }

    /// Where the fault is; `None` without a source.
    pub(super) fn of_fault(fault: &'a Fault) -> Option<Spot<'a>> {
        fault.place().and_then(Spot::at)
    }

    /// The source of one frame.
    pub(super) fn at(place: &'a Place) -> Option<Spot<'a>> {
        let path = place.file.as_deref()?;
        Some(Spot { path, line: place.line.unwrap_or(1).max(1), in_tree: place.in_tree })
    }
}
