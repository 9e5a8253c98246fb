//! The command as a whole: what is read from where, what is written where, and with which code it ends.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::settings::{KEYS, Settings};
use super::{Check, SettingArgs};
use crate::cli::{Console, Exit, Failure};
use crate::model::sample::{Sample, checked_server, server};
use crate::trace::{Checked, End, ScanOutcome};

#[derive(Parser, Debug)]
enum Command {
    Check(Check),
}

#[derive(Parser, Debug)]
struct Flags {
    #[command(flatten)]
    settings: SettingArgs,
}

struct Done {
    out: String,
    exit: Result<Exit, Failure>,
}

/// Runs the command with the words of a line; no file of settings is read unless the line names one.
fn run(words: &[&str]) -> Done {
    let own = if words.contains(&"--config") { &[][..] } else { &["--no-config"] };
    let all = ["xalloc-report", "check"].iter().chain(own).chain(words);
    let Command::Check(check) = Command::try_parse_from(all).expect("the line is well-formed");
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut console = Console { out: &mut out, notes: &mut notes, interactive: false, columns: 80 };
    let exit = check.run(&mut console);
    let out = String::from_utf8(out).expect("output is UTF-8");
    Done { out: anstream::adapter::strip_str(&out).to_string(), exit }
}

fn code(words: &[&str]) -> u8 {
    match run(words).exit {
        Ok(exit) => exit.code(),
        Err(failure) => failure.exit().code(),
    }
}

/// A folder with the traces of samples.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("the file is written");
        path.to_string_lossy().into_owned()
    }

    fn trace(&self, name: &str, sample: &Sample) -> String {
        let path = self.0.path().join(name);
        sample.write(&path).expect("the trace is written");
        path.to_string_lossy().into_owned()
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }
}

fn clean() -> Sample {
    let mut sample = checked_server();
    sample.contents.scans[0].outcome = ScanOutcome::Checked(Checked::default());
    sample
}

#[test]
fn each_outcome_has_an_exit_code_of_its_own() {
    let folder = Folder::new();
    let mut failed = clean();
    failed.contents.recording.end = Some(End::Exited(7));
    let traces = [&clean(), &checked_server(), &server(), &failed];
    let names = ["clean", "leaks", "unchecked", "failed"];
    let [clean, leaks, unchecked, failed] =
        [0, 1, 2, 3].map(|nth| folder.trace(&format!("{}.xtrace", names[nth]), traces[nth]));
    assert_eq!(code(&[&clean]), 0);
    assert_eq!(code(&[&leaks]), 1);
    assert_eq!(code(&[&folder.path("none.xtrace")]), 2);
    assert_eq!(code(&[&unchecked]), 3);
    assert_eq!(code(&[&failed]), 4);
    assert_eq!(code(&[&clean, &leaks]), 1);
    assert_eq!(code(&[&unchecked, "--max-peak-bytes", "1GiB"]), 0);
    assert_eq!(code(&[&unchecked, "--max-peak-bytes", "1KiB"]), 1);
    assert_eq!(code(&[&unchecked, "--max-peak-bytes", "1GiB", "--fail-on", "definite"]), 3);
    assert_eq!(code(&[]), 2);
}

#[test]
fn a_trace_that_is_cut_is_indeterminate() {
    let folder = Folder::new();
    let trace = folder.trace("cut.xtrace", &checked_server());
    let whole = fs::read(&trace).expect("the trace");
    fs::write(&trace, &whole[..whole.len() - 40]).expect("the trace is cut");
    assert_eq!(code(&[&trace, "--fail-on", "none"]), 3);
}

