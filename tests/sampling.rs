//! Recordings of some allocations only: what is estimated from them, and what they refuse to answer.
//!
//! Every estimate is compared with the truth that stands in the header of the program. It may be off by five of the
//! standard errors that follow from the sizes, which one comparison in two million exceeds by chance.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::victims::victim;
use support::{Recording, Trace, functions, list, number, xalloc};

/// Mean distance of recorded bytes in most of these tests.
const MEAN: f64 = 4096.0;
const SAMPLED: [&str; 2] = ["--sample", "4KiB"];
/// As `docs/commands.md` lists them.
const USAGE: i32 = 2;
const INDETERMINATE: i32 = 3;

fn recorded(mode: &str, options: &[&str]) -> Recording {
    let recording = victim("sampled.c", &[mode]).record_with(&[&SAMPLED, options].concat());
    assert!(recording.status().success(), "{}", recording.stderr());
    let summary = recording.summary();
    for never in ["unknown_frees", "implied_frees", "dropped_events", "faults"] {
        assert_eq!(number(&summary, never), 0, "{never}");
    }
    recording
}

/// The only site of that function, which the compiler may have given a suffix.
fn site(trace: &Trace, function: &str) -> Value {
    let of = |site: &Value| functions(site).first().is_some_and(|name| name.split('.').next() == Some(function));
    let sites: Vec<Value> = trace.sites().into_iter().filter(of).collect();
    let [site] = &sites[..] else { panic!("{} sites of {function}", sites.len()) };
    site.clone()
}

/// Standard error of the number of blocks that is estimated where there are so many of a size.
fn error(blocks: f64, size_bytes: f64) -> f64 {
    let chance = 1.0 - (-(size_bytes + 1.0) / MEAN).exp();
    (blocks * (1.0 - chance) / chance).sqrt()
}

fn assert_near(what: &str, estimate: u64, truth: f64, error: f64) {
    let off = (estimate as f64 - truth).abs();
    assert!(off <= 5.0 * error + 1.0, "{what}: {estimate} is {:.1} standard errors from {truth}", off / error);
}

/// That so many blocks of one size are estimated, and of them so many alive at exit.
fn assert_blocks(site: &Value, size_bytes: f64, blocks: f64, alive: f64) {
    let what = &functions(site)[0];
    let of = |name| number(site, name);
    assert_near(what, of("allocations"), blocks, error(blocks, size_bytes));
    assert_near(what, of("allocated_bytes"), blocks * size_bytes, error(blocks, size_bytes) * size_bytes);
    assert_near(what, of("live_at_exit_blocks"), alive, error(alive, size_bytes));
    assert_near(what, of("live_at_exit_bytes"), alive * size_bytes, error(alive, size_bytes) * size_bytes);
    let recorded = of("recorded_allocations") as f64;
    let chance = 1.0 - (-(size_bytes + 1.0) / MEAN).exp();
    assert!((recorded - blocks * chance).abs() <= 5.0 * (blocks * chance * (1.0 - chance)).sqrt() + 1.0, "{recorded}");
}

fn assert_sites(trace: &Trace) {
    let tiny = site(trace, "tiny");
    assert_blocks(&tiny, 24.0, 200_000.0, 0.0);
    assert_eq!(number(&tiny, "temporary_allocations"), number(&tiny, "allocations"), "each was freed at once");
    let middle = site(trace, "middle");
    assert_blocks(&middle, 1000.0, 20_000.0, 20_000.0);
    assert_eq!(number(&middle, "temporary_allocations"), 0);
    assert_blocks(&site(trace, "large"), 50_000.0, 400.0, 200.0);
}

#[test]
fn each_site_is_estimated_by_its_recorded_blocks() {
    let recording = recorded("sites", &[]);
    assert_sites(&recording);
    let summary = recording.summary();
    let sampling = &summary["sampling"];
    assert_eq!(number(sampling, "mean_interval_bytes"), 4096);
    let of_tiny_and_middle = error(200_000.0, 24.0).hypot(error(20_000.0, 1000.0));
    let told = number(sampling, "allocations_error") as f64;
    assert!((told / of_tiny_and_middle - 1.0).abs() < 0.2, "{told}, {of_tiny_and_middle}");
    let peak = 20_000.0 * 1000.0 + 400.0 * 50_000.0;
    assert_near("peak", number(&summary, "peak_live_bytes"), peak, error(20_000.0, 1000.0) * 1000.0);
    let recorded: u64 = recording.sites().iter().map(|site| number(site, "recorded_allocations")).sum();
    assert_eq!(number(sampling, "recorded_allocations"), recorded);
    assert!(number(&summary, "events") < 4 * recorded + 200, "what is not recorded leaves nothing in the trace");
}

