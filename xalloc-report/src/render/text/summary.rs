//! The summary: about ten lines, and what to type next.

use std::cmp::Reverse;
use std::fmt::Write;

use super::faults;
use super::gaps::gaps;
use super::sampling::{plus_minus, plus_minus_bytes, sampled, unseen};
use crate::analysis::{AllocatorView, EndView, ProcessSummary, Summary, ThreadSummary};
use crate::render::escape::{command_line, printable, shell};
use crate::render::number::{bytes, count, counted, percent, span};
use crate::render::style::{ASIDE, COMMAND, DOUBT, FIGURE, HEADING, PLAIN};
use crate::render::table::{Table, left, right};

/// Processes of the table; JSON has all.
const PROCESSES_SHOWN: usize = 20;
/// Threads of the table; JSON has all.
const THREADS_SHOWN: usize = 10;

/// Renders the summary of the trace at `path`; `None`: it is at no place where another command could read it.
#[must_use]
pub fn summary(summary: &Summary, path: Option<&str>) -> String {
    let mut out = String::new();
    heading(&mut out, summary);
    figures(summary).write(&mut out, 2);
    doubts(&mut out, summary);
    faults::append(&mut out, &summary.first_faults, summary.faults);
    if summary.by_process.len() > 1 {
        processes(&mut out, &summary.by_process);
    }
    // One thread a program is what the table above shows.
    if summary.threads > summary.programs {
        threads(&mut out, &summary.by_thread);
    }
    if let Some(path) = path {
        next(&mut out, summary, path);
    }
    out
}

/// How a process ended, in words.
pub(super) fn end(end: Option<EndView>) -> String {
    match end {
        None => "end unknown (the trace was cut)".to_owned(),
        Some(EndView::Exited { status }) => format!("exit status {status}"),
        Some(EndView::Signalled { signal }) => match signal_name(signal) {
            Some(name) => format!("ended by {name} (signal {signal})"),
            None => format!("ended by signal {signal}"),
        },
        Some(EndView::Replaced) => "replaced by exec".to_owned(),
        Some(EndView::Running) => "still running".to_owned(),
        Some(EndView::Vanished) => "end unknown (not a child)".to_owned(),
    }
}

fn heading(out: &mut String, summary: &Summary) {
    let command = match summary.command.as_slice() {
        [] => "(command unknown)".to_owned(),
        words => command_line(words),
    };
    let allocator = match summary.allocator {
        AllocatorView::Core => "xalloc core allocator",
        AllocatorView::System => "the program's own allocator",
        AllocatorView::Mixed => "xalloc core and other allocators",
    };
    let libc =
        if summary.libc.is_empty() { "libc unknown".to_owned() } else { format!("glibc {}", printable(&summary.libc)) };
    // Writing to a String does not fail, here and below.
    let _ = writeln!(out, "{HEADING}{command}{HEADING:#}");
    let length = match summary.duration_ns {
        0 => "length unknown".to_owned(),
        ns => span(ns),
    };
    let _ = writeln!(out, "{ASIDE}{}, {length}, {allocator}, {libc}{ASIDE:#}\n", end(summary.end));
}