#[test]
fn several_reports_are_written_at_once_and_replace_those_of_before() {
    let folder = Folder::new();
    let trace = folder.trace("leaks.xtrace", &checked_server());
    let junit = folder.file("junit.xml", "yesterday's");
    let reports = format!("junit={junit},sarif={},json={}", folder.path("new/a.sarif"), folder.path("a.json"));
    let valgrind = format!("valgrind={}", folder.path("v.xml"));
    let done = run(&[&trace, "--report", &reports, "--report", &valgrind, "--report", "codequality=-"]);
    assert_eq!(done.exit.expect("the check is done").code(), 1);
    assert!(done.out.contains("\"check_name\": \"xalloc/definite-leak\""), "{}", done.out);
    for (name, holds) in
        [("junit.xml", "<testsuite "), ("new/a.sarif", "2.1.0"), ("a.json", "xalloc-report/check"), ("v.xml", "Leak_")]
    {
        assert!(fs::read_to_string(folder.path(name)).expect(name).contains(holds), "{name}");
    }
}

#[test]
fn a_baseline_that_was_written_accepts_what_it_was_written_from() {
    let folder = Folder::new();
    let trace = folder.trace("leaks.xtrace", &checked_server());
    let file = folder.path("baseline.txt");
    assert_eq!(code(&[&trace, "--baseline", &file]), 2, "it is not there");
    assert_eq!(code(&[&trace, "--baseline", &file, "--update-baseline"]), 0);
    let written = fs::read_to_string(&file).expect("the baseline");
    assert!(written.contains("leak definite ") && written.contains(" cache_insert\n"), "{written}");
    assert_eq!(code(&[&trace, "--baseline", &file, "--max-growth", "0%"]), 0);
    assert_eq!(code(&[&trace, "--baseline", &file, "--update-baseline"]), 0);
    assert_eq!(fs::read_to_string(&file).expect("the baseline"), written, "nothing changed");
    fs::write(&file, written.replace(" 4000 ", " 3999 ")).expect("the baseline");
    assert_eq!(code(&[&trace, "--baseline", &file]), 1, "it has grown");
}

#[test]
fn a_run_without_a_verdict_leaves_the_baseline_as_it_is() {
    let folder = Folder::new();
    let trace = folder.trace("unchecked.xtrace", &server());
    let file = folder.file("baseline.txt", "# xalloc baseline 1\n");
    assert_eq!(code(&[&trace, "--baseline", &file, "--update-baseline"]), 3);
    assert_eq!(fs::read_to_string(&file).expect("the baseline"), "# xalloc baseline 1\n");
}

#[test]
fn what_compares_with_a_baseline_needs_one() {
    for words in [["--fail-on", "new"], ["--max-growth", "5%"]] {
        let failure = run(&[&["a.xtrace"], &words[..]].concat()).exit.expect_err("there is none");
        assert!(failure.exit() == Exit::Usage && failure.to_string().contains("--baseline"), "{failure}");
    }
}

#[test]
fn a_value_that_is_none_is_named_with_its_setting_and_a_mistyped_name_with_the_nearest() {
    let folder = Folder::new();
    let suppressions = folder.file("s.supp", "leak:a\nrace:b\n");
    for (words, told) in [
        (["--max-peak-bytes", "10M"], &["--max-peak-bytes", "10M", "MiB"][..]),
        (["--max-allocations", "many"], &["--max-allocations", "many"]),
        (["--fail-on", "definit"], &["definit", "nearest is `definite`", "reachable"]),
        (["--report", "junti=a.xml"], &["junti", "nearest is `junit`"]),
        (["--report", "junit"], &["KIND=FILE"]),
        (["--suppressions", &suppressions], &["s.supp:2", "race:b"]),
        (["--suppressions", "/no/such.supp"], &["/no/such.supp"]),
    ] {
        let failure = run(&["a.xtrace", words[0], words[1]]).exit.expect_err("it is wrong");
        assert_eq!(failure.exit(), Exit::Usage);
        let text = failure.to_string();
        assert!(told.iter().all(|word| text.contains(word)), "{text}");
    }
}

fn gathered(words: &[&str], variable: &[(&str, &str)], here: &Path) -> Result<Settings, Failure> {
    let all = ["xalloc-report"].iter().chain(words);
    let flags = Flags::try_parse_from(all).expect("the flags are well-formed").settings;
    let value = |name: &str| variable.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Settings::gather(&flags, value, here)
}

