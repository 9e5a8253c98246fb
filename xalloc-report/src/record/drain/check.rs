//! The recorder's half of a check for leaks: it lists the live blocks for the process that asks, and reads what the
//! process found out of them (`xalloc_core::session::blocks` has the other half).
//!
//! A process asks when it has pushed everything, so the pass that sees the request has merged all events before it, and
//! what is live then is what the process has. The answer is given whatever happens: the process waits for it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use xalloc_core::reach;
use xalloc_core::session::blocks::{self, BLOCKS_MAGIC, BlocksHeader, answer, occasion, result};
use xalloc_core::sys::clock::{monotonic_ns, ticks};
use xalloc_core::units::{StackId, Stamp};

use super::control::Control;
use super::demand::{Answer, Askers, Demand, has_copy_ended};
use super::ignored::Ignored;
use super::live::Live;
use super::verdicts::{Caller, Found, caller, findings};
use super::{Drain, Sink};
use crate::os::file::reserve;
use crate::os::segment::Asked;
use crate::os::system::own_uid;
use crate::record::clock::Clock;
use crate::record::status::{Status, Uid};
use crate::trace::{Block, Checked, Contents, Occasion, ProcessIndex, Scan, ScanOutcome, StackIndex};

/// Time between two looks whether a copy of a process is still there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a process has asked for and was told.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Number of the last request that was there before the rings were read.
    noticed: u32,
    /// Number of the last request that was answered.
    answered: u32,
    /// Number of the last request whose outcome is in the trace.
    told: u32,
    table: Option<Table>,
    refusal: Option<String>,
    /// Checks that were demanded from outside so far.
    pub(super) demands: u32,
    /// The one that goes on.
    pub(super) demand: Option<Demand>,
    /// Who wait for the next one.
    pub(super) waiting: Askers,
}

/// The blocks of a request, while the process works on them.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    process: ProcessIndex,
    number: u32,
    at_ns: u64,
    /// Ascending by address.
    pub(super) blocks: Vec<Block>,
    exit_stack: StackIndex,
    /// When the process, or its copy, was last seen at work.
    seen: Instant,
    control: Control,
}

impl Checks {
    /// Whether the request was there before the rings were read and waits for its answer.
    fn are_due(&self, asked: Asked) -> bool {
        asked.request == self.noticed && asked.request != self.answered && asked.request != asked.done
    }

    /// Whether the process has said all of the outcome that is not in the trace.
    fn are_done(&self, asked: Asked) -> bool {
        let is_whole = asked.occasion != occasion::DEMAND || asked.paused_us.is_some();
        asked.done == asked.request && asked.done != self.told && is_whole
    }

    /// Whether the process stands still on its way out until it is answered.
    pub(super) fn hold_the_end(&self, asked: Asked) -> bool {
        asked.occasion == occasion::EXIT && self.are_due(asked)
    }
}

impl<S: Sink> Drain<S> {
    /// Sees who asks, before the rings are read: what a process pushed before it asked is in them.
    pub(super) fn notice_checks(&mut self) {
        for live in &mut self.live {
            live.checks.noticed = live.stream.segment.asked().request;
        }
    }

    /// Answers the processes that ask, and reads what others found.
    pub(super) fn attend_checks(&mut self) {
        for at in 0..self.live.len() {
            self.attend(at);
        }
    }

    fn attend(&mut self, at: usize) {
        let asked = self.live[at].stream.segment.asked();
        // While it looks at itself, it waits.
        if self.live[at].checks.are_due(asked) && self.live[at].own_look.is_none() {
            self.answer(at, asked);
        }
        let live = &mut self.live[at];
        if live.checks.are_done(asked) {
            live.checks.told = asked.done;
            let outcome = live.checks.read(asked, &self.dictionary.contents);
            self.tell(at, asked, outcome);
            self.live[at].stream.segment.said_read(asked.done);
        } else if live.is_copy_lost(asked) {
            live.checks.told = asked.request;
            self.tell(at, asked, Err("the copy of the process that was looked at is gone".to_owned()));
            self.live[at].stream.segment.said_read(asked.request);
        }
    }

