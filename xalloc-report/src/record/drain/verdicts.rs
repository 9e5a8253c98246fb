//! From the marks of single blocks to findings: by call stack and class, with an example of who holds them.

use rustc_hash::FxHashMap;
use xalloc_core::reach::{Mark, Verdict, disguise};
use xalloc_core::session::blocks::{FIRST_ADDRESS, REGION_PATH, Region, region};

use super::control::Control;
use crate::trace::{
    Block, Contents, Disguise, Finding, FrameIndex, Hint, Holder, LeakClass, ProcessIndex, StackIndex, ThreadIndex,
};

/// Links of a chain of holders that are kept.
const LONGEST_CHAIN: usize = 16;

/// Who asked for a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Caller {
    /// Code of the program's, or of a library of its choice.
    Program,
    /// The C library or the runtime of a language.
    Runtime,
    /// The loader, which keeps pointers where no scan finds them.
    Loader,
}

/// Beginnings of the names of the files that a language's runtime is in.
const RUNTIMES: [&str; 8] =
    ["libc.so.", "libc-2.", "libpthread", "libdl.so", "librt.so", "libstdc++.so", "libc++abi.so", "libgcc_s.so"];
/// Whose functions pass allocations on: `operator new`.
const OPERATORS: [&str; 3] = ["libstdc++.so", "libc++abi.so", "libc++.so"];

/// Who called the allocator at the innermost end of `stack`, told by the module of the code.
pub(super) fn caller(contents: &Contents, stack: StackIndex) -> Caller {
    let file = |frame: FrameIndex| {
        let module = contents.frames.get(frame.0 as usize)?.module?;
        contents.modules.get(module.0 as usize)?.path.file_name()?.to_str()
    };
    let mut at = stack;
    let mut innermost = true;
    while let Some(node) = contents.stacks.get(at.0 as usize).filter(|node| node.parent < at) {
        let Some(name) = node.frame.and_then(file) else { return Caller::Program };
        if name.starts_with("ld-linux") || name.starts_with("ld-2.") || name.starts_with("ld.so") {
            return Caller::Loader;
        }
        let passes_on = innermost && OPERATORS.iter().any(|operator| name.starts_with(operator));
        if !passes_on {
            let is_runtime = RUNTIMES.iter().any(|runtime| name.starts_with(runtime));
            return if is_runtime { Caller::Runtime } else { Caller::Program };
        }
        innermost = false;
        at = node.parent;
    }
    Caller::Program
}

/// What a process found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Ascending by address.
    blocks: &'a [Block],
    /// For each block.
    marks: Vec<Mark>,
    regions: Vec<Root>,
}

