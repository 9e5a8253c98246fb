//! Findings of a trace before version 3: one after the other, each field behind the one before.

use xalloc_core::wire::Call;

use super::super::error::Malformed;
use super::super::records::flag;
use super::super::varint::Cursor;
use super::super::{StackIndex, ThreadIndex};
use super::{Finding, Hint, Holder, LeakClass, UNKNOWN, one_of};

/// Reads findings; `spend` is told what each takes and refuses what is too much.
pub(in crate::trace) fn findings(
    from: &mut Cursor<'_>,
    mut spend: impl FnMut(u64) -> Result<(), Malformed>,
) -> Result<Vec<Finding>, Malformed> {
    let mut findings = Vec::new();
    for _ in 0..from.varint()? {
        spend(size_of::<Finding>() as u64)?;
        findings.push(finding(from, &mut spend)?);
    }
    Ok(findings)
}

fn call(from: &mut Cursor<'_>) -> Result<Call, Malformed> {
    Call::from_number(from.byte()?).ok_or(UNKNOWN)
}

fn finding(from: &mut Cursor<'_>, spend: &mut impl FnMut(u64) -> Result<(), Malformed>) -> Result<Finding, Malformed> {
    let stack = StackIndex(from.varint32()?);
    let call_of = call(from)?;
    let class = one_of(from, &LeakClass::ALL)?;
    let leader = StackIndex(from.varint32()?);
    let mut numbers = [0; 6];
    for number in &mut numbers {
        *number = from.varint()?;
    }
    let [blocks, bytes, oldest_at_ns, youngest_at_ns, held_blocks, held_bytes] = numbers;
    let mut threads = Vec::new();
    for _ in 0..from.varint()? {
        spend(size_of::<ThreadIndex>() as u64)?;
        threads.push(ThreadIndex(from.varint32()?));
    }
    let mut holders = Vec::new();
    for _ in 0..from.varint()? {
        spend(size_of::<Holder>() as u64)?;
        holders.push(if flag(from)? {
            Holder::Block {
                stack: StackIndex(from.varint32()?),
                call: call(from)?,
                size_bytes: from.varint()?,
                offset_bytes: from.varint()?,
            }
        } else {
            Holder::Root { name: from.text()?.to_owned() }
        });
    }
    let hint = Hint::read(from)?;
    Ok(Finding {
        stack,
        call: call_of,
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
    })
}