fn figures(summary: &Summary) -> Table {
    let mut table = Table::default();
    let mut row = |name: &str, figure: String, detail: String| {
        table.row([left(name, PLAIN), right(figure, FIGURE), left(detail, PLAIN)]);
    };
    let per_s = match summary.duration_ns {
        0 => "rate unknown".to_owned(),
        ns => format!("{} /s", count((summary.allocations as f64 * 1e9 / ns as f64).round() as u64)),
    };
    let failed = match summary.failed_allocations {
        0 => String::new(),
        failed => format!(", {} failed", count(failed)),
    };
    let sampling = summary.sampling.as_ref();
    row(
        "allocated",
        bytes(summary.allocated_bytes),
        format!(
            "{}in {}{} ({per_s}), {}{failed}",
            plus_minus_bytes(sampling, summary.allocated_bytes, |errors| errors.allocated_bytes_error),
            counted(summary.allocations, "allocation"),
            plus_minus(sampling, summary.allocations, |errors| errors.allocations_error),
            counted(summary.frees, "free")
        ),
    );
    let peak = match summary.peak_at_ns {
        Some(at_ns) => format!("live at {}", span(at_ns)),
        None if summary.peak_live_bytes == 0 => "nothing was ever live".to_owned(),
        None => {
            let when = summary.peak_together_in.map_or_else(String::new, |within| {
                format!(", within {} from {}", span(within.length_ns), span(within.from_ns))
            });
            let sum = bytes(summary.peak_live_bytes);
            format!("live together at most{when}; {sum} if each program's own peak is added")
        }
    };
    let error = plus_minus_bytes(sampling, summary.peak_live_bytes, |errors| errors.peak_live_bytes_error);
    row("peak", bytes(summary.peak_together_bytes), format!("{error}{peak}"));
    row(
        "alive at exit",
        bytes(summary.live_at_exit_bytes),
        format!(
            "{}in {}{}",
            plus_minus_bytes(sampling, summary.live_at_exit_bytes, |errors| errors.live_at_exit_bytes_error),
            counted(summary.live_at_exit_blocks, "block"),
            plus_minus(sampling, summary.live_at_exit_blocks, |errors| errors.live_at_exit_blocks_error),
        ),
    );
    let window = match summary.temporary_threshold {
        1 => "its next allocation".to_owned(),
        n => format!("its next {} allocations", count(n.into())),
    };
    let temporary = match summary.allocations {
        0 => "nothing was allocated".to_owned(),
        allocations => format!(
            "{} of allocations, {}; freed by their thread before {window}",
            percent(summary.temporary_allocations, allocations),
            bytes(summary.temporary_bytes)
        ),
    };
    row("temporary", count(summary.temporary_allocations), temporary);
    if let (Some(in_place), Some(moved)) = (summary.reallocs_in_place, summary.reallocs_moved) {
        let detail = format!("{} in place, {} moved", count(in_place), count(moved));
        row("reallocs", count(in_place + moved), detail);
    }
    let dropped = if summary.dropped_events == 0 {
        "none dropped".to_owned()
    } else {
        format!("{} DROPPED", count(summary.dropped_events))
    };
    row(
        "events",
        count(summary.events),
        format!(
            "{dropped}; {}{}, {}, {}",
            counted(summary.processes, "process"),
            if summary.programs > summary.processes {
                format!(" (by exec {})", counted(summary.programs, "program"))
            } else {
                String::new()
            },
            counted(summary.threads, "thread"),
            counted(summary.stacks, "call stack")
        ),
    );
    if summary.buffer_waits > 0 {
        let waited = span(summary.buffer_waited_ns);
        row("waits", count(summary.buffer_waits), format!("for a full buffer, {waited} of all threads' time"));
    }
    table
}

/// What is missing or had to be repaired; nothing where nothing is.
fn doubts(out: &mut String, summary: &Summary) {
    let estimated = summary.sampling.as_ref().map(|sampling| {
        let known = counted(sampling.recorded_allocations, "recorded allocation");
        format!("{}, {known}; ± is one standard error; {}", sampled(sampling.mean_interval_bytes), unseen(sampling))
    });
    let mut doubts: Vec<_> = estimated.into_iter().collect();
    doubts.extend(gaps(summary.salvage.as_deref(), &summary.losses));
    if !summary.symbolized {
        let why = if summary.salvage.is_some() {
            "the recording ended before they were named"
        } else {
            "recorded without symbols"
        };
        doubts.push(format!("functions unknown: {why}"));
    } else if summary.unknown_frames > 0 {
        let mut modules: Vec<_> = summary
            .modules_without_symbols
            .iter()
            .take(3)
            .map(|path| printable(path.rsplit('/').next().unwrap_or(path)).into_owned())
            .collect();
        let more = summary.modules_without_symbols.len().saturating_sub(3);
        if more > 0 {
            modules.push(format!("{more} more"));
        }
        doubts.push(format!(
            "{} without a function, no symbols in {}",
            counted(summary.unknown_frames, "code location"),
            modules.join(", ")
        ));
    }
    if summary.allocations == 0 && summary.processes > 0 {
        doubts.push(
            "no call of malloc was seen: a program that is linked with an allocator of its own is served by that one"
                .to_owned(),
        );
    }
    if summary.unknown_stacks > 0 {
        doubts.push(format!(
            "{} with unknown call stack: the stack table was full",
            counted(summary.unknown_stacks, "allocation")
        ));
    }
    if summary.unknown_frees > 0 {
        doubts.push(format!(
            "{} of memory from before the recording, or foreign",
            counted(summary.unknown_frees, "free")
        ));
    }
    if summary.implied_frees > 0 {
        doubts.push(format!("{} not seen: the address was allocated again", counted(summary.implied_frees, "free")));
    }
    if summary.late_events > 0 {
        doubts.push(format!("{} arrived too late to be put in order", counted(summary.late_events, "event")));
    }
    if summary.programs < summary.programs_in_trace {
        doubts.push(format!("{} of {} shown", count(summary.programs), counted(summary.programs_in_trace, "program")));
    }
    for doubt in doubts {
        let _ = writeln!(out, "  {DOUBT}note{DOUBT:#}  {doubt}");
    }
}