#[test]
fn flags_go_over_variables_over_the_file_over_defaults() {
    let folder = Folder::new();
    folder.file(
        "xalloc.toml",
        "[budgets]\nmax-peak-bytes = \"1KiB\"\nmax-allocations = 5\nmax-leaked-blocks = 7\n\
         [reports]\njunit = \"out/j.xml\"\n[check]\nown = [\"src\"]\n",
    );
    let below = folder.0.path().join("below");
    fs::create_dir(&below).expect("a folder");
    fs::create_dir(folder.0.path().join(".git")).expect("a repository");
    let variables = [("XALLOC_MAX_PEAK_BYTES", "2KiB"), ("XALLOC_MAX_ALLOCATIONS", "6")];
    let settings = gathered(&["--max-peak-bytes", "3KiB", "--own", "lib"], &variables, &below).expect("settings");
    let one = |name| settings.get(name).one().map(str::to_owned);
    assert_eq!(one("max-peak-bytes").as_deref(), Some("3KiB"));
    assert_eq!(one("max-allocations").as_deref(), Some("6"));
    assert_eq!(one("max-leaked-blocks").as_deref(), Some("7"));
    assert_eq!(settings.get("fail-on").values, ["definite", "cycle"]);
    assert_eq!(settings.get("own").values, [below.join("lib").to_string_lossy()], "relative to where it was said");
    assert_eq!(one("report"), Some(format!("junit={}", folder.path("out/j.xml"))));
    let shown = settings.shown();
    for line in [
        "max-peak-bytes = \"3KiB\"                      # flag",
        "max-allocations = \"6\"                        # XALLOC_MAX_ALLOCATIONS",
        "fail-on = [\"definite\", \"cycle\"]              # default",
        "# baseline is not set                        # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(
        shown.contains(&format!("max-leaked-blocks = \"7\"                      # {}", folder.path("xalloc.toml")))
    );
}

#[test]
fn what_is_shown_is_a_file_that_means_the_same() {
    let folder = Folder::new();
    let words = ["--max-growth", "5%", "--own", "a\"b", "--report", "sarif=x.sarif", "--baseline", "b"];
    let shown = gathered(&words, &[], folder.0.path()).expect("settings").shown();
    let file = folder.file("again.toml", &shown);
    let again = gathered(&["--config", &file], &[], folder.0.path()).expect("settings");
    let bare = |text: &str| {
        text.lines().map(|line| line.split(" # ").next().map(str::trim_end).map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(bare(&again.shown()), bare(&shown));
}

#[test]
fn a_file_that_says_what_there_is_not_is_refused_with_the_nearest_name() {
    let folder = Folder::new();
    for (text, told) in [
        ("[budget]\n", "table `budget`; the nearest is `budgets`"),
        ("[budgets]\nmax-peek-bytes = 1\n", "key `max-peek-bytes`; the nearest is `max-peak-bytes`"),
        ("[check]\nmax-peak-bytes = 1\n", "key `max-peak-bytes`"),
        ("[reports]\nsariff = \"x\"\n", "report `sariff`; the nearest is `sarif`"),
        ("[budgets]\nmax-peak-bytes = 1.5\n", "max-peak-bytes is not a text, a number or a list"),
        ("fail-on = 1\n", "table `fail-on`"),
        ("[check\n", "line 1"),
        ("[check]\nown = [\"a\"]\nown = [\"b\"]\n", "line 3"),
    ] {
        let file = folder.file("bad.toml", text);
        let failure = gathered(&["--config", &file], &[], folder.0.path()).expect_err(text).to_string();
        assert!(failure.contains(told) && failure.contains("bad.toml"), "{text}: {failure}");
    }
    assert!(gathered(&["--config", "none.toml"], &[], folder.0.path()).is_err());
}

#[test]
fn every_setting_has_a_flag_that_sets_it() {
    for key in KEYS {
        let flag = format!("--{}", key.name);
        let settings = gathered(&["--no-config", &flag, "junit=x"], &[], &PathBuf::from("/nowhere")).expect(key.name);
        assert!(settings.says(key.name), "{}", key.name);
    }
}
