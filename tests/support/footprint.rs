//! What a plain program's heap takes from the system: its own system calls, by strace.

use std::process::Command;

use super::{Load, tool};

/// The heap of a program that ran without us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footprint {
    /// Most bytes between the break's beginning and its end and in malloc's mappings, at once.
    pub(crate) peak_bytes: u64,
    /// The same at the end.
    pub(crate) end_bytes: u64,
}

/// Runs a single-threaded program as it is and follows its break and the anonymous mappings that look like malloc's:
/// private, readable and writable, at a place of the kernel's choice, made after the break moved first.
/// `None`: strace is not there.
pub(crate) fn footprint(load: &Load) -> Option<Footprint> {
    let folder = tempfile::tempdir().expect("a folder for the calls");
    let log = folder.path().join("calls");
    let mut strace = Command::new(tool("strace")?);
    strace.args(["-e", "trace=brk,mmap,munmap,mremap", "-e", "signal=none", "-o"]).arg(&log);
    let output = load.behind(strace);
    let calls = std::fs::read_to_string(&log).expect("strace wrote the calls");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(of_calls(&calls))
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

fn of_calls(calls: &str) -> Footprint {
    let (mut first, mut end) = (None, 0);
    let mut has_moved = false;
    let mut mappings: Vec<(u64, u64)> = Vec::new();
    let mut found = Footprint { peak_bytes: 0, end_bytes: 0 };
    for line in calls.lines() {
        let Some((call, result)) = line.rsplit_once(" = ") else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let arguments: Vec<&str> = arguments.trim_end().trim_end_matches(')').split(", ").collect();
        let result = result.split(' ').next().unwrap_or_default();
        let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<u64>().ok());
        match name {
            "brk" => {
                let Some(now) = hexadecimal(result) else { continue };
                has_moved |= first.is_some_and(|first| now != first);
                first.get_or_insert(now);
                end = now;
            }
            "mmap" if has_moved => {
                let is_mallocs = arguments[..4.min(arguments.len())]
                    .iter()
                    .zip(["NULL", "", "PROT_READ|PROT_WRITE", "MAP_PRIVATE|MAP_ANONYMOUS"])
                    .all(|(is, wanted)| wanted.is_empty() || *is == wanted);
                if let (true, Some(addr), Some(len)) = (is_mallocs, hexadecimal(result), number(1)) {
                    mappings.push((addr, len));
                }
            }
            "munmap" => {
                let addr = arguments.first().and_then(|text| hexadecimal(text));
                mappings.retain(|(at, _)| Some(*at) != addr);
            }
            "mremap" => {
                let addr = arguments.first().and_then(|text| hexadecimal(text));
                if let (Some(to), Some(len)) = (hexadecimal(result), number(2))
                    && let Some(mapping) = mappings.iter_mut().find(|(at, _)| Some(*at) == addr)
                {
                    *mapping = (to, len);
                }
            }
            _ => {}
        }
        let mapped: u64 = mappings.iter().map(|(_, len)| len).sum();
        found.end_bytes = first.map_or(0, |first| end.saturating_sub(first)) + mapped;
        found.peak_bytes = found.peak_bytes.max(found.end_bytes);
    }
    found
}