/// Names of the signals that end programs, as `kill -l` has them.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// The threads that allocated most bytes.
fn threads(out: &mut String, threads: &[ThreadSummary]) {
    let mut busiest: Vec<_> = threads.iter().collect();
    busiest.sort_by_key(|thread| Reverse(thread.allocated_bytes));
    let mut table = Table::default();
    let titles = ["tid", "allocations", "allocated", "frees", "of others' blocks", "temporary", "alive at exit"];
    table.row(titles.map(|title| right(title, ASIDE)).into_iter().chain([left("thread", ASIDE)]));
    for thread in busiest.iter().take(THREADS_SHOWN) {
        table.row([
            right(thread.thread.tid.to_string(), PLAIN),
            right(count(thread.allocations), PLAIN),
            right(bytes(thread.allocated_bytes), PLAIN),
            right(count(thread.frees), PLAIN),
            right(count(thread.foreign_frees), PLAIN),
            right(count(thread.temporary_allocations), PLAIN),
            right(bytes(thread.live_at_exit_bytes), PLAIN),
            left(printable(&thread.thread.name), PLAIN),
        ]);
    }
    out.push('\n');
    table.write(out, 2);
    more(out, threads.len().saturating_sub(THREADS_SHOWN), "thread");
}

/// Says that a table was cut.
fn more(out: &mut String, hidden: usize, noun: &str) {
    if hidden > 0 {
        let _ = writeln!(out, "  {ASIDE}… {} more; --format json lists all{ASIDE:#}", counted(hidden as u64, noun));
    }
}

fn processes(out: &mut String, processes: &[ProcessSummary]) {
    let mut table = Table::default();
    let titles = ["#", "pid", "parent", "allocations", "allocated", "peak", "alive at exit", "inherited"];
    table.row(titles.map(|title| right(title, ASIDE)).into_iter().chain([left("program, end", ASIDE)]));
    for process in processes.iter().take(PROCESSES_SHOWN) {
        let exe = process.exe.rsplit('/').next().unwrap_or(&process.exe);
        table.row([
            right(process.number.to_string(), PLAIN),
            right(process.pid.to_string(), PLAIN),
            right(process.parent_pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()), PLAIN),
            right(count(process.allocations), PLAIN),
            right(bytes(process.allocated_bytes), PLAIN),
            right(bytes(process.peak_live_bytes), PLAIN),
            right(bytes(process.live_at_exit_bytes), PLAIN),
            right(bytes(process.inherited_bytes), PLAIN),
            left(format!("{}, {}", printable(exe), end(Some(process.end))), PLAIN),
        ]);
    }
    out.push('\n');
    table.write(out, 2);
    more(out, processes.len().saturating_sub(PROCESSES_SHOWN), "program");
}

/// The commands that this recording suggests.
fn next(out: &mut String, summary: &Summary, path: &str) {
    let path = shell(path);
    if summary.allocations == 0 {
        // Every report on it would be empty.
        return;
    }
    let mut commands = vec![format!("flamegraph {path} --metric peak -o peak.svg")];
    if summary.live_at_exit_blocks > 0 {
        commands.push(format!("leaks {path}"));
    }
    let temporary = summary.temporary_allocations * 2 > summary.allocations;
    commands.push(format!("top {path} --by {}", if temporary { "temporary" } else { "bytes" }));
    out.push_str("\nnext\n");
    for command in commands {
        let _ = writeln!(out, "  {COMMAND}xalloc-report {command}{COMMAND:#}");
    }
}
