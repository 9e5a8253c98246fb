//! What the program did wrong with its heap: whose block it was, who had freed it, and what lies beside it.

use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::wire::{Call, FaultKind as Kind};

use super::frames::{CallStack, FrameView, StackState};
use super::names::address;
use super::process::{ThreadName, ThreadNames};
use crate::model::{Fault, Freed, Involved, Model};
use crate::trace::{Block, Contents, StackIndex};

/// Faults that are told with all that is known of them; counted are more.
const TOLD: usize = 16;

/// What was wrong with a pointer, or with the heap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// It is no block of the heap, nor in one.
    NotABlock,
    /// It is inside of a live block.
    InsideBlock,
    /// It is on a stack.
    OnStack,
    /// Its block was freed before.
    DoubleFree,
    /// A size word beside a block was overwritten.
    Overwritten,
    /// A link between free chunks was overwritten: something wrote to a block after it was freed.
    CorruptedLists,
}

impl From<Kind> for FaultKind {
    fn from(kind: Kind) -> FaultKind {
        match kind {
            Kind::NotABlock => FaultKind::NotABlock,
            Kind::InsideBlock => FaultKind::InsideBlock,
            Kind::OnStack => FaultKind::OnStack,
            Kind::DoubleFree => FaultKind::DoubleFree,
            Kind::Overwritten => FaultKind::Overwritten,
            Kind::CorruptedLists => FaultKind::CorruptedLists,
        }
    }
}

impl FaultKind {
    /// In a few words, of the pointer.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            FaultKind::NotABlock => "free or realloc of what is no block of the heap",
            FaultKind::InsideBlock => "free or realloc of the inside of a block",
            FaultKind::OnStack => "free or realloc of memory on a stack",
            FaultKind::DoubleFree => "free or realloc of a block that was freed before",
            FaultKind::Overwritten => "the heap's size beside a block was overwritten",
            FaultKind::CorruptedLists => "memory was written to after it was freed",
        }
    }
}

/// The functions of a call, innermost first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FaultStack {
    /// How much of the stack is known.
    pub stack: StackState,
    /// Functions, innermost first, without the allocator's own.
    pub frames: Vec<FrameView>,
}

impl FaultStack {
    fn of(contents: &Contents, stack: StackIndex) -> FaultStack {
        // Which call it was has no influence on the frames.
        let CallStack { stack, frames, .. } = CallStack::of(contents, stack, Call::Free);
        FaultStack { stack, frames }
    }
}

/// A block with its allocation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct BlockView {
    /// Its address.
    pub addr: String,
    /// Requested size, bytes.
    pub size: u64,
    /// When it was allocated, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// By which thread.
    pub thread: ThreadName,
    /// By which calls.
    pub allocated: CallStack,
}

impl BlockView {
    fn of(contents: &Contents, thread_names: &ThreadNames<'_>, block: &Block) -> BlockView {
        BlockView {
            addr: address(block.addr),
            size: block.size_bytes,
            at_ns: block.at_ns,
            thread: thread_names.at(block.thread),
            allocated: CallStack::of(contents, block.stack, block.call),
        }
    }
}

/// How a block had ceased to live.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FreedView {
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// By which thread.
    pub thread: ThreadName,
    /// By which calls. Known if the free led to a step of the heap, if it was a `realloc`, or if the recording was made
    /// with `--free-stacks`.
    pub by: FaultStack,
}

/// The block that a fault is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct InvolvedView {
    /// The block.
    #[serde(flatten)]
    pub block: BlockView,
    /// Bytes from its beginning to the pointer.
    pub offset: u64,
    /// How it had ceased to live; `null` if it lived.
    pub freed: Option<FreedView>,
}

/// A live block beside.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct NeighbourView {
    /// The block.
    #[serde(flatten)]
    pub block: BlockView,
    /// Bytes between what it asked for and the block, or the pointer, that the fault is about.
    pub distance: u64,
}

/// A call that gave the heap a pointer which is no block, or that came upon damage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct FaultView {
    /// What was wrong.
    pub kind: FaultKind,
    /// The pointer, or the block at which the damage was noticed.
    pub addr: String,
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// In which thread.
    pub thread: ThreadName,
    /// By which calls.
    pub by: FaultStack,
    /// Whether the heap noticed it while the program ran; what only the recording shows has no call stack of its own.
    pub reported: bool,
    /// The block that the pointer is in, or last was in; `null` if there is none.
    pub block: Option<InvolvedView>,
    /// The next live block below; `null` if there is none near.
    pub below: Option<NeighbourView>,
    /// The next live block above; `null` if there is none near.
    pub above: Option<NeighbourView>,
}