    /// What a check that the process did not finish comes to.
    pub(super) fn give_up_check(&mut self, at: usize) {
        self.attend(at);
        let asked = self.live[at].stream.segment.asked();
        if asked.request != self.live[at].checks.told {
            self.live[at].checks.told = asked.request;
            self.tell(at, asked, Err("the process ended while it was checked".to_owned()));
        }
        self.live[at].checks.table = None;
    }

    fn tell(&mut self, at: usize, asked: Asked, outcome: Result<Checked, String>) {
        let live = &mut self.live[at];
        let identity = &live.stream.identity;
        let now_ns = self.timeline.at_ns(identity.clock, now(identity.clock));
        let at_ns = live.checks.table.take().map_or(now_ns, |table| table.at_ns);
        self.dictionary.contents.scans.push(Scan {
            process: live.stream.index,
            at_ns,
            occasion: match asked.occasion {
                occasion::DEMAND => Occasion::Demand,
                occasion::PROGRAM => Occasion::Program,
                occasion::FINAL => Occasion::Final,
                _ => Occasion::Exit,
            },
            outcome: outcome.map_or_else(|reason| ScanOutcome::NotChecked { reason }, ScanOutcome::Checked),
        });
        self.dictionary.gained = true;
        if asked.occasion == occasion::DEMAND
            && let Some(demand) = self.live[at].checks.demand.take()
        {
            demand.answer(&Answer::Made(self.dictionary.contents.scans.len() as u64), &mut self.answers);
        }
    }

    fn answer(&mut self, at: usize, asked: Asked) {
        let made = self.table(at, asked);
        let live = &mut self.live[at];
        live.checks.answered = asked.request;
        let kind = match made {
            Ok(table) => {
                live.checks.table = Some(table);
                answer::TABLE
            }
            Err(reason) => {
                live.checks.refusal = Some(reason);
                answer::REFUSED
            }
        };
        live.stream.segment.answer(asked.request, kind);
    }

    fn table(&mut self, at: usize, asked: Asked) -> Result<Table, String> {
        let live = &mut self.live[at];
        let identity = &live.stream.identity;
        let losses: u64 = live.stream.losses().iter().map(|loss| loss.events).sum();
        if losses > 0 {
            return Err(format!("{losses} events are missing, so what was live is not known"));
        }
        if live.pidfd.is_some() && is_confined(identity.pid) {
            return Err("the process is confined by a filter of system calls (seccomp), which may end it for a check"
                .to_owned());
        }
        let index = live.stream.index;
        let (at_ns, listed) = if asked.occasion == occasion::DEMAND {
            let copied = live.stream.copied.take().filter(|copied| copied.number == asked.request);
            let copied = copied.ok_or("where in the order of its events it was copied is not known")?;
            (copied.at_ns, copied.blocks)
        } else {
            (self.timeline.at_ns(identity.clock, now(identity.clock)), self.sink.live_blocks(index).ok())
        };
        let mut live_blocks = listed.ok_or("its blocks could not be listed")?;
        let control = Control { addr: asked.control_addr };
        live_blocks.extend(control.blocks());
        live_blocks.sort_unstable_by_key(|block| block.addr);
        let exit_stack = live.stream.resolve(StackId(asked.exit_stack), &mut self.dictionary);
        let path = path_beside(&live.path, "blocks", asked.request);
        let paused = self.dictionary.paused();
        let flags = Flags {
            paused,
            process: index,
            contents: &self.dictionary.contents,
            ignored: &live.stream.ignored,
            control,
            pid: live.stream.identity.pid,
        };
        write(&path, asked.request, &live_blocks, &flags)
            .map_err(|error| format!("the list of its blocks could not be written: {error}"))?;
        let seen = Instant::now();
        Ok(Table { path, process: index, number: asked.request, at_ns, blocks: live_blocks, exit_stack, seen, control })
    }
}

