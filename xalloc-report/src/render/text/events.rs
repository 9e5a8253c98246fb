//! Events as lines that tell the story.

use crate::analysis::{EventView, What};
use crate::render::escape::printable;
use crate::render::number::{count, exact_bytes, instant, span};
use crate::render::style::{ASIDE, FUNCTION, HEADING, PLAIN};

use super::frames::place;

/// Width of the column of verbs, and of the story before the function.
const VERB_COLUMNS: usize = 9;
const STORY_COLUMNS: usize = 60;

/// The line above the events of one of several processes.
#[must_use]
pub fn process_heading(number: u32, pid: u32, exe: &str) -> String {
    format!("{HEADING}process {number}, pid {pid}, {}{HEADING:#}\n", printable(exe))
}

/// Renders one event as a line.
#[must_use]
pub fn event(event: &EventView) -> String {
    let (verb, story) = story(&event.what);
    let arena = match event.arena {
        Some(arena) if arena > 0 => format!(" (arena {arena})"),
        Some(_) | None => String::new(),
    };
    let story = format!("{story}{arena}");
    let by = event.by.as_ref().map_or_else(String::new, |frame| {
        let name = frame.name();
        let place =
            if frame.function.is_some() { format!("  {ASIDE}{}{ASIDE:#}", place(frame)) } else { String::new() };
        format!("  {FUNCTION}{}{FUNCTION:#}{place}", printable(&name))
    });
    let story = if by.is_empty() { story } else { format!("{story:STORY_COLUMNS$}") };
    let line = format!(
        "{ASIDE}{:>13}  t{:<2}{ASIDE:#} {PLAIN}{verb:VERB_COLUMNS$}{PLAIN:#} {story}{by}",
        instant(event.at_ns),
        event.thread
    );
    format!("{}\n", line.trim_end())
}

