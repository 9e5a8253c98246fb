//! Findings as they lie in a trace: columns, and the chains that hold blocks as a walk from link to link.
//!
//! A program that ends with a large graph of live blocks has a finding for each call stack, and with each up to sixteen
//! holders: five of ten bytes of such a trace, when they were put down one after the other. The chains are paths through
//! one graph, so nearly all of a chain is known from others: most links are followed by what followed them last time.
//!
//! Integers are varints. A time is in microseconds, as events' times are. A link is said by a number in
//! [`Column::Link`]: 0 is what followed the link before when it came last (before a chain's first link: the first one of
//! the chain before), 1 a link that is described in the columns behind, and from 2 on one of those described, counted from
//! the last, which is 2.
//!
//! # Invariant
//! What is read is not believed: columns may end early, numbers may be too large, and a short column of zeros may claim
//! any number of links, each of which is paid for before it is kept.

use rustc_hash::FxHashMap;
use xalloc_core::wire::Call;

use super::super::error::Malformed;
use super::super::records::put_optional;
use super::super::varint::{Cursor, put, put_bytes, unzigzag, zigzag};
use super::super::{StackIndex, ThreadIndex};
use super::{DISGUISES, Finding, Hint, Holder, LeakClass, one_of, put_one_of};

#[derive(Clone, Copy)]
#[repr(usize)]
enum Column {
    /// As difference to the finding before, zigzag.
    Stack,
    Call,
    Class,
    Leader,
    Blocks,
    Bytes,
    Oldest,
    /// Less the oldest, zigzag.
    Youngest,
    HeldBlocks,
    HeldBytes,
    /// For each finding: how many threads, which.
    Threads,
    /// How many holders each finding has.
    Holders,
    Link,
    /// Of each link that is described, one more than its stack; 0 for a root.
    LinkStack,
    LinkCall,
    LinkSize,
    LinkOffset,
    LinkName,
    /// One more than the hint's address, and its disguise; 0 without.
    Hint,
}

const COLUMNS: usize = Column::Hint as usize + 1;

const FOLLOWS: u64 = 0;
const DESCRIBED: u64 = 1;
const LAST_DESCRIBED: u64 = 2;

/// What a chain begins behind, among the numbers of links.
const BEGIN: u32 = u32::MAX;

/// Appends findings.
pub(in crate::trace) fn put_findings(out: &mut Vec<u8>, findings: &[Finding]) {
    let mut columns: [Vec<u8>; COLUMNS] = std::array::from_fn(|_| Vec::new());
    let mut links = Links::default();
    let mut stack_before = 0;
    for finding in findings {
        let Finding {
            stack,
            call,
            class,
            leader,
            blocks,
            bytes,
            oldest_at_ns,
            youngest_at_ns,
            threads,
            held_blocks,
            held_bytes,
            holders,
            hint,
        } = finding;
        let mut put_in = |column: Column, value: u64| put(&mut columns[column as usize], value);
        put_in(Column::Stack, zigzag(u64::from(stack.0).wrapping_sub(stack_before)));
        stack_before = u64::from(stack.0);
        put_in(Column::Call, *call as u64);
        put_in(Column::Leader, u64::from(leader.0));
        put_in(Column::Blocks, *blocks);
        put_in(Column::Bytes, *bytes);
        let (oldest_us, youngest_us) = (oldest_at_ns / 1000, youngest_at_ns / 1000);
        put_in(Column::Oldest, oldest_us);
        put_in(Column::Youngest, zigzag(youngest_us.wrapping_sub(oldest_us)));
        put_in(Column::HeldBlocks, *held_blocks);
        put_in(Column::HeldBytes, *held_bytes);
        put_in(Column::Threads, threads.len() as u64);
        threads.iter().for_each(|thread| put_in(Column::Threads, u64::from(thread.0)));
        put_in(Column::Holders, holders.len() as u64);
        put_one_of(&mut columns[Column::Class as usize], &LeakClass::ALL, *class);
        let mut before = BEGIN;
        for holder in holders {
            before = links.put(before, holder, &mut columns);
        }
        let column = &mut columns[Column::Hint as usize];
        put_optional(column, hint.map(|hint| hint.at_addr));
        if let Some(hint) = hint {
            put_one_of(column, &DISGUISES, hint.disguise);
        }
    }
    put(out, findings.len() as u64);
    columns.iter().for_each(|column| put_bytes(out, column));
}

/// The links that were described so far, as the writer keeps them.
#[derive(Default)]
struct Links<'a> {
    numbers: FxHashMap<&'a Holder, u32>,
    /// By number what followed last; [`BEGIN`] has what the last chain began with.
    followed_by: FxHashMap<u32, u32>,
}

impl<'a> Links<'a> {
    /// Says the link behind `before`; returns its number.
    fn put(&mut self, before: u32, holder: &'a Holder, columns: &mut [Vec<u8>; COLUMNS]) -> u32 {
        let known = self.numbers.len() as u32;
        let number = *self.numbers.entry(holder).or_insert(known);
        let followed_by = self.followed_by.insert(before, number);
        let column = &mut columns[Column::Link as usize];
        if number == known {
            put(column, DESCRIBED);
            describe(holder, columns);
        } else if followed_by == Some(number) {
            put(column, FOLLOWS);
        } else {
            put(column, LAST_DESCRIBED + u64::from(known - 1 - number));
        }
        number
    }
}

