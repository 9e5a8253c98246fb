//! Verdicts on programs whose leaks are known, beside those of LeakSanitizer and memcheck.
//!
//! `docs/leak-truth.md` is the table of all three; `XALLOC_WRITE_GOLDEN=1` writes it anew, and the diff says what changed.
//! The programs of one kind are recorded together, as children of a shell: names are then looked up once.

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use support::twins::{Case, FILES, Truth, Twin, cases, is_leaked};
use support::victims::{library, program};
use support::{tool, xalloc};
use xalloc_report::trace::{ScanOutcome, Trace};

/// Sizes of the block that a program is about, which needs a few bytes more where an object has words of its own; a string
/// of libstdc++ before C++11 takes two pages less malloc's words.
fn is_subject(size_bytes: u64) -> bool {
    (7777..=7808).contains(&size_bytes) || size_bytes == 8160
}

/// A program to run.
#[derive(Clone, Debug)]
struct Run {
    file: &'static str,
    program: PathBuf,
    case: String,
    twin: Twin,
    truth: Truth,
}

impl Run {
    /// How it is named in a table and in a command line.
    fn key(&self) -> (&'static str, String, Twin) {
        (self.file, self.case.clone(), self.twin)
    }

    fn command(&self) -> [&str; 3] {
        [self.program.to_str().expect("a path in UTF-8"), &self.case, self.twin.argument()]
    }

    /// Whether a check must pass: nothing of it is said to be leaked, and it is looked at.
    fn is_clean(&self) -> bool {
        !is_leaked(&self.truth.said) && self.truth.said != "unchecked"
    }
}

/// Does `work` for every one of `items`, several at a time.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = Mutex::new(0..items.len());
    let done = Mutex::new(BTreeMap::new());
    let workers = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().expect("nobody panicked").next() else { return };
                    let result = work(&items[at]);
                    done.lock().expect("nobody panicked").insert(at, result);
                }
            });
        }
    });
    done.into_inner().expect("nobody panicked").into_values().collect()
}

/// Every program, built.
fn runs() -> Vec<Run> {
    library("leaks/holder.c", "libholder.so");
    let programs = each(&FILES, |file| program(file));
    let mut runs = Vec::new();
    for (&file, program) in FILES.iter().zip(programs) {
        for case in cases(file) {
            for (twin, truth) in Twin::BOTH.into_iter().zip(case.truth) {
                let Some(truth) = truth else { continue };
                runs.push(Run { file, program: program.clone(), case: case.name.clone(), twin, truth });
            }
        }
    }
    runs
}

/// What a shell does with the lists of commands in the files of its arguments: those of each one behind another, two files
/// at once.
const SHELL: &str = "ulimit -c 0\n\
    run() { while read -r program case twin; do \"$program\" \"$case\" \"$twin\" </dev/null >/dev/null 2>&1; done <\"$1\"; }\n\
    run \"$1\" & run \"$2\" & wait";

