//! What a look at a process's blocks found: which of them the program can still reach.
//!
//! A finding is the blocks of one call stack that share a class, so that a scan of a million blocks takes as much room
//! as the program has call stacks. Scans lie with the contents of a trace and not among its events: a report reads
//! them without a replay.

use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::wire::Call;

use super::error::Malformed;
use super::records::{flag, optional};
use super::varint::{Cursor, put, put_bytes};
use super::{ProcessIndex, StackIndex, ThreadIndex};

mod findings;
pub(super) mod plain;

pub(super) use findings::{findings, put_findings};

/// What a scan says of a block. Only [`LeakClass::Definite`] and [`LeakClass::Cycle`] are leaks in their own right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeakClass {
    /// Nothing points to it.
    Definite,
    /// Only blocks that it points to in turn point to it; one block of such a ring stands for all of them.
    Cycle,
    /// Only leaked blocks point to it: it is part of what they hold.
    Indirect,
    /// Something points into its middle, and no known shape of data explains that.
    Possible,
    /// The program can still get at it.
    Reachable,
    /// The C library, the loader or a language runtime allocated it for itself.
    Runtime,
    /// The process had it from its parent at the fork.
    Inherited,
    /// Nothing points to it, but a function that was still running at `exit` allocated it.
    OwnerActive,
}

impl LeakClass {
    /// All classes, the worst first.
    pub const ALL: [LeakClass; 8] = [
        LeakClass::Definite,
        LeakClass::Cycle,
        LeakClass::Indirect,
        LeakClass::Possible,
        LeakClass::Reachable,
        LeakClass::Runtime,
        LeakClass::Inherited,
        LeakClass::OwnerActive,
    ];

    /// The name in JSON and in options.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LeakClass::Definite => "definite",
            LeakClass::Cycle => "cycle",
            LeakClass::Indirect => "indirect",
            LeakClass::Possible => "possible",
            LeakClass::Reachable => "reachable",
            LeakClass::Runtime => "runtime",
            LeakClass::Inherited => "inherited",
            LeakClass::OwnerActive => "owner_active",
        }
    }

    /// Whether the block is lost for good: definite, cycle or indirect.
    #[must_use]
    pub fn is_leaked(self) -> bool {
        match self {
            LeakClass::Definite | LeakClass::Cycle | LeakClass::Indirect => true,
            LeakClass::Possible
            | LeakClass::Reachable
            | LeakClass::Runtime
            | LeakClass::Inherited
            | LeakClass::OwnerActive => false,
        }
    }
}

/// Why a process was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// It was about to end.
    Exit,
    /// Somebody asked from outside while it ran.
    Demand,
    /// The program itself asked.
    Program,
    /// The program itself asked for the check that stands for the one at its end.
    Final,
}

impl Occasion {
    /// Whether the check is the one by which the process is judged: what it found is what was there at its end.
    #[must_use]
    pub fn is_last(self) -> bool {
        match self {
            Occasion::Exit | Occasion::Final => true,
            Occasion::Demand | Occasion::Program => false,
        }
    }
}

/// One look at the blocks of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Whose blocks.
    pub process: ProcessIndex,
    /// When, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Why.
    pub occasion: Occasion,
    /// What came of it.
    pub outcome: ScanOutcome,
}

/// What came of a scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScanOutcome {
    /// Every live block has a class.
    Checked(Checked),
    /// No block has one.
    NotChecked {
        /// Why not, as a sentence's end: `the scan was stopped by a fault`.
        reason: String,
    },
}

/// The result of a whole scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// How long the program waited for it, nanoseconds.
    pub duration_ns: u64,
    /// Bytes of roots that were read.
    pub root_bytes: u64,
    /// Pages of roots that could not be read and were passed over.
    pub unreadable_pages: u64,
    /// Threads whose stack was read from its stack pointer up.
    pub threads: u64,
    /// Threads that did not stop: their stacks were read whole, so that a leak may be missed.
    pub running_threads: u64,
    /// The stack of the call of `exit` that ended the process; [`StackIndex::NONE`] where it ended otherwise.
    pub exit_stack: StackIndex,
    /// What the program itself wants suppressed, in LeakSanitizer's words; empty if it said nothing.
    pub suppressions: String,
    /// The blocks by call stack and class.
    pub findings: Vec<Finding>,
}

impl Default for Checked {
    /// A scan of a process without blocks.
    fn default() -> Checked {
        Checked {
            duration_ns: 0,
            root_bytes: 0,
            unreadable_pages: 0,
            threads: 0,
            running_threads: 0,
            exit_stack: StackIndex::NONE,
            suppressions: String::new(),
            findings: Vec::new(),
        }
    }
}

