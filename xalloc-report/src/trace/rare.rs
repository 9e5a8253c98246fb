//! The events that are neither blocks coming and going nor steps of a heap: one column of bytes, one after the other.
//!
//! They are a few in a thousand, so each is written plainly: a tag, its numbers as varints, its text.

use xalloc_core::wire::{Advice, Call, FaultKind, HeapCall, LossReason, Protection};

use super::error::Malformed;
use super::varint::{Cursor, put, put_bytes, unzigzag, zigzag};
use super::{Event, ProcessEvent, ProgramEvent};

const ALLOC_FAILED: u8 = 1;
const FREE_UNKNOWN: u8 = 2;
const PROGRAM_MAP: u8 = 3;
const PROGRAM_UNMAP: u8 = 4;
const PROGRAM_REMAP: u8 = 5;
const PROGRAM_ADVISE: u8 = 6;
const PROGRAM_BRK: u8 = 7;
const THREAD_START: u8 = 8;
const THREAD_EXIT: u8 = 9;
const FORK: u8 = 10;
const EXEC: u8 = 11;
const EXEC_FAILED: u8 = 12;
const EXIT: u8 = 13;
const MARKER: u8 = 14;
const LOST: u8 = 15;
const MODULES_CLOSED: u8 = 16;
/// Since 1.1.
const HEAP_CALL: u8 = 17;
/// Since 1.1.
const FAULT: u8 = 18;

/// Appends `event`; blocks and heap steps are none of its business and append nothing.
pub(super) fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    let mut tagged = |tag: u8, numbers: &[u64]| {
        out.push(tag);
        for &number in numbers {
            put(out, number);
        }
    };
    match *event {
        Event::AllocFailed { size_bytes, call } => tagged(ALLOC_FAILED, &[size_bytes, call as u64]),
        Event::FreeUnknown { addr } => tagged(FREE_UNKNOWN, &[addr]),
        Event::Program(ProgramEvent::Map { addr, len_bytes, protection, shared, path }) => {
            let rights = u64::from(protection.read)
                | u64::from(protection.write) << 1
                | u64::from(protection.execute) << 2
                | u64::from(shared) << 3;
            tagged(PROGRAM_MAP, &[addr, len_bytes, rights]);
            put_bytes(out, path.as_bytes());
        }
        Event::Program(ProgramEvent::Unmap { addr, len_bytes }) => tagged(PROGRAM_UNMAP, &[addr, len_bytes]),
        Event::Program(ProgramEvent::Remap { from, from_bytes, to, to_bytes }) => {
            tagged(PROGRAM_REMAP, &[from, from_bytes, to, to_bytes]);
        }
        Event::Program(ProgramEvent::Advise { addr, len_bytes, advice }) => {
            tagged(PROGRAM_ADVISE, &[addr, len_bytes, advice as u64]);
        }
        Event::Program(ProgramEvent::Brk { from, to }) => tagged(PROGRAM_BRK, &[from, to]),
        Event::HeapCall { call, argument, value } => {
            tagged(HEAP_CALL, &[call as u64, zigzag(i64::from(argument) as u64), value]);
        }
        Event::Process(ProcessEvent::ThreadStart) => tagged(THREAD_START, &[]),
        Event::Process(ProcessEvent::ThreadExit) => tagged(THREAD_EXIT, &[]),
        Event::Process(ProcessEvent::Fork) => tagged(FORK, &[]),
        Event::Process(ProcessEvent::Exec { path }) => {
            tagged(EXEC, &[]);
            put_bytes(out, path.as_bytes());
        }
        Event::Process(ProcessEvent::ExecFailed) => tagged(EXEC_FAILED, &[]),
        Event::Process(ProcessEvent::Exit { status }) => tagged(EXIT, &[zigzag(i64::from(status) as u64)]),
        Event::Marker { text } => {
            tagged(MARKER, &[]);
            put_bytes(out, text.as_bytes());
        }
        Event::Lost { events, reason } => tagged(LOST, &[events, reason as u64]),
        Event::Process(ProcessEvent::ModulesClosed) => tagged(MODULES_CLOSED, &[]),
        Event::Fault { addr, kind } => tagged(FAULT, &[addr, kind as u64]),
        Event::Alloc { .. }
        | Event::Free { .. }
        | Event::ReallocBegin { .. }
        | Event::ReallocUndo { .. }
        | Event::Heap { .. } => {}
    }
}

fn numbered<T>(from: &mut Cursor<'_>, reading: impl Fn(u8) -> Option<T>) -> Result<T, Malformed> {
    let number = u8::try_from(from.varint()?).ok();
    number.and_then(reading).ok_or(Malformed::Bytes("a number is none that this version knows"))
}

fn narrow(number: u64, fault: &'static str) -> Result<i32, Malformed> {
    i32::try_from(number as i64).map_err(|_| Malformed::Bytes(fault))
}

/// The next event of the column.
pub(super) fn decode<'a>(from: &mut Cursor<'a>) -> Result<Event<'a>, Malformed> {
    Ok(match from.byte()? {
        ALLOC_FAILED => Event::AllocFailed { size_bytes: from.varint()?, call: numbered(from, Call::from_number)? },
        FREE_UNKNOWN => Event::FreeUnknown { addr: from.varint()? },
        PROGRAM_MAP => {
            let (addr, len_bytes, rights) = (from.varint()?, from.varint()?, from.varint()?);
            Event::Program(ProgramEvent::Map {
                addr,
                len_bytes,
                protection: Protection::from_prot((rights & 7) as i32),
                shared: rights & 8 != 0,
                path: from.text()?,
            })
        }
        PROGRAM_UNMAP => Event::Program(ProgramEvent::Unmap { addr: from.varint()?, len_bytes: from.varint()? }),
        PROGRAM_REMAP => Event::Program(ProgramEvent::Remap {
            from: from.varint()?,
            from_bytes: from.varint()?,
            to: from.varint()?,
            to_bytes: from.varint()?,
        }),
        PROGRAM_ADVISE => Event::Program(ProgramEvent::Advise {
            addr: from.varint()?,
            len_bytes: from.varint()?,
            advice: numbered(from, Advice::from_number)?,
        }),
        PROGRAM_BRK => Event::Program(ProgramEvent::Brk { from: from.varint()?, to: from.varint()? }),
        HEAP_CALL => Event::HeapCall {
            call: numbered(from, HeapCall::from_number)?,
            argument: narrow(unzigzag(from.varint()?), "an argument of a heap call exceeds 32 bits")?,
            value: from.varint()?,
        },
        THREAD_START => Event::Process(ProcessEvent::ThreadStart),
        THREAD_EXIT => Event::Process(ProcessEvent::ThreadExit),
        FORK => Event::Process(ProcessEvent::Fork),
        EXEC => Event::Process(ProcessEvent::Exec { path: from.text()? }),
        EXEC_FAILED => Event::Process(ProcessEvent::ExecFailed),
        EXIT => Event::Process(ProcessEvent::Exit {
            status: narrow(unzigzag(from.varint()?), "an exit status exceeds 32 bits")?,
        }),
        MARKER => Event::Marker { text: from.text()? },
        LOST => Event::Lost { events: from.varint()?, reason: numbered(from, LossReason::from_number)? },
        MODULES_CLOSED => Event::Process(ProcessEvent::ModulesClosed),
        FAULT => Event::Fault { addr: from.varint()?, kind: numbered(from, FaultKind::from_number)? },
        _ => return Err(Malformed::Bytes("an event is of a kind that this version does not know")),
    })
}
