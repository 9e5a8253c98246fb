//! A fault as a verdict shows it: without what another run of the same build would change.
//!
//! A fault breaks the check whatever rules were asked for. A budget is a choice, and so is which leaks to bear; a second
//! free or a block that was written beyond is a defect in every program.

use schemars::JsonSchema;
use serde::Serialize;

use super::fingerprint;
use super::leak::Place;
use super::own::OwnCode;
use crate::analysis::{BlockView, FaultKind, FaultView, FrameView, NeighbourView};

/// Faults of one kind at one place, over all processes of a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Fault {
    /// What was wrong.
    pub kind: FaultKind,
    /// Names the same fault in other builds: 16 hexadecimal digits, a hash of kind and functions.
    pub fingerprint: String,
    /// File name of the program.
    pub program: String,
    /// How often, among those that are told.
    pub times: u64,
    /// The call that gave the pointer or came upon the damage, innermost function first; empty if its stack is not known.
    pub frames: Vec<Place>,
    /// The block that the pointer is in, or last was in; `null` if there is none.
    pub block: Option<FaultBlock>,
    /// The next live block below; `null` if there is none near.
    pub below: Option<FaultNeighbour>,
    /// The next live block above; `null` if there is none near.
    pub above: Option<FaultNeighbour>,
}

/// The block that a fault is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FaultBlock {
    /// Requested size, bytes.
    pub size: u64,
    /// Bytes from its beginning to the pointer.
    pub offset: u64,
    /// Where it was allocated.
    pub allocated: Vec<Place>,
    /// Where it had been freed; `null` if it lived, empty if the call stack is not known.
    pub freed: Option<Vec<Place>>,
}

/// A live block beside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FaultNeighbour {
    /// Requested size, bytes.
    pub size: u64,
    /// Bytes between what it asked for and the block, or the pointer, that the fault is about.
    pub distance: u64,
    /// Where it was allocated.
    pub allocated: Vec<Place>,
}

impl Fault {
    /// What a verdict says of `fault`.
    pub(super) fn of(fault: &FaultView, program: &str, own: &OwnCode) -> Fault {
        let places = |frames: &[FrameView]| Place::all(frames, own);
        let neighbour = |beside: &NeighbourView| {
            let NeighbourView { block: BlockView { size, allocated, .. }, distance } = beside;
            FaultNeighbour { size: *size, distance: *distance, allocated: places(&allocated.frames) }
        };
        Fault {
            fingerprint: fingerprint::of_fault(fault),
            kind: fault.kind,
            program: program.to_owned(),
            times: 1,
            frames: places(&fault.by.frames),
            block: fault.block.as_ref().map(|found| FaultBlock {
                size: found.block.size,
                offset: found.offset,
                allocated: places(&found.block.allocated.frames),
                freed: found.freed.as_ref().map(|freed| places(&freed.by.frames)),
            }),
            below: fault.below.as_ref().map(neighbour),
            above: fault.above.as_ref().map(neighbour),
        }
    }

    /// Adds it to those that are alike; sizes and neighbours are those of the first.
    pub(super) fn join(self, faults: &mut Vec<Fault>) {
        let is_alike = |other: &&mut Fault| other.fingerprint == self.fingerprint && other.program == self.program;
        match faults.iter_mut().find(is_alike) {
            Some(alike) => alike.times += self.times,
            None => faults.push(self),
        }
    }

    /// The frame that is shown for it: the innermost with a source, else the innermost. A call that is not known is told
    /// by who allocated the block.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        let allocated = || self.block.as_ref().map(|block| block.allocated.as_slice()).unwrap_or_default();
        let frames = if self.frames.is_empty() { allocated() } else { &self.frames };
        frames.iter().find(|place| place.file.is_some()).or_else(|| frames.first())
    }
}