/// The blocks of one call stack and one class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where they were allocated.
    pub stack: StackIndex,
    /// By which call.
    pub call: Call,
    /// What they are.
    pub class: LeakClass,
    /// Of class [`LeakClass::Indirect`]: where those were allocated that they hang on; else [`StackIndex::NONE`].
    pub leader: StackIndex,
    /// Blocks.
    pub blocks: u64,
    /// Requested bytes of these.
    pub bytes: u64,
    /// When the oldest was allocated, nanoseconds since the recording's start.
    pub oldest_at_ns: u64,
    /// When the youngest was.
    pub youngest_at_ns: u64,
    /// Who allocated them, ascending.
    pub threads: Vec<ThreadIndex>,
    /// Blocks of class [`LeakClass::Indirect`] that these hold, whatever their call stack. A block that several hold is
    /// counted once, for one of them.
    pub held_blocks: u64,
    /// Requested bytes of these.
    pub held_bytes: u64,
    /// For one of the blocks: who points to it, then who points to that, up to a root.
    pub holders: Vec<Holder>,
    /// For one of the blocks: a hidden pointer to it, which does not count.
    pub hint: Option<Hint>,
}

/// A link of the chain that keeps a block reachable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Holder {
    /// A block points to it.
    Block {
        /// Where that was allocated.
        stack: StackIndex,
        /// By which call.
        call: Call,
        /// Its requested size.
        size_bytes: u64,
        /// Where in it the pointer lies.
        offset_bytes: u64,
    },
    /// Memory that the program can always get at points to it.
    Root {
        /// Which: `./app: g_cache+0x18`, `stack of thread 2`.
        name: String,
    },
}

/// A hidden pointer: it looks as if the program knew the block by something else than its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hint {
    /// How it is hidden.
    pub disguise: Disguise,
    /// Where it lies.
    pub at_addr: u64,
}

impl Hint {
    /// One more than its address, and its disguise; 0 if there is none.
    fn read(from: &mut Cursor<'_>) -> Result<Option<Hint>, Malformed> {
        let Some(at_addr) = optional(from)? else { return Ok(None) };
        Ok(Some(Hint { disguise: one_of(from, &DISGUISES)?, at_addr }))
    }
}

/// How a pointer can be hidden from a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disguise {
    /// It lies at an address that is no multiple of 8.
    Unaligned,
    /// It points just behind the block.
    OnePastEnd,
    /// Something else is in its upper 16 bits.
    TopTagged,
    /// It is shifted.
    Shifted,
}

const UNKNOWN: Malformed = Malformed::Bytes("a scan has a number that this version does not know");
const DISGUISES: [Disguise; 4] = [Disguise::Unaligned, Disguise::OnePastEnd, Disguise::TopTagged, Disguise::Shifted];
const OCCASIONS: [Occasion; 4] = [Occasion::Exit, Occasion::Demand, Occasion::Program, Occasion::Final];

/// An entry of a table, as its place in it.
fn put_one_of<T: PartialEq>(out: &mut Vec<u8>, table: &[T], value: T) {
    out.push(table.iter().position(|known| *known == value).unwrap_or(table.len()) as u8);
}

fn one_of<T: Copy>(from: &mut Cursor<'_>, table: &[T]) -> Result<T, Malformed> {
    table.get(usize::from(from.byte()?)).copied().ok_or(UNKNOWN)
}

impl Scan {
    /// The blocks by call stack and class; none if it was not checked.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match &self.outcome {
            ScanOutcome::Checked(checked) => &checked.findings,
            ScanOutcome::NotChecked { .. } => &[],
        }
    }
}

/// Appends a scan, without its findings.
pub(super) fn put_scan(out: &mut Vec<u8>, scan: &Scan) {
    let Scan { process, at_ns, occasion, outcome } = scan;
    put(out, u64::from(process.0));
    put(out, *at_ns);
    put_one_of(out, &OCCASIONS, *occasion);
    match outcome {
        ScanOutcome::NotChecked { reason } => {
            out.push(0);
            put_bytes(out, reason.as_bytes());
        }
        ScanOutcome::Checked(checked) => {
            out.push(1);
            let Checked {
                duration_ns,
                root_bytes,
                unreadable_pages,
                threads,
                running_threads,
                exit_stack,
                suppressions,
                findings: _,
            } = checked;
            for number in [*duration_ns, *root_bytes, *unreadable_pages, *threads, *running_threads] {
                put(out, number);
            }
            put(out, u64::from(exit_stack.0));
            put_bytes(out, suppressions.as_bytes());
        }
    }
}

