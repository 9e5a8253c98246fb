//! The library as the loader sees it.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "a test looks for some events")]

use std::collections::BTreeSet;
use std::process::Command;

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

fn tool(command: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(command).args(arguments).arg(support::library()).output().expect("binutils are installed");
    assert!(output.status.success(), "{command} {arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_library_exports_what_the_list_says_and_nothing_else() {
    let symbols = tool("nm", &["-D", "--defined-only"]);
    let exported: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let listed: BTreeSet<&str> = include_str!("../exports.txt").lines().collect();
    assert_eq!(exported, listed);
}

#[test]
fn the_library_needs_libc_alone_and_no_thread_local_segment() {
    let dynamic = tool("readelf", &["-dW"]);
    let needed: Vec<&str> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert_eq!(needed.len(), 1, "{needed:?}");
    assert!(needed[0].contains("[libc.so.6]"));
    assert!(dynamic.contains("BIND_NOW"));
    assert!(!dynamic.contains("TEXTREL"));
    let segments = tool("readelf", &["-lW"]);
    assert!(!segments.lines().any(|line| line.trim_start().starts_with("TLS ")));
    let stack = segments.lines().find(|line| line.contains("GNU_STACK")).expect("a stack segment");
    assert!(!stack.contains("RWE"), "{stack}");
}

/// Newest glibc whose symbols may be asked for: what the build host's `pthread_*` are called since they moved to libc.
const NEWEST: (u32, u32) = (2, 34);

#[test]
fn every_undefined_symbol_is_weak_or_of_an_old_enough_libc() {
    for line in tool("nm", &["-D", "--undefined-only"]).lines() {
        let mut words = line.split_whitespace();
        let (kind, symbol) = (words.next().expect("a kind"), words.next().expect("a name"));
        if kind == "w" {
            continue;
        }
        let version = symbol.split_once("@GLIBC_").unwrap_or_else(|| panic!("{symbol} has no version")).1;
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().expect("a number"));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        assert!(version <= NEWEST, "{symbol}");
    }
}
