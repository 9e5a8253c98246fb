//! What real programs leak, beside what LeakSanitizer and memcheck say of the same.
//!
//! `docs/leak-programs.md` has the table; `XALLOC_WRITE_GOLDEN=1` writes it anew. Its figures are those of the versions that
//! were installed, so that the test compares the three tools with each other and not with it.

#[path = "support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::victims::library;
use support::{Load, number, tool};

/// Bytes and blocks that are lost for good: definite, cycle and indirect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lost {
    bytes: u64,
    blocks: u64,
}

/// A program and what it is given to do.
struct Real {
    name: &'static str,
    load: Load,
}

/// Those that are installed; the others were said to be skipped. `folder` is theirs to write to.
fn programs(folder: &Path) -> Vec<Real> {
    let source = folder.join("work.c");
    fs::write(
        &source,
        "struct s { struct s *next; int n; };\nint sum(struct s *s) { return s ? s->n + sum(s->next) : 0; }",
    )
    .expect("a source");
    let source = source.to_str().expect("a path in UTF-8");
    let perl =
        r#"my %h = map { $_ => [$_, "x" x $_] } 1 .. 200; my $ring = {}; $ring->{me} = $ring; print sort keys %h"#;
    let bash = "f() { local x=$1; echo ${x#a}; }; for i in 1 2 3; do f a$i; done; a=(1 2 3); echo ${a[@]} | cat";
    let python = "import json, re; json.dumps({i: [i] * i for i in range(50)}); re.findall('a+', 'aaa')";
    let sql = "create table t(a, b); insert into t select value, 2 * value from generate_series(1, 200); select sum(b) from t";
    let git = ["-C", env!("CARGO_MANIFEST_DIR"), "diff", "--no-index", "--stat", "src", "tests"];
    let of = |name, words: &[&str]| tool(name).map(|program| Real { name, load: Load::new(program, words) });
    let compiler = || {
        let output = Command::new("cc").arg("-print-prog-name=cc1").output().ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        if !path.is_absolute() {
            println!("skipped: cc is not gcc");
            return None;
        }
        Some(Real { name: "cc1", load: Load::new(path, &["-quiet", "-O1", source, "-o", "/dev/null"]) })
    };
    let rust =
        Real { name: "xalloc-report", load: Load::new(env!("CARGO_BIN_EXE_xalloc-report"), &["generate", "schema"]) };
    let python = of("python3", &["-c", python])
        .map(|real| Real { load: real.load.env("PYTHONMALLOC", "malloc"), name: real.name });
    let all = [
        of("perl", &["-e", perl]),
        of("gcc", &["-O1", "-S", "-o", "/dev/null", source]),
        compiler(),
        of("git", &git),
        of("bash", &["-c", bash]),
        python,
        of("sqlite3", &[":memory:", sql]),
        Some(rust),
    ];
    all.into_iter().flatten().collect()
}

/// Of the program itself; what its children leak is another process's.
fn xalloc(load: &Load) -> Lost {
    let leaks = load.record().json("leaks", &["--process", "0"]);
    assert_eq!(leaks["checked"], true, "{}", leaks["not_checked_reason"]);
    let sum =
        |of: &str| ["definite", "cycle", "indirect"].iter().map(|class| number(&leaks["totals"][class], of)).sum();
    Lost { bytes: sum("bytes"), blocks: sum("blocks") }
}

/// `None`: it failed, or more than one process told of leaks, which does not say which is whose.
fn leak_sanitizer(load: &Load, preload: &str) -> Option<Lost> {
    let mut command = Command::new("timeout");
    command.args(["120", "env", &format!("LD_PRELOAD={preload}")]);
    let output = load.behind(command);
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("LeakSanitizer has encountered") || text.contains("DEADLYSIGNAL") {
        return None;
    }
    let mut summaries = text.lines().filter_map(|line| line.strip_prefix("SUMMARY: LeakSanitizer: "));
    let Some(first) = summaries.next() else { return Some(Lost { bytes: 0, blocks: 0 }) };
    let mut numbers = first.split(' ').filter_map(|word| word.parse().ok());
    let lost = Lost { bytes: numbers.next()?, blocks: numbers.next()? };
    summaries.next().is_none().then_some(lost)
}