/// A scan without findings. `processes` bounds the index of its process.
pub(super) fn scan(from: &mut Cursor<'_>, processes: usize) -> Result<Scan, Malformed> {
    let process = from.varint32()?;
    if process as usize >= processes {
        return Err(Malformed::Bytes("a scan's process is not in the trace"));
    }
    let at_ns = from.varint()?;
    let occasion = one_of(from, &OCCASIONS)?;
    let outcome = if flag(from)? {
        ScanOutcome::Checked(Checked {
            duration_ns: from.varint()?,
            root_bytes: from.varint()?,
            unreadable_pages: from.varint()?,
            threads: from.varint()?,
            running_threads: from.varint()?,
            exit_stack: StackIndex(from.varint32()?),
            suppressions: from.text()?.to_owned(),
            findings: Vec::new(),
        })
    } else {
        ScanOutcome::NotChecked { reason: from.text()?.to_owned() }
    };
    Ok(Scan { process: ProcessIndex(process), at_ns, occasion, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> Scan {
        let block = Finding {
            stack: StackIndex(3),
            call: Call::Calloc,
            class: LeakClass::Cycle,
            leader: StackIndex::NONE,
            blocks: 2,
            bytes: 96,
            oldest_at_ns: 1_000,
            youngest_at_ns: 2_000,
            threads: vec![ThreadIndex(0), ThreadIndex(4)],
            held_blocks: 1,
            held_bytes: 16,
            holders: Vec::new(),
            hint: Some(Hint { disguise: Disguise::TopTagged, at_addr: 0x1000 }),
        };
        let held = Finding {
            stack: StackIndex(1),
            youngest_at_ns: 1_000,
            class: LeakClass::Reachable,
            holders: vec![
                Holder::Block { stack: StackIndex(3), call: Call::Malloc, size_bytes: 64, offset_bytes: 8 },
                Holder::Root { name: "./app: g_cache+0x18".to_owned() },
            ],
            hint: None,
            ..block.clone()
        };
        // Its chain goes on where that of `held` does, from another beginning, and ends elsewhere.
        let beside = Finding {
            holders: vec![
                Holder::Root { name: "stack of thread 2".to_owned() },
                held.holders[0].clone(),
                held.holders[1].clone(),
                held.holders[0].clone(),
            ],
            ..held.clone()
        };
        let checked = Checked {
            duration_ns: 1,
            root_bytes: 2,
            unreadable_pages: 3,
            threads: 4,
            running_threads: 5,
            exit_stack: StackIndex(9),
            suppressions: "leak:parse\nleak:libfoo\n".to_owned(),
            findings: vec![block, held.clone(), beside, held],
        };
        Scan { process: ProcessIndex(1), at_ns: 77, occasion: Occasion::Demand, outcome: ScanOutcome::Checked(checked) }
    }

    #[test]
    fn a_scan_reads_back_as_it_was_written() {
        let not_checked = Scan {
            outcome: ScanOutcome::NotChecked { reason: "ended by signal 9".to_owned() },
            occasion: Occasion::Exit,
            ..sample()
        };
        for written in [sample(), not_checked] {
            let mut bytes = Vec::new();
            put_scan(&mut bytes, &written);
            put_findings(&mut bytes, written.findings());
            let mut from = Cursor::new(&bytes);
            let mut read = scan(&mut from, 2).unwrap();
            let found = findings(&mut from, |_| Ok(())).unwrap();
            if let ScanOutcome::Checked(checked) = &mut read.outcome {
                checked.findings = found;
            }
            assert_eq!(read, written);
            assert!(from.is_empty());
        }
    }

    #[test]
    fn a_scan_of_no_process_and_too_many_findings_are_refused() {
        let mut bytes = Vec::new();
        put_scan(&mut bytes, &sample());
        assert!(scan(&mut Cursor::new(&bytes), 1).is_err());
        for end in 0..bytes.len() {
            assert!(scan(&mut Cursor::new(&bytes[..end]), 2).is_err(), "cut after {end} bytes");
        }
        let mut bytes = Vec::new();
        put_findings(&mut bytes, sample().findings());
        assert!(findings(&mut Cursor::new(&bytes), |_| Err(UNKNOWN)).is_err());
        for end in 0..bytes.len() {
            assert!(findings(&mut Cursor::new(&bytes[..end]), |_| Ok(())).is_err(), "cut after {end} bytes");
        }
    }
}