fn describe(holder: &Holder, columns: &mut [Vec<u8>; COLUMNS]) {
    match holder {
        Holder::Root { name } => {
            put(&mut columns[Column::LinkStack as usize], 0);
            put_bytes(&mut columns[Column::LinkName as usize], name.as_bytes());
        }
        Holder::Block { stack, call, size_bytes, offset_bytes } => {
            put(&mut columns[Column::LinkStack as usize], u64::from(stack.0) + 1);
            put(&mut columns[Column::LinkCall as usize], *call as u64);
            put(&mut columns[Column::LinkSize as usize], *size_bytes);
            put(&mut columns[Column::LinkOffset as usize], *offset_bytes);
        }
    }
}

/// Reads findings; `spend` is told what each takes and refuses what is too much.
pub(in crate::trace) fn findings(
    from: &mut Cursor<'_>,
    mut spend: impl FnMut(u64) -> Result<(), Malformed>,
) -> Result<Vec<Finding>, Malformed> {
    let count = from.varint()?;
    let mut columns = [Cursor::new(&[]); COLUMNS];
    for column in &mut columns {
        *column = Cursor::new(from.bytes()?);
    }
    let mut links = LinksRead::default();
    let mut findings = Vec::new();
    let mut stack_before = 0;
    for _ in 0..count {
        spend(size_of::<Finding>() as u64)?;
        let finding = finding(&mut columns, stack_before, &mut links, &mut spend)?;
        stack_before = finding.stack.0;
        findings.push(finding);
    }
    Ok(findings)
}

fn finding<'a>(
    columns: &mut [Cursor<'a>; COLUMNS],
    stack_before: u32,
    links: &mut LinksRead,
    spend: &mut impl FnMut(u64) -> Result<(), Malformed>,
) -> Result<Finding, Malformed> {
    const LATE: Malformed = Malformed::Bytes("a finding's time runs past its end");
    let mut number = |column: Column| columns[column as usize].varint();
    let stack = stack_of(u64::from(stack_before).wrapping_add(unzigzag(number(Column::Stack)?)))?;
    let oldest_us = number(Column::Oldest)?;
    let youngest_us = oldest_us.wrapping_add(unzigzag(number(Column::Youngest)?));
    let at_ns = |us: u64| us.checked_mul(1000).ok_or(LATE);
    let (leader, blocks, bytes) = (stack_of(number(Column::Leader)?)?, number(Column::Blocks)?, number(Column::Bytes)?);
    let (held_blocks, held_bytes) = (number(Column::HeldBlocks)?, number(Column::HeldBytes)?);
    let mut threads = Vec::new();
    for _ in 0..number(Column::Threads)? {
        spend(size_of::<ThreadIndex>() as u64)?;
        threads.push(ThreadIndex(columns[Column::Threads as usize].varint32()?));
    }
    let mut holders = Vec::new();
    let mut before = BEGIN;
    for _ in 0..columns[Column::Holders as usize].varint()? {
        before = links.next(before, columns, spend)?;
        let holder = &links.described[before as usize];
        spend(kept_bytes(holder))?;
        holders.push(holder.clone());
    }
    let hint = Hint::read(&mut columns[Column::Hint as usize])?;
    Ok(Finding {
        stack,
        call: call(&mut columns[Column::Call as usize])?,
        class: one_of(&mut columns[Column::Class as usize], &LeakClass::ALL)?,
        leader,
        blocks,
        bytes,
        oldest_at_ns: at_ns(oldest_us)?,
        youngest_at_ns: at_ns(youngest_us)?,
        threads,
        held_blocks,
        held_bytes,
        holders,
        hint,
    })
}

fn stack_of(number: u64) -> Result<StackIndex, Malformed> {
    u32::try_from(number).map(StackIndex).map_err(|_| Malformed::Bytes("a finding's stack exceeds 32 bits"))
}

fn call(from: &mut Cursor<'_>) -> Result<Call, Malformed> {
    u8::try_from(from.varint()?).ok().and_then(Call::from_number).ok_or(super::UNKNOWN)
}

fn kept_bytes(holder: &Holder) -> u64 {
    let name_bytes = if let Holder::Root { name } = holder { name.len() } else { 0 };
    (size_of::<Holder>() + name_bytes) as u64
}

/// The links that were described so far, as the reader keeps them.
#[derive(Default)]
struct LinksRead {
    described: Vec<Holder>,
    followed_by: FxHashMap<u32, u32>,
}

impl LinksRead {
    /// The number of the link behind `before`.
    fn next(
        &mut self,
        before: u32,
        columns: &mut [Cursor<'_>; COLUMNS],
        spend: &mut impl FnMut(u64) -> Result<(), Malformed>,
    ) -> Result<u32, Malformed> {
        const ABSENT: Malformed = Malformed::Bytes("a holder is none that was described");
        let known = self.described.len() as u32;
        let number = match columns[Column::Link as usize].varint()? {
            FOLLOWS => *self.followed_by.get(&before).ok_or(ABSENT)?,
            DESCRIBED => {
                let holder = described(columns)?;
                spend(kept_bytes(&holder))?;
                self.described.push(holder);
                known
            }
            far => {
                let back = u32::try_from(far - LAST_DESCRIBED).map_err(|_| ABSENT)?;
                known.checked_sub(1).and_then(|last| last.checked_sub(back)).ok_or(ABSENT)?
            }
        };
        self.followed_by.insert(before, number);
        Ok(number)
    }
}

fn described(columns: &mut [Cursor<'_>; COLUMNS]) -> Result<Holder, Malformed> {
    let Some(stack) = columns[Column::LinkStack as usize].varint()?.checked_sub(1) else {
        return Ok(Holder::Root { name: columns[Column::LinkName as usize].text()?.to_owned() });
    };
    Ok(Holder::Block {
        stack: stack_of(stack)?,
        call: call(&mut columns[Column::LinkCall as usize])?,
        size_bytes: columns[Column::LinkSize as usize].varint()?,
        offset_bytes: columns[Column::LinkOffset as usize].varint()?,
    })
}