impl Live {
    /// Whether the copy of the process that was to mark the blocks ended before it had.
    fn is_copy_lost(&mut self, asked: Asked) -> bool {
        let Live { stream, checks, .. } = self;
        let Some((table, copy)) = checks.table.as_mut().zip(asked.copy) else { return false };
        if asked.occasion != occasion::DEMAND || table.number == asked.done || table.seen.elapsed() < LOOK_EVERY {
            return false;
        }
        table.seen = Instant::now();
        // What it said before it ended is looked at last.
        has_copy_ended(copy, &stream.identity) && stream.segment.asked().done != table.number
    }
}

fn now(clock: Clock) -> Stamp {
    match clock {
        Clock::Ticks => ticks(),
        Clock::Monotonic => Stamp(monotonic_ns()),
    }
}

/// The segment's name with `what` for `segment`, and a number behind it.
pub(super) fn path_beside(segment: &Path, what: &str, number: u32) -> PathBuf {
    let name = segment.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix("segment").unwrap_or(&name);
    segment.with_file_name(OsString::from(format!("{what}{rest}.{number}")))
}

/// Makes a file for the process of that identity number, which may have given up root's rights and open files as somebody
/// else.
pub(super) fn create_for(pid: u32, path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    if let Some(user) = other_user(pid) {
        fchown(&file, Some(user), None)?;
    }
    Ok(file)
}

/// What is known of blocks beforehand.
struct Flags<'a> {
    process: ProcessIndex,
    contents: &'a Contents,
    ignored: &'a Ignored,
    /// The stack of blocks that were allocated while recording was paused.
    paused: StackIndex,
    control: Control,
    /// Who opens the file.
    pid: u32,
}

impl Flags<'_> {
    /// The flags of a block whose call stack ends in code of `caller`.
    fn of(&self, block: &Block, caller: Caller) -> u8 {
        if self.control.holds(block.addr) {
            return reach::flag::CONTROL;
        }
        let thread = self.contents.threads.get(block.thread.0 as usize);
        let is_inherited = thread.is_some_and(|thread| thread.process != self.process);
        let is_root = caller == Caller::Loader || block.stack == self.paused || self.ignored.has(block);
        let inherited = if is_inherited { reach::flag::INHERITED } else { 0 };
        inherited | if is_root { reach::flag::ROOT } else { 0 }
    }
}

fn write(path: &Path, number: u32, live: &[Block], flags: &Flags<'_>) -> io::Result<()> {
    let file = create_for(flags.pid, path)?;
    reserve(&file, blocks::marks_in_file(live.len()).end as u64)?;
    let mut callers = FxHashMap::default();
    let mut bytes = Vec::with_capacity(size_of_val(live));
    for block in live {
        let of = *callers.entry(block.stack).or_insert_with(|| caller(flags.contents, block.stack));
        bytes.extend_from_slice(&reach::Block::new(block.addr, block.size_bytes, flags.of(block, of)).to_bytes());
    }
    file.write_all_at(&bytes, blocks::blocks_in_file(live.len()).start as u64)?;
    let mut header = [0; 24];
    header[..8].copy_from_slice(&BLOCKS_MAGIC.to_le_bytes());
    header[8..16].copy_from_slice(&u64::from(number).to_le_bytes());
    header[16..].copy_from_slice(&(live.len() as u64).to_le_bytes());
    file.write_all_at(&header, 0)
}

