//! What the commands write: pictures that are well-formed and say what they show, completions, man pages, the schema.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::victims::{static_victim, victim};
use support::{Recording, list, number, tool, xalloc};

fn recording() -> Recording {
    victim("totals.c", &[]).record()
}

fn text(output: std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Elements are closed in the order in which they were opened, attributes are quoted, text is escaped.
fn is_well_formed(svg: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    let mut roots = 0;
    while let Some(at) = rest.find('<') {
        if let Some(bad) = bare_ampersand(&rest[..at]) {
            return Err(format!("`&` is not escaped in {bad:?}"));
        }
        rest = &rest[at..];
        let skipped = [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>"), ("<!DOCTYPE", ">")];
        if let Some((_, end)) = skipped.iter().find(|(start, _)| rest.starts_with(start)) {
            let length = rest.find(end).ok_or_else(|| format!("no {end}"))?;
            rest = &rest[length + end.len()..];
            continue;
        }
        let length = end_of_tag(rest).ok_or("a tag without an end")?;
        let tag = &rest[1..length];
        rest = &rest[length + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let opened = open.pop();
            if opened != Some(name.trim_end()) {
                return Err(format!("</{name}> closes {opened:?}"));
            }
        } else {
            roots += usize::from(open.is_empty());
            if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap_or_default());
            }
        }
    }
    match (open.last(), roots) {
        (Some(name), _) => Err(format!("<{name}> is never closed")),
        (None, 1) => Ok(()),
        (None, roots) => Err(format!("{roots} elements at the root")),
    }
}

/// Where the tag that the text begins with ends; a `>` in quotes does not count.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    text.char_indices().find_map(|(at, c)| {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(of), _) if of == c => quote = None,
            (None, '>') => return Some(at),
            _ => {}
        }
        None
    })
}

fn bare_ampersand(text: &str) -> Option<&str> {
    let at = text.match_indices('&').map(|(at, _)| at).find(|&at| {
        let entity = text[at..].split_once(';').map(|(entity, _)| entity);
        !entity.is_some_and(|entity| entity.len() < 10 && entity[1..].chars().all(|c| c.is_alphanumeric() || c == '#'))
    })?;
    Some(&text[at..text.len().min(at + 20)])
}