/// The verb and what it did.
fn story(what: &What) -> (&'static str, String) {
    let b = exact_bytes;
    match what {
        What::Alloc { addr, size, slack, call } => {
            ("alloc", format!("{addr} {} by {call}, {} usable", b(*size), b(size.saturating_add((*slack).into()))))
        }
        What::AllocFailed { size, call } => ("failed", format!("{call} of {}", b(*size))),
        What::Free { addr, size, age_ns } => ("free", format!("{addr} {} {}", b(*size), age(*age_ns))),
        What::FreeUnknown { addr } => ("free", format!("{addr} which no recorded allocation made")),
        What::ReallocBegin { addr, size } => ("realloc", format!("{addr} {} begins", b(*size))),
        What::ReallocUndo { addr, size } => ("realloc", format!("{addr} {} lives on, unchanged", b(*size))),
        What::Brk { from, to, size, rule } => ("brk", format!("{from} -> {to} +{}, {}", b(*size), growth(rule))),
        What::Trim { from, to, size } => ("trim", format!("{from} -> {to} -{}", b(*size))),
        What::Release { addr, size } => ("release", format!("{addr} {} of free pages to the system", b(*size))),
        What::Mmap { addr, size } => ("mmap", format!("{addr} +{} for one chunk", b(*size))),
        What::Munmap { addr, size } => ("munmap", format!("{addr} -{} of one chunk", b(*size))),
        What::MremapFrom { addr, size } => ("mremap", format!("{addr} {} from here", b(*size))),
        What::MremapTo { addr, size } => ("mremap", format!("{addr} {} to here", b(*size))),
        What::Split { addr, size, rest, from_top } => {
            let source = if *from_top { "top" } else { "a free chunk" };
            ("split", format!("{addr} +{} from {source}, {} remain", b(*size), b(*rest)))
        }
        What::Coalesce { addr, size, freed, previous, next, top } => {
            let with = match (previous, next) {
                (true, true) => "with both neighbours",
                (true, false) => "with the one below",
                (false, true) => "with the one above",
                (false, false) => "with none",
            };
            let into = if *top { ", now top" } else { "" };
            ("coalesce", format!("{addr} {} of {} freed {with}{into}", b(*size), b(*freed)))
        }
        What::Bin { addr, size, bin, .. } if bin == "cache" => {
            ("bin", format!("{addr} {} to the thread's cache", b(*size)))
        }
        What::Bin { addr, size, bin, index } => ("bin", format!("{addr} {} to {bin} bin {index}", b(*size))),
        What::CacheBirth { addr, size } => ("tcache", format!("{addr} {} hold a thread's cache", b(*size))),
        What::TcacheFlush { chunks, size } => {
            ("tcache", format!("{} chunks, {} flushed", count((*chunks).into()), b(*size)))
        }
        What::Consolidate { chunks, size } => {
            ("consol.", format!("{} fast chunks, {} to the unsorted bin", count((*chunks).into()), b(*size)))
        }
        What::ArenaBirth { addr } => ("arena", format!("{addr} made")),
        What::ArenaIdle => ("arena", "idle: its last thread ended".to_owned()),
        What::ArenaAttach => ("arena", "attached to this thread".to_owned()),
        What::HeapBirth { addr, size } => ("heap", format!("{addr} +{} mapped", b(*size))),
        What::HeapResize { addr, size, rule } => ("heap", format!("{addr} now {}, {}", b(*size), growth(rule))),
        What::HeapDeath { addr, size } => ("heap", format!("{addr} -{} unmapped", b(*size))),
        What::Threshold { size } => ("threshold", format!("mmap from {} on", b(*size))),
        What::ProgramMmap { addr, size, protection, shared, path } => {
            let shared = if *shared { " shared" } else { "" };
            let path = if path.is_empty() { "anonymous".into() } else { printable(path) };
            ("mmap", format!("{addr} +{} {protection}{shared} {path}, by the program", b(*size)))
        }
        What::ProgramMunmap { addr, size } => ("munmap", format!("{addr} -{}, by the program", b(*size))),
        What::ProgramMremap { addr, size, to, to_size } => {
            ("mremap", format!("{addr} {} -> {to} {}, by the program", b(*size), b(*to_size)))
        }
        What::ProgramMadvise { addr, size, advice } => ("madvise", format!("{addr} {} {advice}", b(*size))),
        What::ProgramBrk { from, to } => ("brk", format!("{from} -> {to}, by the program")),
        What::Aligned { align } => ("align", format!("the next block to {}", b(*align))),
        What::MallocTrim { pad } => ("trim", format!("asked for by malloc_trim({pad})")),
        What::Mallopt { parameter, value } => ("mallopt", format!("{parameter} = {value}")),
        What::Ignore { addr } => ("ignore", format!("{addr} in checks for leaks")),
        What::Copied => ("copied", "to be checked for leaks".to_owned()),
        What::Passed => ("passed", "an allocation that was not recorded".to_owned()),
        What::Tunable { name, value } => ("tunable", format!("{name} = {value}, by the environment")),
        What::ThreadStart => ("thread", "begins".to_owned()),
        What::ThreadExit => ("thread", "ends".to_owned()),
        What::Fork => ("fork", String::new()),
        What::Exec { path } => ("exec", printable(path).into_owned()),
        What::ExecFailed => ("exec", "failed, the program goes on".to_owned()),
        What::Exit { status } => ("exit", format!("status {status}")),
        What::Marker { text } => ("marker", printable(text).into_owned()),
        What::Lost { events, reason } => ("LOST", format!("{} events of this thread: {reason}", count(*events))),
        What::Fault { addr, fault } => ("FAULT", format!("{addr} refused: {fault}")),
        What::Dlclose => ("dlclose", "modules were unloaded".to_owned()),
    }
}

/// How long a block lived; times are known to the microsecond.
fn age(age_ns: u64) -> String {
    if age_ns == 0 { "within 1 µs".to_owned() } else { format!("after {}", span(age_ns)) }
}

/// A growth rule in words.
fn growth(rule: &str) -> &str {
    match rule {
        "shrink" => "shrunk",
        "first" => "the arena's first memory",
        "no-fit" => "no free chunk was large enough",
        "break-blocked" => "the break could not move",
        "heap-full" => "the heap before was full",
        other => other,
    }
}
