//! Traces of memory operations and their results, in the formats of `tests/programs/xreplay.c`.
#![allow(dead_code, reason = "not every test reads and writes both formats")]

/// What an operation does. The numbers are those of `xreplay.c`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Malloc = 0,
    Free = 1,
    Realloc = 2,
    Memalign = 3,
    Calloc = 4,
    Trim = 5,
    /// `size` is the parameter, `align` the value.
    Mallopt = 6,
    /// Starts thread `thread`.
    Start = 7,
    /// Ends thread `thread`.
    Exit = 8,
    /// The program itself moves the break by `size`.
    Sbrk = 9,
    /// Something stands in the way of the break from here on.
    Block = 10,
    /// Starts thread `thread`, whose creation allocates nothing: what it asks for is an operation of the trace.
    StartBare = 11,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Malloc,
        Kind::Free,
        Kind::Realloc,
        Kind::Memalign,
        Kind::Calloc,
        Kind::Trim,
        Kind::Mallopt,
        Kind::Start,
        Kind::Exit,
        Kind::Sbrk,
        Kind::Block,
        Kind::StartBare,
    ];
}

/// One operation; `slot` names the block that it makes, changes or frees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) thread: u8,
    pub(crate) slot: u32,
    pub(crate) size: u64,
    pub(crate) align: u64,
}

/// Where the block of an operation is afterwards, and how far the heap goes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Outcome {
    /// 0 null, 1 main heap in the break, 2 mapped, 3 | arena << 8 | sub-heap << 24 with arenas numbered as they appear,
    /// 4 main heap elsewhere.
    pub(crate) place: u64,
    /// From the break's beginning, from the sub-heap's, or in the page.
    pub(crate) offset: u64,
    pub(crate) usable: u64,
    pub(crate) brk: u64,
    /// Size word of the sub-heap; of `malloc_trim` and `mallopt` the result.
    pub(crate) heap_size: u64,
}

pub(crate) fn encode(ops: &[Op]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ops.len() * 24);
    for op in ops {
        bytes.extend([op.kind as u8, op.thread, 0, 0]);
        bytes.extend(op.slot.to_le_bytes());
        bytes.extend(op.size.to_le_bytes());
        bytes.extend(op.align.to_le_bytes());
    }
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub(crate) fn decode(bytes: &[u8]) -> Vec<Op> {
    bytes
        .chunks_exact(24)
        .map(|op| Op {
            kind: Kind::ALL[usize::from(op[0])],
            thread: op[1],
            slot: (word(op, 0) >> 32) as u32,
            size: word(op, 8),
            align: word(op, 16),
        })
        .collect()
}

pub(crate) fn encode_outcomes(outcomes: &[Outcome]) -> Vec<u8> {
    outcomes.iter().flat_map(|o| [o.place, o.offset, o.usable, o.brk, o.heap_size]).flat_map(u64::to_le_bytes).collect()
}

pub(crate) fn decode_outcomes(bytes: &[u8]) -> Vec<Outcome> {
    bytes
        .chunks_exact(40)
        .map(|o| Outcome {
            place: word(o, 0),
            offset: word(o, 8),
            usable: word(o, 16),
            brk: word(o, 24),
            heap_size: word(o, 32),
        })
        .collect()
}