#[test]
fn another_allocator_than_ours_is_sampled_alike() {
    assert_sites(&recorded("sites", &["--allocator", "system"]));
}

#[test]
fn where_every_byte_is_a_sample_every_figure_is_exact() {
    let load = victim("sampled.c", &["sites"]);
    let (all, sampled) = (load.record(), load.record_with(&["--sample", "1B"]));
    let (exact, estimated) = (all.summary(), sampled.summary());
    for figure in [
        "allocations",
        "frees",
        "allocated_bytes",
        "temporary_allocations",
        "temporary_bytes",
        "peak_live_bytes",
        "live_at_exit_bytes",
        "live_at_exit_blocks",
        "stacks",
    ] {
        assert_eq!(number(&estimated, figure), number(&exact, figure), "{figure}");
    }
    assert!(number(&estimated["sampling"], "allocated_bytes_error") <= 1);
    assert_eq!((&exact["sampling"], &estimated["reallocs_moved"]), (&Value::Null, &Value::Null));
}

#[test]
fn the_program_gets_the_blocks_that_it_gets_without_us() {
    let load = victim("sampled.c", &["sites"]);
    assert_eq!(load.record_with(&SAMPLED).output.stdout, load.plain().stdout);
}

#[test]
fn a_program_that_traps_inexact_results_is_not_trapped() {
    assert_sites(&recorded("exact", &[]));
}

#[test]
fn cleared_and_aligned_blocks_are_among_them() {
    for allocator in ["core", "system"] {
        let recording = recorded("kinds", &["--allocator", allocator]);
        assert_blocks(&site(&recording, "cleared"), 300.0, 20_000.0, 20_000.0);
        assert_blocks(&site(&recording, "aligned"), 200.0, 20_000.0, 20_000.0);
    }
}

#[test]
fn each_step_of_a_realloc_is_a_request_of_its_own() {
    for allocator in ["core", "system"] {
        let recording = recorded("chains", &["--allocator", allocator]);
        let chain = site(&recording, "chain");
        let steps = (1..=100).map(|step| f64::from(step) * 100.0);
        let (blocks, bytes) = steps.fold((0.0, 0.0), |(blocks, bytes): (f64, f64), size| {
            let of_step = error(500.0, size);
            (blocks.hypot(of_step), bytes.hypot(of_step * size))
        });
        assert_near("steps", number(&chain, "allocations"), 50_000.0, blocks);
        assert_near("bytes", number(&chain, "allocated_bytes"), 252_500_000.0, bytes);
        assert_near("kept", number(&chain, "live_at_exit_blocks"), 100.0, error(100.0, 10_000.0));
    }
}

#[test]
fn a_block_that_its_realloc_gives_back_is_temporary() {
    for allocator in ["core", "system"] {
        let recording = recorded("resized", &["--allocator", allocator]);
        for (name, size_bytes) in [("brief", 900.0), ("longer", 2000.0)] {
            let site = site(&recording, name);
            assert_blocks(&site, size_bytes, 50_000.0, 0.0);
            assert_eq!(number(&site, "temporary_allocations"), number(&site, "allocations"), "{allocator}: {name}");
        }
    }
}

#[test]
fn eight_threads_are_sampled_each_for_itself_and_frees_by_another_find_their_blocks() {
    let recording = recorded("threads", &[]);
    assert_blocks(&site(&recording, "shared"), 300.0, 160_000.0, 16_000.0);
    let summary = recording.summary();
    let workers: Vec<Value> =
        list(&summary, "by_thread").into_iter().filter(|thread| number(thread, "allocations") > 10_000).collect();
    assert_eq!(workers.len(), 8);
    for worker in &workers {
        assert_near("a thread", number(worker, "allocations"), 20_000.0, error(20_000.0, 300.0));
    }
    let foreign: u64 = list(&summary, "by_thread").iter().map(|thread| number(thread, "foreign_frees")).sum();
    assert_near("frees by another", foreign, 144_000.0, error(144_000.0, 300.0));
}

#[test]
fn a_forked_child_goes_on_with_numbers_of_its_own_and_frees_what_it_inherited() {
    let recording = recorded("fork", &[]);
    assert_blocks(&site(&recording, "before"), 500.0, 20_000.0, 20_000.0);
    assert_blocks(&site(&recording, "after"), 700.0, 10_000.0, 10_000.0);
    let leaks = recording.json("leaks", &[]);
    assert_near("still inherited", number(&leaks, "inherited_blocks"), 10_000.0, error(10_000.0, 500.0));
}

