//! Traces of every format version are read to the same figures for ever.
//!
//! `tests/golden/trace` holds recordings of small programs of `tests/programs`, each with what the commands said of it
//! when it was made. A later version may say more: what was said then still holds, word for word. Nothing here is ever
//! written anew for a format that has been released; `XALLOC_WRITE_GOLDEN=1` writes what the commands say into the
//! `.json` files, for figures that were wrong, and the diff says which.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use support::xalloc;

/// The commands whose answers are kept, with their options.
const COMMANDS: [(&str, &[&str]); 5] =
    [("summary", &[]), ("top", &["--by", "peak"]), ("histogram", &["--of", "usable"]), ("leaks", &[]), ("events", &[])];

fn traces() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/trace");
    let entries = fs::read_dir(&folder).expect("tests/golden/trace").map(|entry| entry.expect("a readable folder"));
    let mut traces: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    traces.retain(|path| path.extension().is_some_and(|is| is == "xtrace"));
    traces.sort();
    traces
}

/// What the commands say of a trace.
fn said_of(trace: &Path) -> Value {
    let mut said = Map::new();
    for (command, options) in COMMANDS {
        let output = xalloc().arg(command).arg(trace).args(options).args(["--format", "json"]).output();
        let output = output.expect("xalloc-report starts");
        assert!(output.status.success(), "{}: {}", trace.display(), String::from_utf8_lossy(&output.stderr));
        let mut document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        said.insert(command.to_owned(), document["result"].take());
    }
    said.into()
}

/// Everything in `kept` is in `said`; an object may have gained members.
fn assert_still_holds(kept: &Value, said: &Value, place: &str) {
    match (kept, said) {
        (Value::Object(kept), Value::Object(said)) => {
            for (name, kept) in kept {
                let said = said.get(name).unwrap_or_else(|| panic!("{place}.{name} is gone"));
                assert_still_holds(kept, said, &format!("{place}.{name}"));
            }
        }
        (Value::Array(kept), Value::Array(said)) => {
            assert_eq!(kept.len(), said.len(), "{place}");
            for (at, (kept, said)) in kept.iter().zip(said).enumerate() {
                assert_still_holds(kept, said, &format!("{place}[{at}]"));
            }
        }
        _ => assert_eq!(kept, said, "{place}"),
    }
}

#[test]
fn every_kept_trace_is_read_to_the_figures_that_it_was_kept_with() {
    let traces = traces();
    for version in ["1.0-", "1.2-", "2.2-", "3.0-", "4.0-"] {
        let is_kept = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(version));
        assert!(traces.iter().any(is_kept), "{version}");
    }
    for trace in traces {
        let (kept, said) = (trace.with_extension("json"), said_of(&trace));
        if std::env::var_os("XALLOC_WRITE_GOLDEN").is_some() {
            let text = serde_json::to_string_pretty(&said).expect("JSON") + "\n";
            fs::write(&kept, text).expect("tests/golden/trace is writable");
        }
        let text = fs::read_to_string(&kept).unwrap_or_else(|error| panic!("{}: {error}", kept.display()));
        let kept: Value = serde_json::from_str(&text).expect("JSON");
        assert_still_holds(&kept, &said, &trace.file_name().unwrap_or_default().to_string_lossy());
    }
}
