//! The command line as a whole: what is parsed, what is written where, and with which code it ends.

use clap::{CommandFactory, Parser};

use super::values::taking_what_begins_with_a_dash;
use super::{Cli, Console, Exit, Failure, Report};
use crate::model::sample::{Sample, Stream, server, server_with_child};
use crate::trace::{Event, ProcessEvent, ProcessIndex, StackIndex};

#[derive(Parser, Debug)]
struct OnTrace {
    #[command(subcommand)]
    report: Report,
}

/// What a command wrote and how it ended.
struct Done {
    out: String,
    notes: String,
    exit: Result<Exit, Failure>,
}

fn run(sample: &Sample, line: &str) -> Done {
    let words = std::iter::once("xalloc-report").chain(line.split(' '));
    let parsed = OnTrace::try_parse_from(words).expect("the line is well-formed");
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut console = Console { out: &mut out, notes: &mut notes, interactive: false, columns: 80 };
    let exit = parsed.report.run(sample, &mut console);
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Done { out: anstream::adapter::strip_str(&text(out)).to_string(), notes: text(notes), exit }
}

fn exit(sample: &Sample, line: &str) -> Exit {
    run(sample, line).exit.expect("the command does its work")
}

#[test]
fn the_definition_of_the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_value_below_zero_is_refused_by_its_option_which_says_what_it_takes() {
    for (line, option, takes) in [
        ("record --depth -5 ./app", "--depth <N>", "1..=1024"),
        ("record --verify-stacks -1 ./app", "--verify-stacks <N>", "1..="),
        ("leaks a.xtrace -n -5", "--limit <N>", "from 0 on"),
        ("leaks a.xtrace --frames -5", "--frames <N>", "from 0 on"),
        ("leaks a.xtrace --check -1", "--check <N>", "from 0 on"),
        ("leaks --pid -5", "--pid <PID>", "0..="),
        ("timeline a.xtrace --width -5", "--width <COLUMNS>", "20..=1000"),
        ("events a.xtrace --from -1s", "--from <TIME|SEQ|marker:NAME>", "a time such as 1.5s"),
        ("fragmentation a.xtrace --at -5", "--at <peak|exit|TIME|SEQ|marker:NAME>", "a time such as 1.5s"),
        ("summary a.xtrace --format -5", "--format <FORMAT>", "human, json"),
    ] {
        let words = std::iter::once("xalloc-report").chain(line.split(' '));
        let error = taking_what_begins_with_a_dash(Cli::command()).try_get_matches_from(words);
        let error = error.expect_err(line).to_string();
        assert!(error.contains(option) && error.contains(takes) && !error.contains("tip:"), "{line}: {error}");
    }
}

#[test]
fn what_follows_an_option_without_a_value_stays_an_option() {
    for line in ["record -f --check ./app -5", "record ./app --depth -5", "leaks a.xtrace --check 1 -n 5 --frames 3"] {
        let words = std::iter::once("xalloc-report").chain(line.split(' '));
        assert!(taking_what_begins_with_a_dash(Cli::command()).try_get_matches_from(words).is_ok(), "{line}");
    }
    let lacking = ["xalloc-report", "flamegraph", "a.xtrace", "-o", "--inverted"];
    let error = taking_what_begins_with_a_dash(Cli::command()).try_get_matches_from(lacking);
    assert!(error.expect_err("the picture has no path").to_string().contains("a value is required for '--output"));
}

#[test]
fn every_report_writes_text_and_where_it_has_one_json() {
    let sample = server_with_child();
    for command in ["summary", "leaks", "top", "histogram", "timeline", "events", "what-if"] {
        let human = run(&sample, &format!("{command} a.xtrace"));
        assert!(human.exit.is_ok() && human.out.lines().count() > 3, "{command}");
        let json = run(&sample, &format!("{command} a.xtrace --format json")).out;
        let value: serde_json::Value = serde_json::from_str(&json).expect("what was written is JSON");
        assert_eq!(value["schema"], format!("xalloc-report/{command}"));
        assert!(value["schema_version"].is_string() && value["result"].is_object());
    }
}

#[test]
fn one_process_is_selected_by_pid_or_by_number() {
    let sample = server_with_child();
    let allocations = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(&run(&sample, line).out).expect("what was written is JSON");
        value["result"]["allocations"].as_u64()
    };
    assert_eq!(allocations("summary a.xtrace --format json"), Some(55));
    assert_eq!(allocations("summary a.xtrace --format json --process 4250"), Some(1));
    assert_eq!(allocations("summary a.xtrace --format json --process 0"), Some(54));
    let failure = run(&sample, "summary a.xtrace --process 7").exit.expect_err("there is no process 7");
    assert!(failure.to_string().contains("4242, 4250"));
}