#[test]
fn what_a_child_frees_that_is_not_followed_is_no_loss() {
    for allocator in ["core", "system"] {
        // `recorded` wants no event lost.
        let recording = recorded("fork", &["--no-follow", "--allocator", allocator]);
        assert_blocks(&site(&recording, "before"), 500.0, 20_000.0, 20_000.0);
    }
}

#[test]
fn requests_that_fail_are_estimated_as_those_that_are_served() {
    for allocator in ["core", "system"] {
        let summary = recorded("refused", &["--allocator", allocator]).summary();
        assert_near(allocator, number(&summary, "failed_allocations"), 20_000.0, error(20_000.0, 1000.0));
    }
}

#[test]
fn a_recorded_block_for_whose_mark_there_is_no_memory_is_an_event_that_was_dropped() {
    let summary = victim("sampled.c", &["unmarked"]).record_with(&["--sample", "1B"]).summary();
    assert_eq!((number(&summary, "allocations"), number(&summary, "dropped_events")), (1, 10));
}

#[test]
fn every_report_says_that_it_estimates() {
    let recording = recorded("sites", &[]);
    let told = "all figures are estimates: of the bytes asked for, one in 4.0 KiB was sampled";
    assert!(recording.stderr().contains(told), "{}", recording.stderr());
    assert!(recording.stderr().contains(" ± "), "{}", recording.stderr());
    for command in ["summary", "leaks", "top", "histogram", "timeline", "flamegraph"] {
        let output = recording.run::<&str>(command, &[]);
        assert!(String::from_utf8_lossy(&output.stdout).contains(told), "{command}");
        let is_said_twice = String::from_utf8_lossy(&output.stderr).contains(told);
        assert_eq!(is_said_twice, command == "flamegraph", "{command}: a picture is mostly a file");
    }
    for command in ["summary", "leaks", "top", "histogram", "timeline"] {
        assert_eq!(number(&recording.json(command, &[])["sampling"], "mean_interval_bytes"), 4096, "{command}");
    }
    let histogram = recording.json("histogram", &[]);
    assert_near("histogram", number(&histogram, "count"), 220_400.0, error(200_000.0, 24.0) * 1.1);
    let summary = recording.summary();
    let of_summary = (number(&summary, "allocations"), number(&summary, "allocated_bytes"));
    assert_eq!((number(&histogram, "count"), number(&histogram, "bytes")), of_summary);
    let exact = victim("sampled.c", &["chains"]).record();
    assert!(!exact.stderr().contains("estimate") && exact.json("top", &[])["sampling"].is_null());
}

fn refused(trace: &Trace, arguments: &[&str]) {
    let output = xalloc().args(&arguments[..1]).arg(&trace.path).args(&arguments[1..]).output().expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(USAGE), "{arguments:?}: {told}");
    assert!(told.contains("needs every event") && told.contains("hint: record without --sample"), "{told}");
}

#[test]
fn what_needs_every_event_is_refused_with_the_reason() {
    let recording = recorded("kinds", &[]);
    for arguments in [
        &["fragmentation"][..],
        &["what-if"],
        &["events", "--kind", "alloc,split"],
        &["events", "--kind", "brk"],
        &["events", "--kind", "trim"],
        &["events", "--kind", "release"],
        &["flamegraph", "--metric", "pinned"],
        &["top", "--temporary-threshold", "2"],
    ] {
        refused(&recording, arguments);
    }
    assert!(!recording.events("alloc,free").is_empty());
    let timeline = recording.json("timeline", &[]);
    assert_eq!(number(&timeline, "heap_unknown_processes"), number(&timeline, "processes"));
    assert!(list(&timeline, "buckets").iter().all(|bucket| bucket["heap_bytes"].is_null()));
}

