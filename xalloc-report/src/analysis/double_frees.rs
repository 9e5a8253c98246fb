//! Blocks that were freed twice, with their times and the place that allocated them.

use schemars::JsonSchema;
use serde::Serialize;

use super::frames::{FrameView, innermost};
use super::names::address;
use super::process::pid;
use crate::model::Model;
use crate::trace::Contents;

/// Double frees that are told with their places.
const TOLD: usize = 8;

/// A block that was freed twice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct DoubleFreeView {
    /// Process id.
    pub pid: u32,
    /// Its address.
    pub addr: String,
    /// Requested size.
    pub size: u64,
    /// The function that allocated it; `null` if no stack is known. Frees carry no call stack.
    pub allocated_by: Option<FrameView>,
    /// When it was freed, nanoseconds since the recording's start.
    pub freed_at_ns: u64,
    /// When it was freed again.
    pub again_at_ns: u64,
}

/// Double frees of all processes.
pub(super) fn count(model: &Model) -> u64 {
    model.processes.iter().map(|row| row.double_frees.len() as u64).sum()
}

/// The first double frees, process by process.
pub(super) fn first(contents: &Contents, model: &Model) -> Vec<DoubleFreeView> {
    let all = model.processes.iter().flat_map(|row| row.double_frees.iter().map(|found| (row.process, found)));
    let told = all.take(TOLD).map(|(process, found)| DoubleFreeView {
        pid: pid(contents, process),
        addr: address(found.addr),
        size: found.size_bytes,
        allocated_by: innermost(contents, found.stack),
        freed_at_ns: found.freed_at_ns,
        again_at_ns: found.again_at_ns,
    });
    told.collect()
}