#[test]
fn a_flame_graph_goes_to_standard_output_or_into_a_file() {
    let svg = run(&server(), "flamegraph a.xtrace --metric peak").out;
    assert!(svg.starts_with("<?xml") && svg.contains("load_config(Config&amp;) config.cc:17"));
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("out.svg");
    let done = run(&server(), &format!("flamegraph a.xtrace --inverted -o {}", path.display()));
    assert!(done.exit.is_ok() && done.out.is_empty());
    let svg = std::fs::read_to_string(&path).expect("the file was written");
    assert!(svg.contains("Allocated bytes: 53.5 KiB"));
}

#[test]
fn a_file_in_the_way_stays_unless_force_is_given() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("kept.svg");
    for command in ["flamegraph", "histogram"] {
        std::fs::write(&path, "precious").expect("a file in the way");
        let line = format!("{command} a.xtrace -o {}", path.display());
        let failure = run(&server(), &line).exit.expect_err("there is a file in the way");
        assert!(failure.to_string().contains("-f"), "the way out is named");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "precious");
        assert_eq!(exit(&server(), &format!("{line} -f")), Exit::Success);
        assert!(std::fs::read_to_string(&path).expect("the file").contains("<svg"));
    }
}

#[test]
fn what_cannot_be_written_is_said_with_its_name() {
    let failure =
        run(&server(), "histogram a.xtrace -o /no/such/dir/out.svg").exit.expect_err("there is no such place");
    assert_eq!(failure.exit(), Exit::Usage);
    assert!(failure.to_string().contains("/no/such/dir/out.svg"));
}

#[test]
fn events_of_several_processes_have_a_heading_each_and_windows_cut_them() {
    let out = run(&server_with_child(), "events a.xtrace --kind brk,free --from 1ms").out;
    assert_eq!(out.lines().filter(|line| line.starts_with("process ")).count(), 2);
    assert!(out.lines().filter(|line| line.starts_with(' ')).all(|line| line.contains(" free ")));
}

fn open_and_run(path: &std::path::Path, command: &str) -> Result<String, Failure> {
    Ok(open_and_run_with(path, command, &["--format", "json"])?.0)
}

/// What a command on the file writes as its result, and what to standard error.
fn open_and_run_with(path: &std::path::Path, command: &str, options: &[&str]) -> Result<(String, String), Failure> {
    let words = ["xalloc-report", command, path.to_str().expect("the path is UTF-8")];
    let report = OnTrace::try_parse_from(words.iter().chain(options)).expect("the line is well-formed").report;
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut console = Console { out: &mut out, notes: &mut notes, interactive: false, columns: 80 };
    report.run_on_file(&mut console)?;
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Ok((text(out), text(notes)))
}

#[test]
fn every_report_on_a_cut_trace_says_once_what_is_missing_and_none_on_a_whole_one() {
    const SAYS: &str = "the trace is not whole: ";
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("server.xtrace");
    server().write(&path).expect("the trace is written");
    let whole = std::fs::read(&path).expect("the trace is there");
    let commands = ["summary", "leaks", "top", "histogram", "timeline", "events", "flamegraph", "what-if"];
    for (bytes, times) in [(&whole[..], 0), (&whole[..whole.len() - 1], 1)] {
        std::fs::write(&path, bytes).expect("the trace is written");
        for command in commands {
            let (out, notes) = open_and_run_with(&path, command, &[]).expect("what is there is read");
            assert_eq!(out.matches(SAYS).count() + notes.matches(SAYS).count(), times, "{command}: {notes}");
        }
    }
}

#[test]
fn every_report_as_json_says_what_was_cut_off_a_trace_and_nothing_of_a_whole_one() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("server.xtrace");
    server().write(&path).expect("the trace is written");
    let whole = std::fs::read(&path).expect("the trace is there");
    for (bytes, said) in [(&whole[..], 0), (&whole[..whole.len() - 1], 1)] {
        std::fs::write(&path, bytes).expect("the trace is written");
        for command in ["summary", "leaks", "top", "histogram", "timeline", "events", "what-if"] {
            let out = open_and_run(&path, command).expect("what is there is read");
            let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
            let gaps = document["gaps"].as_array().expect("a list");
            assert_eq!(gaps.len(), said, "{command}");
            assert!(gaps.iter().all(|gap| gap.as_str().is_some_and(|gap| gap.contains("not whole"))), "{command}");
        }
    }
}

#[test]
fn a_window_with_nothing_in_it_says_so_and_a_thread_that_is_not_there_is_an_error() {
    for words in ["--from 999s", "--to 1ns", "--kind lost", "--thread 2 --from 999s"] {
        for format in ["", " --format json"] {
            let done = run(&server(), &format!("events a.xtrace {words}{format}"));
            assert!(done.exit.is_ok() && done.notes.starts_with("note: none of the "), "{words}: {}", done.notes);
        }
    }
    assert!(run(&server(), "events a.xtrace --thread 2").notes.is_empty());
    let failure = run(&server(), "events a.xtrace --thread 999").exit.expect_err("there is no such thread");
    assert!(failure.to_string().contains("threads in the trace: t1 ("), "{failure}");
}