impl FaultView {
    fn of(contents: &Contents, thread_names: &ThreadNames<'_>, fault: &Fault) -> FaultView {
        let (from, to) = fault.block.map_or((fault.addr, fault.addr), |Involved { block, .. }| {
            (block.addr, block.addr.saturating_add(block.size_bytes))
        });
        let of_block = |block: &Block| BlockView::of(contents, thread_names, block);
        let neighbour = |block: &Block, distance| NeighbourView { block: of_block(block), distance };
        FaultView {
            kind: fault.kind.into(),
            addr: address(fault.addr),
            at_ns: fault.at_ns,
            thread: thread_names.at(fault.thread),
            by: FaultStack::of(contents, fault.stack),
            reported: fault.is_reported,
            block: fault.block.map(|Involved { block, freed }| InvolvedView {
                block: of_block(&block),
                offset: fault.addr.saturating_sub(block.addr),
                freed: freed.map(|Freed { at_ns, thread, stack }| FreedView {
                    at_ns,
                    thread: thread_names.at(thread),
                    by: FaultStack::of(contents, stack),
                }),
            }),
            below: fault
                .below
                .map(|block| neighbour(&block, from.saturating_sub(block.addr.saturating_add(block.size_bytes)))),
            above: fault.above.map(|block| neighbour(&block, block.addr.saturating_sub(to))),
        }
    }
}

/// A block that was freed twice, in short.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct DoubleFreeView {
    /// Process id.
    pub pid: u32,
    /// Its address.
    pub addr: String,
    /// Requested size.
    pub size: u64,
    /// The function that allocated it; `null` if no stack is known.
    pub allocated_by: Option<FrameView>,
    /// When it was freed, nanoseconds since the recording's start.
    pub freed_at_ns: u64,
    /// When it was freed again.
    pub again_at_ns: u64,
    /// The function that freed it again; `null` if its call stack is not known.
    pub freed_again_by: Option<FrameView>,
}

impl DoubleFreeView {
    /// Those of `faults` that are second frees of known blocks.
    pub(super) fn among(faults: &[FaultView]) -> Vec<DoubleFreeView> {
        let twice = faults.iter().filter(|fault| fault.kind == FaultKind::DoubleFree);
        let told = twice.filter_map(|fault| {
            let InvolvedView { block, freed, .. } = fault.block.as_ref()?;
            Some(DoubleFreeView {
                pid: fault.thread.pid,
                addr: block.addr.clone(),
                size: block.size,
                allocated_by: block.allocated.frames.first().cloned(),
                freed_at_ns: freed.as_ref()?.at_ns,
                again_at_ns: fault.at_ns,
                freed_again_by: fault.by.frames.first().cloned(),
            })
        });
        told.collect()
    }
}

fn all(model: &Model) -> impl Iterator<Item = &Fault> {
    model.processes.iter().flat_map(|row| &row.faults)
}

/// Faults of all processes.
pub(super) fn count(model: &Model) -> u64 {
    all(model).count() as u64
}

/// Those of them that are second frees.
pub(super) fn double_frees(model: &Model) -> u64 {
    all(model).filter(|fault| fault.kind == Kind::DoubleFree).count() as u64
}

/// Those that the heap did not refuse, and that therefore look like frees of foreign memory as well.
pub(super) fn not_refused(model: &Model) -> u64 {
    all(model).filter(|fault| !fault.is_reported).count() as u64
}

/// The first faults, process by process.
#[must_use]
pub fn faults(contents: &Contents, model: &Model) -> Vec<FaultView> {
    first(contents, all(model))
}

/// Those that the heap itself noticed: all that counts where events are missing, and with them perhaps the allocation of
/// what looks like freed twice.
#[must_use]
pub fn reported_faults(contents: &Contents, model: &Model) -> Vec<FaultView> {
    first(contents, all(model).filter(|fault| fault.is_reported))
}

fn first<'m>(contents: &Contents, faults: impl Iterator<Item = &'m Fault>) -> Vec<FaultView> {
    let thread_names = ThreadNames::of(contents);
    faults.take(TOLD).map(|fault| FaultView::of(contents, &thread_names, fault)).collect()
}