impl Checks {
    /// What the process found, or why it found nothing.
    fn read(&mut self, asked: Asked, contents: &Contents) -> Result<Checked, String> {
        let reason = match asked.result {
            result::MARKED => {
                let table = self.table.as_ref().filter(|table| table.number == asked.done);
                let table = table.ok_or("the process marked blocks that it was not told of")?;
                let read = table.read(asked, contents);
                return read.map_err(|error| format!("the marks could not be read: {error}"))?;
            }
            result::REFUSED => return Err(self.refusal.take().unwrap_or_default()),
            result::NO_ANSWER => "the recorder did not answer in time",
            result::NO_TABLE => "the process could not open the list of its blocks",
            result::NO_MEMORY => "the process had no memory to check itself",
            result::NO_MAPS => "the process could not read the list of its mappings",
            result::TURNED_OFF => "the program turned it off (__lsan_is_turned_off)",
            result::OFF_BY_OPTIONS => "the program turned it off (detect_leaks=0 in __lsan_default_options)",
            result::CONFINED => {
                "the program confined itself by a filter of system calls (seccomp), which may end it for a check"
            }
            result::INSIDE => "the process ended from within its allocator",
            result::NO_COPY => "the system did not let the process be copied (memory, or the limit of processes)",
            _ => "for a reason that this recorder does not know",
        };
        Err(reason.to_owned())
    }
}

impl Table {
    /// What is in the file, or why it is not believed.
    fn read(&self, asked: Asked, contents: &Contents) -> io::Result<Result<Checked, String>> {
        let file = File::open(&self.path)?;
        let mut header = vec![0; size_of::<BlocksHeader>()];
        file.read_exact_at(&mut header, 0)?;
        let word = |nth: usize| header[8 * nth..8 * nth + 8].try_into().map_or(0, u64::from_le_bytes);
        let [paused_ns, root_bytes, unreadable_pages, threads, running_threads, regions, suppressions_bytes] =
            [word(3), word(4), word(5), word(6), word(7), word(8), word(9)];
        let mut suppressions = vec![0; (suppressions_bytes as usize).min(blocks::SUPPRESSIONS.len())];
        file.read_exact_at(&mut suppressions, blocks::SUPPRESSIONS.start as u64)?;
        let mut region_bytes = vec![0; size_of::<blocks::Region>() * (regions as usize).min(blocks::MOST_REGIONS)];
        file.read_exact_at(&mut region_bytes, blocks::REGIONS.start as u64)?;
        let range = blocks::marks_in_file(self.blocks.len());
        let mut mark_bytes = vec![0; range.len()];
        file.read_exact_at(&mut mark_bytes, range.start as u64)?;
        let found = Found::parse(&self.blocks, &mark_bytes, &region_bytes);
        if let Some(fault) = self.control.fault(&self.blocks, |number| found.verdict(number)) {
            return Ok(Err(fault));
        }
        // The time for which the process waited is not that which its copy took.
        let copied_us = asked.paused_us.filter(|_| asked.occasion == occasion::DEMAND);
        Ok(Ok(Checked {
            duration_ns: copied_us.map_or(paused_ns, |us| 1000 * u64::from(us)),
            root_bytes,
            unreadable_pages,
            threads,
            running_threads,
            exit_stack: self.exit_stack,
            suppressions: String::from_utf8_lossy(&suppressions).into_owned(),
            findings: findings(&found, self.control, self.process, contents),
        }))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // What cannot be removed goes with the session's directory.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process has more filters of system calls than the recorder. One that a program sets for itself the process
/// knows of; this finds those that it had before it became this program, or set by an instruction of its own.
fn is_confined(pid: u32) -> bool {
    let filters = |process: &str| -> Option<u64> {
        let status = Status::of(process).ok()?;
        status.field("Seccomp_filters").or_else(|| status.field("Seccomp"))?.parse().ok()
    };
    let its = filters(&pid.to_string()).filter(|&its| its > 0);
    its.is_some_and(|its| filters("self").is_some_and(|own| its > own))
}

/// The user as whom the process opens files, if it is not the recorder's.
fn other_user(pid: u32) -> Option<u32> {
    Status::of(pid).ok()?.uid(Uid::FileSystem).filter(|&its| its != own_uid())
}