#[test]
fn a_trace_file_reports_what_the_recording_in_memory_reports() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("server.xtrace");
    server().write(&path).expect("the trace is written");
    for command in ["summary", "leaks", "top", "histogram", "timeline", "events"] {
        let of_file = open_and_run(&path, command).expect("the trace is read");
        assert_eq!(of_file, run(&server(), &format!("{command} - --format json")).out, "{command}");
    }
}

#[test]
fn a_child_in_a_trace_file_is_not_charged_with_its_parents_blocks() {
    let mut sample = server();
    sample.contents.processes.clear();
    let stack = sample.streams.remove(0).entries[2].stack;
    let mut parent = Stream::default();
    let slots = [300, 500].map(|size| parent.alloc(0, stack, size));
    parent.push(0, StackIndex::NONE, Event::Process(ProcessEvent::Fork));
    let mut child = Stream::default();
    child.push(1, StackIndex::NONE, Event::Free { slot: slots[0], block: parent.block_in(slots[0]) });
    child.alloc(1, stack, 64);
    sample.process(10, "parent", &["p"], parent);
    let forked = sample.process(11, "parent", &["c"], child);
    sample.contents.processes[forked.0 as usize].parent = Some(ProcessIndex(0));
    sample.contents.processes[forked.0 as usize].forked = true;

    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("fork.xtrace");
    sample.write(&path).expect("the trace is written");
    let out = open_and_run(&path, "summary").expect("the trace is read");
    let summary: serde_json::Value = serde_json::from_str(&out).expect("what was written is JSON");
    let child = &summary["result"]["by_process"][1];
    assert_eq!((child["allocations"].as_u64(), child["frees"].as_u64()), (Some(1), Some(0)));
    assert_eq!((child["inherited_bytes"].as_u64(), child["live_at_exit_bytes"].as_u64()), (Some(800), Some(64)));
    assert_eq!(summary["result"]["live_at_exit_bytes"].as_u64(), Some(864));
}

#[test]
fn a_trace_that_is_cut_anywhere_is_refused_or_says_that_it_is_not_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("server.xtrace");
    server().write(&path).expect("the trace is written");
    let whole = std::fs::read(&path).expect("the trace is there");
    for len in (0..whole.len()).step_by(37) {
        std::fs::write(&path, &whole[..len]).expect("the trace is cut");
        if let Ok(out) = open_and_run(&path, "summary") {
            let summary: serde_json::Value = serde_json::from_str(&out).expect("what was written is JSON");
            assert!(summary["result"]["salvage"].is_string(), "cut at {len}");
        }
    }
}

#[test]
fn a_trace_with_a_flipped_bit_anywhere_is_read_up_to_there_and_says_so() {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("server.xtrace");
    server().write(&path).expect("the trace is written");
    let whole = std::fs::read(&path).expect("the trace is there");
    let undamaged = open_and_run(&path, "summary").expect("the trace is read");
    let mut salvaged = 0;
    for at in (16..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, flipped).expect("the trace is damaged");
        let out = open_and_run(&path, "summary").expect("what lies before is read");
        let summary: serde_json::Value = serde_json::from_str(&out).expect("what was written is JSON");
        let says_so = summary["result"]["salvage"].is_string();
        assert!(says_so || out == undamaged, "flipped at {at}");
        salvaged += u32::from(says_so);
    }
    assert!(salvaged > 0);
}

#[test]
fn a_file_that_is_no_trace_or_not_there_is_named_in_the_error() {
    let failure = open_and_run("/no/such.xtrace".as_ref(), "summary").expect_err("there is no such file");
    let text = anstream::adapter::strip_str(&failure.to_string()).to_string();
    assert!(text.starts_with("error: cannot read /no/such.xtrace\n") && text.contains("hint: record one"));
    assert_eq!(failure.exit(), Exit::Usage);
    let failure = open_and_run("/proc/self/exe".as_ref(), "summary").expect_err("an executable is no trace");
    assert!(failure.to_string().contains("not an xalloc trace"));
}

#[test]
fn a_wrong_kind_is_answered_with_the_right_ones() {
    let error = OnTrace::try_parse_from(["xalloc-report", "events", "a.xtrace", "--kind", "chunk"]);
    let error = error.expect_err("there is no such kind").to_string();
    assert!(error.contains("`chunk`") && error.contains("coalesce"));
}

#[test]
fn a_window_that_nobody_can_be_shown_is_refused_before_anything_is_written() {
    for format in ["human", "json"] {
        for (window, said) in [
            ("--from 2s --to 1s", "--to 1s is before --from 2s"),
            ("--from 20 --to 7", "--to 7 is before --from 20"),
            ("--from marker:nope", "no mark named `nope`"),
            ("--to marker:nope", "no mark named `nope`"),
        ] {
            let done = run(&server_with_child(), &format!("events a.xtrace {window} --format {format}"));
            let failure = done.exit.expect_err("there is no such window");
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.to_string().contains(said), "{failure}");
            assert_eq!(done.out, "", "{window}");
        }
    }
    assert_eq!(exit(&server_with_child(), "events a.xtrace --from 1s --to 1s --format json"), Exit::Success);
}