/// A piece of memory with roots.
#[derive(Debug)]
struct Root {
    start: u64,
    end: u64,
    base: u64,
    kind: u32,
    path: String,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

impl<'a> Found<'a> {
    /// Reads what the process wrote, of which nothing is believed.
    pub(super) fn parse(blocks: &'a [Block], marks: &[u8], regions: &[u8]) -> Found<'a> {
        let marks = marks.chunks_exact(size_of::<Mark>()).map(Mark::from_bytes).collect();
        let regions = regions.chunks_exact(size_of::<Region>()).map(|bytes| {
            let path_bytes = (u32_at(bytes, 28) as usize).min(REGION_PATH);
            Root {
                start: u64_at(bytes, 0),
                end: u64_at(bytes, 8),
                base: u64_at(bytes, 16),
                kind: u32_at(bytes, 24),
                path: String::from_utf8_lossy(&bytes[32..32 + path_bytes]).into_owned(),
            }
        });
        Found { blocks, marks, regions: regions.collect() }
    }

    /// What the process says of the block with that number.
    pub(super) fn verdict(&self, block: usize) -> Verdict {
        let mark = self.marks.get(block);
        mark.and_then(|mark| Verdict::from_number(mark.verdict)).unwrap_or(Verdict::Reachable)
    }

    /// The block that an indirectly lost one hangs on.
    fn leader(&self, block: usize) -> Option<usize> {
        let mark = self.marks.get(block).filter(|_| self.verdict(block) == Verdict::Indirect)?;
        Some(mark.other as usize).filter(|&leader| leader < self.blocks.len())
    }

    /// The chain of holders of a block that is reachable.
    fn holders(&self, block: usize) -> Vec<Holder> {
        let mut holders = Vec::new();
        let mut at = block;
        while matches!(self.verdict(at), Verdict::Reachable | Verdict::Possible) && holders.len() < LONGEST_CHAIN {
            let Some(&Mark { at: place, .. }) = self.marks.get(at) else { break };
            if place == 0 {
                break;
            }
            let before = self.blocks.partition_point(|block| block.addr <= place);
            let inside = before.checked_sub(1).filter(|&found| {
                let block = &self.blocks[found];
                place - block.addr < block.size_bytes && found != at
            });
            let Some(holder) = inside else {
                holders.push(Holder::Root { name: self.root(place) });
                break;
            };
            let of = &self.blocks[holder];
            holders.push(Holder::Block {
                stack: of.stack,
                call: of.call,
                size_bytes: of.size_bytes,
                offset_bytes: place - of.addr,
            });
            at = holder;
        }
        holders
    }

    /// What the memory at `place` is.
    fn root(&self, place: u64) -> String {
        if place < FIRST_ADDRESS {
            return match place {
                0 | 1 => "a register of the thread that ended the process".to_owned(),
                other => format!("a register of another thread ({other})"),
            };
        }
        let Some(root) = self.regions.iter().find(|root| (root.start..root.end).contains(&place)) else {
            return "memory without a name".to_owned();
        };
        let file = root.path.rsplit('/').next().unwrap_or_default();
        match root.kind {
            region::FILE | region::ZEROED => format!("{file}+{:#x}", place.wrapping_sub(root.base)),
            region::STACK => "the stack of the first thread".to_owned(),
            _ => "memory without a file".to_owned(),
        }
    }

    fn hint(&self, block: usize) -> Option<Hint> {
        let mark = self.marks.get(block)?;
        let disguise = match mark.disguise {
            disguise::UNALIGNED => Disguise::Unaligned,
            disguise::ONE_PAST_END => Disguise::OnePastEnd,
            disguise::TOP_TAGGED => Disguise::TopTagged,
            disguise::SHIFTED => Disguise::Shifted,
            _ => return None,
        };
        Some(Hint { disguise, at_addr: mark.at })
    }
}

/// Where findings are told apart: call stack, class, and the call stack of what they hang on.
type Key = (StackIndex, LeakClass, StackIndex);

/// The findings of a scan, in the order of their first blocks; those of the control are in none.
pub(super) fn findings(
    found: &Found<'_>,
    control: Control,
    process: ProcessIndex,
    contents: &Contents,
) -> Vec<Finding> {
    let of_program = || found.blocks.iter().enumerate().filter(|(_, block)| !control.holds(block.addr));
    let mut findings: Vec<Finding> = Vec::new();
    let mut places: FxHashMap<Key, usize> = FxHashMap::default();
    let mut callers = FxHashMap::default();
    let mut place_of = vec![0; found.blocks.len()];
    for (number, block) in of_program() {
        let of = *callers.entry(block.stack).or_insert_with(|| caller(contents, block.stack));
        let leader = found.leader(number).map_or(StackIndex::NONE, |leader| found.blocks[leader].stack);
        let is_inherited =
            contents.threads.get(block.thread.0 as usize).is_some_and(|thread| thread.process != process);
        let class = if is_inherited { LeakClass::Inherited } else { class(found.verdict(number), of) };
        let place = *places.entry((block.stack, class, leader)).or_insert_with(|| {
            findings.push(Finding {
                stack: block.stack,
                call: block.call,
                class,
                leader,
                blocks: 0,
                bytes: 0,
                oldest_at_ns: block.at_ns,
                youngest_at_ns: block.at_ns,
                threads: Vec::new(),
                held_blocks: 0,
                held_bytes: 0,
                holders: found.holders(number),
                hint: None,
            });
            findings.len() - 1
        });
        place_of[number] = place;
        let finding = &mut findings[place];
        finding.blocks += 1;
        finding.bytes = finding.bytes.saturating_add(block.size_bytes);
        finding.oldest_at_ns = finding.oldest_at_ns.min(block.at_ns);
        finding.youngest_at_ns = finding.youngest_at_ns.max(block.at_ns);
        finding.hint = finding.hint.or_else(|| found.hint(number));
        insert(&mut finding.threads, block.thread);
    }
    for (number, block) in of_program() {
        if let Some(leader) = found.leader(number) {
            let finding = &mut findings[place_of[leader]];
            finding.held_blocks += 1;
            finding.held_bytes = finding.held_bytes.saturating_add(block.size_bytes);
        }
    }
    findings
}

fn insert(threads: &mut Vec<ThreadIndex>, thread: ThreadIndex) {
    if threads.last() != Some(&thread)
        && let Err(place) = threads.binary_search(&thread)
    {
        threads.insert(place, thread);
    }
}

fn class(verdict: Verdict, caller: Caller) -> LeakClass {
    match (verdict, caller) {
        (Verdict::Lost, _) => LeakClass::Inherited,
        (_, Caller::Loader) | (Verdict::Reachable | Verdict::Possible, Caller::Runtime) => LeakClass::Runtime,
        (Verdict::Reachable, Caller::Program) => LeakClass::Reachable,
        (Verdict::Possible, Caller::Program) => LeakClass::Possible,
        (Verdict::Definite, _) => LeakClass::Definite,
        (Verdict::Cycle, _) => LeakClass::Cycle,
        (Verdict::Indirect, _) => LeakClass::Indirect,
    }
}