/// `None`: it failed.
fn memcheck(load: &Load, valgrind: &Path, log: &Path) -> Option<Lost> {
    let mut command = Command::new("timeout");
    command.arg("300").arg(valgrind).args(["--leak-check=full", "--num-callers=2"]);
    load.behind({
        command.arg(format!("--log-file={}", log.display()));
        command
    });
    let text = fs::read_to_string(log).ok()?;
    let mut lost = Lost { bytes: 0, blocks: 0 };
    for line in text.lines().filter(|line| line.contains("definitely lost: ") || line.contains("indirectly lost: ")) {
        let (_, figures) = line.split_once("lost: ")?;
        let (bytes, blocks) = figures.split_once(" bytes in ")?;
        let number = |text: &str| text.replace(',', "").parse::<u64>().ok();
        lost.bytes += number(bytes)?;
        lost.blocks += number(blocks.split(' ').next()?)?;
    }
    text.contains("ERROR SUMMARY").then_some(lost)
}

#[test]
fn where_leak_sanitizer_and_memcheck_agree_on_a_real_program_xalloc_says_the_same() {
    let Some(valgrind) = tool("valgrind") else { return };
    let output = Command::new("cc").arg("-print-file-name=liblsan.so").output().expect("a C compiler is installed");
    let sanitizer = String::from_utf8(output.stdout).expect("a path in UTF-8").trim().to_owned();
    if !Path::new(&sanitizer).is_absolute() {
        println!("skipped: the compiler has no LeakSanitizer as a library of its own");
        return;
    }
    let preload = format!("{sanitizer} {}", library("leaks/start_lsan.c", "libstart_lsan.so").display());
    let folder = tempfile::tempdir().expect("a folder");
    let mut table = String::new();
    let mut wrong = String::new();
    let mut agreed = 0;
    for Real { name, load } in programs(folder.path()) {
        let said = [
            Some(xalloc(&load)),
            leak_sanitizer(&load, &preload),
            memcheck(&load, &valgrind, &folder.path().join("memcheck")),
        ];
        let [ours, first, second] = said;
        let agree = first.is_some() && first == second;
        agreed += u32::from(agree);
        if agree && ours != first {
            let _ = writeln!(wrong, "{name}: they say {first:?}, xalloc {ours:?}");
        }
        let cells = said.map(|lost| {
            lost.map_or_else(|| "no answer".to_owned(), |Lost { bytes, blocks }| format!("{bytes} B in {blocks}"))
        });
        let _ = writeln!(table, "| {name} | {} | {} |", cells.join(" | "), if agree { "yes" } else { "no" });
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong}");
    assert!(agreed >= 3, "they agree on {agreed} programs only:\n{table}");
    if std::env::var_os("XALLOC_WRITE_GOLDEN").is_some() {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/leak-programs.md");
        fs::write(place, document(&table)).expect("docs can be written");
    }
}

fn document(table: &str) -> String {
    format!(
        "# What real programs leak\n\n\
         Definite, cycle and indirect together, of one process at its end. Written by `tests/leak_programs.rs`, which runs each\n\
         program under the three tools as they are installed and fails where LeakSanitizer (preloaded, `__lsan_init` called) and\n\
         memcheck agree and xalloc says something else. *No answer*: the tool failed, or told of several processes at once.\n\
         What each is given to do stands in the test; small programs with known leaks: [leak-truth.md](leak-truth.md).\n\n\
         | program | xalloc | LeakSanitizer | memcheck | those two agree |\n|---|---|---|---|---|\n{table}"
    )
}