fn assert_picture(path: &Path) -> String {
    let svg = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(svg.contains("<svg"), "{} is no SVG", path.display());
    is_well_formed(&svg).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    if let Some(xmllint) = tool("xmllint") {
        let output = Command::new(xmllint).args(["--noout", "--nonet"]).arg(path).output().expect("xmllint starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    svg
}

#[test]
fn what_is_not_well_formed_is_told_apart() {
    assert_eq!(is_well_formed("<?xml version='1'?><svg a='>'><g/><t>a &amp; b</t></svg>"), Ok(()));
    for bad in ["<svg><g></svg>", "<svg>", "<svg></svg><svg></svg>", "<svg>a & b</svg>", "<svg a='></svg>", "plain"] {
        assert!(is_well_formed(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_flame_graph_of_each_metric_holds_its_frames_and_no_others() {
    let recording = recording();
    // Which functions have some of the metric; one frame for each of the others would be a lie.
    let all = ["truth_keep", "truth_later", "truth_peak", "truth_temporary"];
    let expected = [
        ("allocated", &all[..]),
        ("count", &all[..]),
        ("peak", &["truth_keep", "truth_later", "truth_peak"]),
        ("leaked", &["truth_keep"]),
        ("temporary", &["truth_peak", "truth_temporary"]),
    ];
    for (metric, functions) in expected {
        let path = recording.beside(&format!("{metric}.svg"));
        recording.run("flamegraph", &["--metric".as_ref(), metric.as_ref(), "-o".as_ref(), path.as_os_str()]);
        let svg = assert_picture(&path);
        for function in all {
            let shown = svg.contains(&format!("<title>{function} "));
            assert_eq!(shown, functions.contains(&function), "{metric}: {function}");
        }
        assert!(svg.contains("<title>main "), "{metric}: main is in every stack");
        for hidden in ["malloc", "on_malloc", "libxalloc_preload"] {
            assert!(!svg.contains(&format!("<title>{hidden} ")), "{metric} shows the allocator's {hidden}");
        }
    }
}

#[test]
fn names_of_templates_are_escaped_in_a_flame_graph() {
    let recording = victim("templates.cpp", &[]).record();
    let path = recording.beside("templates.svg");
    // By count: the few bytes of a template would be too narrow to be drawn.
    recording.run("flamegraph", &["--metric".as_ref(), "count".as_ref(), "-o".as_ref(), path.as_os_str()]);
    let svg = assert_picture(&path);
    assert!(svg.contains("truth::make&lt;long"), "the template's arguments are missing");
}

#[test]
fn a_histogram_is_drawn_printed_and_told_with_the_same_figures() {
    let recording = recording();
    let path = recording.beside("histogram.svg");
    recording.run("histogram", &["-o".as_ref(), path.as_os_str()]);
    assert_picture(&path);
    let printed = text(recording.run::<&str>("histogram", &[]));
    let told = recording.json("histogram", &[]);
    for bucket in support::list(&told, "buckets") {
        let count = number(&bucket, "count");
        assert!(count == 0 || printed.contains(&count.to_string()), "{count} is not printed:\n{printed}");
    }
    assert_eq!(told["percentiles"]["max"], 50_000);
}

#[test]
fn nothing_is_overwritten_unless_asked_for() {
    let recording = recording();
    let path = recording.beside("kept.svg");
    fs::write(&path, "precious").expect("a file in the way");
    let arguments = |force: &[&'static str]| {
        let mut command = xalloc();
        command.arg("flamegraph").arg(&recording.trace).arg("-o").arg(&path).args(force);
        command.output().expect("it starts")
    };
    let refused = arguments(&[]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("hint:"), "no way out is named");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
    assert!(arguments(&["-f"]).status.success());
    assert_picture(&path);
}

#[test]
fn the_text_reports_say_the_figures_of_the_json() {
    let recording = recording();
    let summary = text(recording.run::<&str>("summary", &[]));
    for figure in ["119", "109", "101"] {
        assert!(summary.contains(figure), "{figure} is missing:\n{summary}");
    }
    let leaks = text(recording.run::<&str>("leaks", &[]));
    assert!(leaks.contains("truth_keep") && leaks.contains("9.8 KiB"), "{leaks}");
    let top = text(recording.run("top", &["--by", "temporary"]));
    assert!(top.contains("truth_temporary"), "{top}");
    let timeline = text(recording.run::<&str>("timeline", &[]));
    assert!(timeline.lines().count() > 3, "{timeline}");
}

#[test]
fn the_summary_of_record_goes_to_stderr_and_names_the_next_commands() {
    let recording = recording();
    assert!(recording.output.stdout.is_empty(), "stdout belongs to the program");
    let stderr = recording.stderr();
    assert!(stderr.contains("xalloc-report flamegraph"), "{stderr}");
    assert!(stderr.contains(&*recording.trace.path.to_string_lossy()), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let recording = recording();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(r#""$0" events "$1" | head -n 1"#)
        .arg(env!("CARGO_BIN_EXE_xalloc-report"))
        .arg(&recording.trace);
    let output = command.output().expect("sh starts");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1);
}

#[test]
fn a_status_that_says_something_stays_when_the_reader_goes_away() {
    let recording = recording();
    let (too_little, xalloc) = ("--max-allocations=0", env!("CARGO_BIN_EXE_xalloc-report"));
    let trace = recording.trace.path.to_str().expect("UTF-8");
    for (script, arguments, status) in [
        (r#""$0" check --fail-on none "$1" "$2""#, [too_little, trace], "1"),
        (r#""$0" check --format json --fail-on none "$1" "$2" 2>&1"#, [too_little, trace], "1"),
        (r#""$0" record -f -o "$2.again" -- sh -c "$1" 2>&1"#, ["exit 7", trace], "7"),
    ] {
        // The reader is gone before anything is written.
        let script = format!(r#"({{ sleep 0.3; {script}; echo $? >"$2.status"; }}) | true"#);
        let output = Command::new("sh").args(["-c", &script, xalloc]).args(arguments).output().expect("sh starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told = std::fs::read_to_string(format!("{trace}.status")).expect("the status");
        assert_eq!(told.trim(), status, "{script}");
    }
}

#[test]
fn check_passes_within_a_budget_and_fails_with_1_beyond_it() {
    let recording = recording();
    let verdict = |budget: &[&str]| {
        let output = xalloc()
            .arg("check")
            .arg(&recording.trace)
            .args(["--fail-on", "none"])
            .args(budget)
            .output()
            .expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, told) = verdict(&["--max-peak-bytes", "211000", "--max-allocations", "119"]);
    assert_eq!(code, Some(0), "{told}");
    for (budget, value, limit) in [
        ("--max-peak-bytes", "211000", "210999"),
        ("--max-allocations", "119", "118"),
        ("--max-alive-bytes", "10000", "9999"),
        ("--max-alive-blocks", "10", "9"),
    ] {
        let (code, told) = verdict(&[budget, limit]);
        assert_eq!(code, Some(1), "{budget}: {told}");
        let digits: String = told.chars().filter(|c| c.is_ascii_digit() || c.is_whitespace()).collect();
        assert!(digits.contains(value) && digits.contains(limit), "{budget}: value and limit are not told:\n{told}");
    }
}

#[test]
fn check_records_a_command_and_leaves_its_output_alone() {
    let program = victim("totals.c", &[]);
    let plain = program.plain();
    let folder = tempfile::tempdir().expect("a folder");
    let (trace, junit) = (folder.path().join("kept.xtrace"), folder.path().join("junit.xml"));
    let check = |limit: &str| {
        let mut command = xalloc();
        command.args(["check", "--fail-on", "none", "--max-alive-bytes", limit, "--trace"]).arg(&trace);
        command.arg("--report").arg(format!("junit={}", junit.display())).arg("--");
        program.behind(command)
    };
    let kept = check("10000");
    assert_eq!((kept.status.code(), &kept.stdout), (Some(0), &plain.stdout), "{kept:?}");
    let exceeded = check("9999");
    assert_eq!((exceeded.status.code(), &exceeded.stdout), (Some(1), &plain.stdout), "{exceeded:?}");
    assert!(String::from_utf8_lossy(&exceeded.stderr).contains("-1 B"), "{exceeded:?}");
    let report = fs::read_to_string(&junit).expect("the report");
    assert!(report.contains("<failure type=\"xalloc/budget-alive-at-exit-bytes\""), "{report}");
    let again = xalloc().arg("check").arg(&trace).args(["--fail-on", "none", "--max-alive-bytes", "9999"]).output();
    assert_eq!(again.expect("it starts").status.code(), Some(1), "the trace was not kept");
}

#[test]
fn check_tells_what_could_not_be_recorded_from_what_failed_and_from_what_is_not_there() {
    let code = |words: &[&str]| {
        let output = xalloc().arg("check").args(["--fail-on", "none", "--"]).args(words).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let still = static_victim("totals.c");
    let (status, told) = code(&[&still.to_string_lossy()]);
    assert!(status == Some(3) && told.contains("statically linked"), "{status:?} {told}");
    let (status, told) = code(&["sh", "-c", "exit 7"]);
    assert!(status == Some(4) && told.contains("exit status 7"), "{status:?} {told}");
    let (status, told) = code(&["./no-such-program"]);
    assert!(status == Some(2) && told.contains("no-such-program"), "{status:?} {told}");
    assert_eq!(code(&["true"]).0, Some(0));
}

#[test]
fn completions_man_pages_and_schema_are_generated_for_every_command() {
    let commands = ["record", "summary", "leaks", "histogram", "top", "timeline", "events", "flamegraph", "check"];
    for shell in ["bash", "zsh", "fish"] {
        let completions = text(xalloc().args(["generate", "completions", shell]).output().expect("it starts"));
        for command in commands {
            assert!(completions.contains(command), "{shell}: {command}");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    text(xalloc().args(["generate", "man"]).arg(folder.path()).output().expect("it starts"));
    for command in commands {
        let page = folder.path().join(format!("xalloc-report-{command}.1"));
        let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(page.contains(".SH NAME"), "{command}");
    }
    let schema = text(xalloc().args(["generate", "schema"]).output().expect("it starts"));
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    assert!(schema.is_object());
}

#[test]
fn what_the_commands_print_as_json_is_what_the_schema_says() {
    let schema = text(xalloc().args(["generate", "schema"]).output().expect("it starts"));
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let recording = recording();
    for command in ["summary", "leaks", "histogram", "top", "timeline", "events"] {
        let output = recording.run(command, &["--format", "json"]);
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let faults: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{command}: {faults:?}");
    }
}

#[test]
fn the_names_that_scripts_rely_on_are_there_under_these_names() {
    fn assert_names(object: &Value, of: &str, names: &str) {
        for name in names.split_whitespace() {
            assert!(object.get(name).is_some(), "{of} has no `{name}`: {object}");
        }
    }
    let recording = recording();
    assert_names(
        &recording.summary(),
        "summary",
        "allocations frees allocated_bytes temporary_allocations peak_live_bytes peak_at_ns live_at_exit_bytes \
         live_at_exit_blocks events dropped_events threads processes stacks unknown_frames duration_ns allocator",
    );
    let site = &list(&recording.json("leaks", &[]), "sites")[0];
    assert_names(site, "a site of leaks", "bytes blocks frames");
    assert_names(&site["frames"][0], "a frame", "function file line module inlined");
    let histogram = recording.json("histogram", &[]);
    assert_names(&histogram, "histogram", "buckets percentiles");
    assert_names(&histogram["buckets"][0], "a bucket", "from_bytes to_bytes count bytes");
    assert_names(&recording.events("alloc")[0], "an event", "seq at_ns thread kind addr size");
}
