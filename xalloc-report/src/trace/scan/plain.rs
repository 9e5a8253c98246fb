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

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::super::{DISGUISES, put_one_of};
    use super::*;
    use crate::trace::records::put_optional;
    use crate::trace::varint::put;

    /// Findings as versions before 3 wrote them.
    fn written(findings: &[Finding]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, findings.len() as u64);
        for finding in findings {
            put(&mut out, finding.stack.0.into());
            out.push(finding.call as u8);
            put_one_of(&mut out, &LeakClass::ALL, finding.class);
            put(&mut out, finding.leader.0.into());
            let Finding { blocks, bytes, oldest_at_ns, youngest_at_ns, held_blocks, held_bytes, .. } = *finding;
            for number in [blocks, bytes, oldest_at_ns, youngest_at_ns, held_blocks, held_bytes] {
                put(&mut out, number);
            }
            put(&mut out, finding.threads.len() as u64);
            finding.threads.iter().for_each(|thread| put(&mut out, thread.0.into()));
            put(&mut out, finding.holders.len() as u64);
            for holder in &finding.holders {
                match holder {
                    Holder::Block { stack, call, size_bytes, offset_bytes } => {
                        out.push(1);
                        put(&mut out, stack.0.into());
                        out.push(*call as u8);
                        put(&mut out, *size_bytes);
                        put(&mut out, *offset_bytes);
                    }
                    Holder::Root { name } => {
                        out.push(0);
                        put(&mut out, name.len() as u64);
                        out.extend_from_slice(name.as_bytes());
                    }
                }
            }
            put_optional(&mut out, finding.hint.map(|hint| hint.at_addr));
            finding.hint.iter().for_each(|hint| put_one_of(&mut out, &DISGUISES, hint.disguise));
        }
        out
    }

    #[test]
    fn the_older_list_is_read_whole_or_refused_wherever_it_is_cut() {
        let scan = sample();
        let bytes = written(scan.findings());
        let mut from = Cursor::new(&bytes);
        assert_eq!(findings(&mut from, |_| Ok(())).unwrap(), scan.findings());
        assert!(from.is_empty());
        for end in 0..bytes.len() {
            assert!(findings(&mut Cursor::new(&bytes[..end]), |_| Ok(())).is_err(), "cut after {end} bytes");
        }
    }

    #[test]
    fn a_list_that_claims_more_than_may_be_spent_is_refused_before_it_is_held() {
        let mut spent = 0;
        let limit = 10 * size_of::<Finding>() as u64;
        let spend = |bytes| {
            spent += bytes;
            if spent <= limit { Ok(()) } else { Err(UNKNOWN) }
        };
        let one = written(&sample().findings()[..1]);
        let mut bytes = Vec::new();
        put(&mut bytes, u64::MAX);
        (0..100).for_each(|_| bytes.extend_from_slice(&one[1..]));
        assert!(findings(&mut Cursor::new(&bytes), spend).is_err());
        assert!(spent <= limit + size_of::<Finding>() as u64, "{spent} bytes");
    }
}