/// Records the programs and says which classes their blocks have, by command; and the trace.
fn record(runs: &[&Run], folder: &Path, name: &str) -> (BTreeMap<Vec<String>, BTreeSet<String>>, PathBuf) {
    let (first, second) = runs.split_at(runs.len() / 2);
    let lists = [first, second].map(|runs| runs.iter().map(|run| run.command().join(" ") + "\n").collect::<String>());
    let files = ["1", "2"].map(|nth| folder.join(format!("{name}.{nth}")));
    for (file, list) in files.iter().zip(lists) {
        fs::write(file, list).expect("a list of commands");
    }
    let trace = folder.join(format!("{name}.xtrace"));
    let output =
        xalloc().args(["record", "-o"]).arg(&trace).args(["--", "/bin/sh", "-c", SHELL, "sh"]).args(&files).output();
    let output = output.expect("xalloc-report starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let opened = Trace::open(&trace).expect("the trace that was recorded");
    let contents = opened.contents();
    let mut said: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for (number, process) in contents.processes.iter().enumerate() {
        let classes = said.entry(process.command.clone()).or_default();
        let mut scans = contents.scans.iter().filter(|scan| scan.process.0 as usize == number);
        let Some(ScanOutcome::Checked(checked)) = scans.next_back().map(|scan| &scan.outcome) else {
            classes.insert("unchecked".to_owned());
            continue;
        };
        let of_subject = checked.findings.iter().filter(|finding| is_subject(finding.bytes / finding.blocks.max(1)));
        classes.extend(of_subject.map(|finding| finding.class.name().to_owned()));
    }
    (said, trace)
}

#[test]
fn every_program_gets_the_verdict_that_is_true() {
    let runs = runs();
    assert!(runs.len() >= 160, "{} twins are few", runs.len());
    let folder = tempfile::tempdir().expect("a folder for the traces");
    let (clean, others): (Vec<&Run>, Vec<&Run>) = runs.iter().partition(|run| run.is_clean());
    let (mut said, clean_trace) = record(&clean, folder.path(), "clean");
    let (of_others, _) = record(&others, folder.path(), "others");
    said.extend(of_others);
    let mut wrong = String::new();
    for run in &runs {
        let classes = said.get(run.command().map(str::to_owned).as_slice()).cloned().unwrap_or_default();
        let classes =
            if classes.is_empty() { "freed".to_owned() } else { classes.into_iter().collect::<Vec<_>>().join("+") };
        if classes != run.truth.said {
            let _ = writeln!(wrong, "{:?}: {} is true, {classes} was said", run.key(), run.truth.said);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let check = xalloc().arg("check").arg(&clean_trace).output().expect("xalloc-report starts");
    let told = String::from_utf8_lossy(&check.stderr) + String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "a check of the clean programs {}:\n{told}", check.status);
}

/// The other tools, as they are installed.
struct Peers {
    /// What is preloaded: the sanitizer, and what starts it.
    sanitizer: String,
    valgrind: PathBuf,
    /// What they say of themselves.
    versions: String,
}

impl Peers {
    /// `None`: one is missing, which was said.
    fn installed() -> Option<Peers> {
        let valgrind = tool("valgrind")?;
        let line = |command: &mut Command| {
            let output = command.output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            Some(text.lines().next()?.trim().to_owned())
        };
        let library_at = line(Command::new("cc").arg("-print-file-name=liblsan.so"))?;
        if !Path::new(&library_at).is_absolute() {
            println!("skipped: the compiler has no LeakSanitizer as a library of its own");
            return None;
        }
        let compiler = line(Command::new("cc").arg("-dumpfullversion"))?;
        let versions = format!("gcc {compiler}, {}", line(Command::new(&valgrind).arg("--version"))?);
        let starter = library("leaks/start_lsan.c", "libstart_lsan.so");
        Some(Peers { sanitizer: format!("{library_at} {}", starter.display()), valgrind, versions })
    }

    fn sanitizer(&self, run: &Run) -> String {
        let [program, case, twin] = run.command();
        let mut command = Command::new("timeout");
        // The shell is not to be looked at.
        let preload = format!("LD_PRELOAD={}", self.sanitizer);
        let output = command.args(["60", "env", &preload, program, case, twin]).output().expect("coreutils");
        let text = String::from_utf8_lossy(&output.stderr);
        let mut said = BTreeSet::new();
        for line in text.lines() {
            let (class, rest) = match (line.strip_prefix("Direct leak of "), line.strip_prefix("Indirect leak of ")) {
                (Some(rest), _) => ("leak", rest),
                (_, Some(rest)) => ("indirect", rest),
                _ => continue,
            };
            let mut numbers = rest.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            if let (Some(bytes), Some(blocks)) = (numbers.next(), numbers.next())
                && is_subject(bytes / blocks.max(1))
            {
                said.insert(class);
            }
        }
        let failed = text.contains("LeakSanitizer has encountered") || text.contains("LeakSanitizer:DEADLYSIGNAL");
        if failed { "error".to_owned() } else { joined(said) }
    }

    fn memcheck(&self, run: &Run) -> String {
        let mut command = Command::new("timeout");
        command.arg("60").arg(&self.valgrind);
        command.args(["-q", "--leak-check=full", "--show-leak-kinds=all", "--num-callers=2"]);
        let output = command.args(run.command()).output().expect("coreutils");
        let text = String::from_utf8_lossy(&output.stderr);
        let mut said = BTreeSet::new();
        for line in text.lines() {
            let Some((figures, rest)) = line.split_once(" bytes in ") else { continue };
            let Some((blocks, class)) = rest.split_once(" blocks are ") else { continue };
            // `==pid== 7,777 bytes` or `==pid== 7,809 (7,777 direct, 32 indirect) bytes`.
            let own =
                figures.split_once('(').map_or(figures, |(_, direct)| direct.split(' ').next().unwrap_or_default());
            let number = |text: &str| text.rsplit(' ').next()?.replace(',', "").parse::<u64>().ok();
            if number(own).zip(number(blocks)).is_some_and(|(bytes, blocks)| is_subject(bytes / blocks.max(1))) {
                said.insert(match class.split(' ').next() {
                    Some("definitely") => "definite",
                    Some("indirectly") => "indirect",
                    Some("possibly") => "possible",
                    _ => "reachable",
                });
            }
        }
        joined(said)
    }
}

fn joined(said: BTreeSet<&str>) -> String {
    if said.is_empty() { "-".to_owned() } else { said.into_iter().collect::<Vec<_>>().join("+") }
}

/// What was wrong with a verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fault {
    FalseLeak,
    Missed,
    Unsure,
    NotChecked,
}

fn fault(truth: &Truth, said: &str) -> Option<Fault> {
    match (is_leaked(&truth.is), is_leaked(said)) {
        (false, true) => Some(Fault::FalseLeak),
        _ if said == "unchecked" => Some(Fault::NotChecked),
        _ if said.contains("possible") && truth.is != "possible" => Some(Fault::Unsure),
        (true, false) => Some(Fault::Missed),
        _ => None,
    }
}

/// What the three tools say of one program.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said([String; 3]);

const TOOLS: [&str; 3] = ["xalloc", "LeakSanitizer", "memcheck"];

/// The whole text.
fn document(table: &BTreeMap<(&str, String, Twin), (Truth, Said)>, versions: &str) -> String {
    let mut text = format!(
        "# Programs whose leaks are known\n\n\
         What three tools say of one block in each of {} small programs, which keeps it or loses it. Written by\n\
         `tests/leak_truth.rs` ({versions}), which fails where xalloc says something else. LeakSanitizer is preloaded into\n\
         the same binaries, with `__lsan_init` called; memcheck runs with `--leak-check=full`. The programs and what is special\n\
         about them: `tests/programs/reach.c` and `tests/programs/leaks`.\n\n\
         In each cell the program that keeps the block comes first, then the one that loses it. What is wrong is **bold**. -: the\n\
         tool does not mention the block, which is right if it is not leaked. Behind a ~ stands\n\
         what xalloc says by design where the truth cannot be seen from outside.\n\n",
        table.keys().map(|(file, case, _)| (file, case)).collect::<BTreeSet<_>>().len(),
    );
    let _ = writeln!(text, "| of {} verdicts | {} |\n|---|---|---|---|", table.len(), TOOLS.join(" | "));
    for (kind, name) in [
        (Fault::FalseLeak, "called leaked what is not"),
        (Fault::Missed, "leaks that are not told"),
        (Fault::Unsure, "\"possible\" where the truth is another"),
        (Fault::NotChecked, "said not to be checked"),
    ] {
        let counts = [0, 1, 2].map(|tool| {
            let of_kind = table.values().filter(|(truth, said)| fault(truth, &said.0[tool]) == Some(kind));
            of_kind.count().to_string()
        });
        let _ = writeln!(text, "| {name} | {} |", counts.join(" | "));
    }
    for file in FILES {
        let _ = writeln!(
            text,
            "\n## {file}\n\n| program | the block | truth | {} |\n|---|---|---|---|---|---|",
            TOOLS.join(" | ")
        );
        for Case { name, about, truth } in cases(file) {
            let both: Vec<_> = Twin::BOTH.iter().filter_map(|&twin| table.get(&(file, name.clone(), twin))).collect();
            let truths = truth.iter().flatten().map(|truth| match truth.is_hidden() {
                true => format!("{} ~ {}", truth.is, truth.said),
                false => truth.is.clone(),
            });
            let cells = [0, 1, 2].map(|tool| {
                let cell = both.iter().map(|(truth, said)| match fault(truth, &said.0[tool]) {
                    Some(_) => format!("**{}**", said.0[tool]),
                    None => said.0[tool].clone(),
                });
                cell.collect::<Vec<_>>().join(" / ")
            });
            let truths = truths.collect::<Vec<_>>().join(" / ");
            let _ = writeln!(text, "| {name} | {about} | {truths} | {} |", cells.join(" | "));
        }
    }
    text
}

/// How often the other tools are asked before the table counts as outdated.
const ATTEMPTS: usize = 3;

#[test]
fn the_table_of_the_three_verdicts_is_current() {
    let Some(peers) = Peers::installed() else { return };
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/leak-truth.md");
    let writes = std::env::var_os("XALLOC_WRITE_GOLDEN").is_some();
    let kept = fs::read_to_string(&place).unwrap_or_default();
    if !writes && !kept.contains(&peers.versions) {
        println!("skipped: docs/leak-truth.md was written with other versions than {}", peers.versions);
        return;
    }
    let runs = runs();
    let ask = |run: &Run| {
        let said = Said([run.truth.said.clone(), peers.sanitizer(run), peers.memcheck(run)]);
        (run.key(), (run.truth.clone(), said))
    };
    let tell = || document(&each(&runs, ask).into_iter().collect::<BTreeMap<_, _>>(), &peers.versions);
    let mut text = tell();
    if writes {
        fs::write(&place, text).expect("docs can be written");
        return;
    }
    // What the others say of a block that a dead word points to varies now and then; ours is compared by the other test.
    for _ in 1..ATTEMPTS {
        if text == kept {
            return;
        }
        text = tell();
    }
    for (kept, said) in kept.lines().zip(text.lines()) {
        assert_eq!(kept, said, "run XALLOC_WRITE_GOLDEN=1 cargo test --test leak_truth and read the diff");
    }
    assert_eq!(kept.lines().count(), text.lines().count());
}