#[test]
fn nothing_is_called_leaked_or_clean_by_what_was_not_recorded() {
    let recording = recorded("sites", &[]);
    let leaks = recording.json("leaks", &[]);
    assert_eq!(leaks["checked"], false);
    assert!(leaks["not_checked_reason"].as_str().is_some_and(|reason| reason.contains("--sample")), "{leaks}");
    let judged = |options: &[&str]| {
        let output = xalloc().arg("check").arg(&recording.path).args(options).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(judged(&[]).0, Some(INDETERMINATE), "{}", judged(&[]).1);
    let budget = |limit: &str| judged(&["--fail-on", "none", "--max-peak-bytes", limit]);
    assert_eq!(budget("100MiB").0, Some(0), "{}", budget("100MiB").1);
    assert_eq!(budget("10MiB").0, Some(1), "{}", budget("10MiB").1);
    let estimate = number(&recording.summary(), "peak_live_bytes").to_string();
    let (code, told) = budget(&estimate);
    assert_eq!(code, Some(INDETERMINATE), "{told}");
    assert!(told.contains(" ± ") && told.contains("not known") && told.contains("one in 4.0 KiB"), "{told}");
    let (_, told) = judged(&["--max-peak-bytes", "100MiB"]);
    assert!(told.contains("--sample") && !told.contains("holds no leak scan"), "{told}");
    let (code, told) = judged(&["--fail-on", "none", "--max-temporary", "1%"]);
    assert_eq!(code, Some(INDETERMINATE), "{told}");
    assert!(told.contains("is not judged") && !told.contains(" ± "), "{told}");
}

#[test]
fn what_nothing_was_seen_of_is_bounded_and_keeps_no_tight_budget() {
    let recording = victim("sampled.c", &["one"]).record_with(&["--sample", "1GiB"]);
    let judged = |limit: &str| {
        let mut check = xalloc();
        check.arg("check").arg(&recording.path).args(["--fail-on", "none", "--max-alive-bytes", limit]);
        check.output().expect("it starts").status.code()
    };
    assert_eq!(number(&recording.summary(), "live_at_exit_bytes"), 0, "by chance, once in a million runs, it is not");
    assert!(recording.stderr().contains("at most 3.0 GiB"), "{}", recording.stderr());
    assert_eq!((judged("0"), judged("4GiB")), (Some(INDETERMINATE), Some(0)));
}

#[test]
fn a_mean_that_is_none_is_an_error_before_anything_runs() {
    for (value, told) in [
        ("0", "is not between 1 B and 1 GiB"),
        ("2GiB", "is not between 1 B and 1 GiB"),
        ("0.5", "is less than one byte"),
        ("./app", "is no size"),
        ("512K", "is no unit"),
    ] {
        let output = xalloc().args(["record", "--sample", value, "/bin/true"]).output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(told), "{value}: {stderr}");
    }
    let asked_twice = ["record", "--sample", "4KiB", "--leak-check-on-signal", "/bin/true"];
    let output = xalloc().args(asked_twice).output().expect("it starts");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used with"), "{output:?}");
}

/// Records without recorder, by this `XALLOC_SAMPLE`; the trace, and what the program's standard error got.
fn recorded_alone(kept: &Path, sample: &str) -> (Trace, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, trace) = (folder.path().join("spilled"), kept.join("sampled.xtrace"));
    let doctor = String::from_utf8(xalloc().arg("doctor").output().expect("it starts").stdout).expect("text");
    let library = doctor.split_whitespace().find(|word| word.ends_with("libxalloc_preload.so")).expect("its path");
    let output = Command::new(victim("sampled.c", &[]).program())
        .arg("sites")
        .env("LD_PRELOAD", library)
        .env("XALLOC_OUT", &file)
        .env("XALLOC_SAMPLE", sample)
        .env("XALLOC_VERBOSE", "1")
        .output()
        .expect("it starts");
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let output = xalloc().arg("import").args(["-f", "-o"]).arg(&trace).arg(&file).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (Trace::at(trace), told)
}

#[test]
fn a_recording_without_recorder_is_sampled_by_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    for sample in ["4096", "4KiB"] {
        let (trace, told) = recorded_alone(folder.path(), sample);
        assert_sites(&trace);
        assert_eq!(told, "");
    }
}

#[test]
fn an_environment_that_asks_for_too_few_samples_gets_the_fewest_and_one_that_names_no_size_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    for sample in ["2GiB", "99999999999999999999"] {
        let (trace, told) = recorded_alone(folder.path(), sample);
        assert_eq!(number(&trace.summary()["sampling"], "mean_interval_bytes"), 1 << 30);
        assert_eq!(told, "");
    }
    for sample in ["abc", "", "64K"] {
        let (trace, told) = recorded_alone(folder.path(), sample);
        assert_eq!(trace.summary()["sampling"], Value::Null);
        assert!(told.contains("XALLOC_SAMPLE is no size") && told.lines().count() == 1, "{sample}: {told}");
    }
}

#[test]
fn a_reader_that_knows_nothing_of_samples_refuses_the_trace() {
    let major = |recording: &Recording| fs::read(&recording.path).expect("the trace")[8];
    let load = victim("sampled.c", &["kinds"]);
    assert_eq!((major(&load.record()), major(&load.record_with(&SAMPLED))), (3, 4));
}
