//! What-if runs against reality: the simulated heap is the recorded one, and what it predicts is what happens.

mod support;

use serde_json::Value;
use support::footprint::footprint;
use support::victims::victim;
use support::{Load, list, number, tool};

/// What `what-if` says of a recording of `load`.
fn what_if(load: &Load, options: &[&str]) -> Value {
    load.record().json("what-if", options)
}

/// Three programs that ask for the same in every run, of those that are installed.
fn real_programs() -> impl Iterator<Item = (&'static str, Load)> {
    let script = "my %h; for my $i (1..20000) { $h{\"k$i\"} = 'v' x ($i % 50) } my @a = map { $_ x 9 } 1..5000;";
    let table = "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<20000) \
                 insert into t select x,x*7 from c; create index i on t(b);";
    let all = [("perl", vec!["-e", script]), ("sqlite3", vec![":memory:", table]), ("git", vec!["help", "-a"])];
    all.into_iter().filter_map(|(program, arguments)| {
        let load = Load::new(tool(program)?, &arguments);
        Some((program, load.env("PERL_HASH_SEED", "0").env("PERL_PERTURB_KEYS", "0")))
    })
}

/// Fails unless every block of the recording is where the simulated heap has it.
fn is_identical(answer: &Value, least_blocks: u64) {
    assert!(number(&answer["fidelity"], "compared_blocks") >= least_blocks, "{}", answer["fidelity"]);
    assert_eq!(answer["fidelity"]["identical"], true, "{}", answer["fidelity"]["parting"]);
}

#[test]
fn the_simulated_heap_is_the_recorded_one_to_the_last_block_whatever_the_program_asks_for() {
    let load = victim("what_if/every_request.c", &[]);
    is_identical(&what_if(&load, &[]), 15_000);
}

#[test]
fn what_the_environment_sets_is_part_of_the_recording() {
    for (name, value) in [
        ("MALLOC_TOP_PAD_", "8192"),
        ("MALLOC_MMAP_THRESHOLD_", "20000"),
        ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=2:glibc.malloc.arena_max=1"),
    ] {
        let load = victim("what_if/every_request.c", &[]).env(name, value);
        is_identical(&what_if(&load, &[]), 15_000);
    }
}

#[test]
fn the_simulated_heap_of_a_real_program_is_the_recorded_one() {
    for (_, load) in real_programs() {
        is_identical(&what_if(&load, &[]), 50);
    }
}

#[test]
fn other_rules_lead_to_another_heap_and_the_same_rules_to_the_same() {
    let load = victim("story.c", &[]);
    let answer = what_if(&load, &["--set", "top_pad=0,trim_threshold=4K", "--set", "top_pad=128K", "--glibc", "2.36"]);
    let runs = list(&answer, "runs");
    let names: Vec<_> = runs.iter().map(|run| run["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["baseline", "top_pad=0,trim_threshold=4K", "top_pad=128K", "glibc=2.36"]);
    assert!(number(&runs[1], "peak_footprint_bytes") < number(&runs[0], "peak_footprint_bytes"));
    assert_eq!(number(&runs[3], "peak_footprint_bytes"), number(&runs[0], "peak_footprint_bytes"));
    assert_eq!(runs[0]["peak_change_bytes"], 0);
}

/// Six ways to tune malloc: what `--set` says, and the same in the environment.
const SETTINGS: [(&str, &str, &str); 6] = [
    ("top_pad=0", "MALLOC_TOP_PAD_", "0"),
    ("trim_threshold=65536", "MALLOC_TRIM_THRESHOLD_", "65536"),
    ("mmap_threshold=16384", "MALLOC_MMAP_THRESHOLD_", "16384"),
    ("mmap_max=0", "MALLOC_MMAP_MAX_", "0"),
    ("tcache_count=0", "GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"),
    ("mxfast=0,top_pad=4096", "GLIBC_TUNABLES", "glibc.malloc.mxfast=0:glibc.malloc.top_pad=4096"),
];

/// Compares what is predicted for each of [`SETTINGS`] with the real libc's heap under it.
///
/// Programs such as perl and git copy their environment, so it has to be the same for both: the recorded run gets a
/// variable that stands for the setting's, the plain one two that stand for the recorder's, each as long as what it stands
/// for.
fn predictions_are_real(name: &str, load: &Load) {
    let stand_ins = variables_of_a_recording();
    for (list_of, variable, value) in SETTINGS {
        let answer = what_if(&load.clone().env(&disguised(variable), value), &["--set", list_of]);
        is_identical(&answer, 50);
        let plain = stand_ins.iter().fold(load.clone(), |load, (name, value)| load.env(&disguised(name), value));
        let Some(real) = footprint(&plain.env(variable, value)) else { return };
        let predicted = number(&list(&answer, "runs")[1], "peak_footprint_bytes") / 1024;
        let measured = real.peak_bytes / 1024;
        println!("{name} {list_of}: predicted {predicted} KiB, measured {measured} KiB");
        assert_eq!(predicted, measured, "{name} {list_of}: KiB predicted and measured");
    }
}

#[test]
fn the_predicted_peak_under_other_settings_is_the_real_one_to_the_kib() {
    predictions_are_real("waves", &victim("what_if/waves.c", &[]));
    predictions_are_real("steady waves", &victim("what_if/waves.c", &["steady"]));
}

#[test]
fn the_predicted_peak_of_real_programs_under_other_settings_is_the_real_one() {
    for (program, load) in real_programs() {
        predictions_are_real(program, &load);
    }
}

/// What a recording adds to the environment: the variables of a program that prints its own.
fn variables_of_a_recording() -> Vec<(String, String)> {
    let Some(env) = tool("env") else { return Vec::new() };
    let printed = String::from_utf8(Load::new(env, &[]).record().output.stdout).expect("text");
    let added = printed.lines().filter_map(|line| line.split_once('='));
    let is_added = |name: &str| name == "LD_PRELOAD" || name == "XALLOC_SESSION";
    added.filter(|(name, _)| is_added(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Another name of the same length, which means nothing to anybody.
fn disguised(name: &str) -> String {
    let last = if name.ends_with('Z') { "Y" } else { "Z" };
    format!("{}{last}", &name[..name.len() - 1])
}

#[test]
fn what_a_fix_is_predicted_to_save_is_what_it_saves() {
    for (source, option, site) in [
        ("pinner", "--without", "what_if_pin"),
        ("mixed", "--pool", "what_if_record"),
        ("grower", "--reserve", "what_if_grow"),
    ] {
        let file = format!("what_if/{source}.c");
        let answer = what_if(&victim(&file, &[]), &[option, site]);
        is_identical(&answer, 300);
        let Some(real) = footprint(&victim(&file, &["fixed"])) else { return };
        let fixed = &list(&answer, "runs")[1];
        let predicted = (number(fixed, "peak_footprint_bytes"), number(fixed, "end_footprint_bytes"));
        println!("{source} {option}: predicted {predicted:?}, measured {real:?}");
        assert_eq!(predicted, (real.peak_bytes, real.end_bytes), "{source}: peak and end after the fix");
        assert_ne!(fixed["peak_change_bytes"], 0, "{source}: a fix that changes nothing proves nothing");
    }
}

#[test]
fn what_a_fix_of_a_program_that_a_number_made_up_is_predicted_to_save_is_what_it_saves() {
    for seed in ["1", "2", "3", "4"] {
        let recording = victim("what_if/any.c", &[seed]).record();
        for (fix, site) in [("without", "what_if_site"), ("pool", "what_if_site"), ("reserve", "what_if_grow")] {
            let answer = recording.json("what-if", &[&format!("--{fix}"), site]);
            is_identical(&answer, 10_000);
            let Some(real) = footprint(&victim("what_if/any.c", &[seed, fix])) else { return };
            let fixed = &list(&answer, "runs")[1];
            let predicted = (number(fixed, "peak_footprint_bytes"), number(fixed, "end_footprint_bytes"));
            println!("{seed} {fix}: predicted {predicted:?}, measured {real:?}");
            assert_eq!(predicted, (real.peak_bytes, real.end_bytes), "{seed} {fix}: peak and end after the fix");
            assert_ne!(fixed["peak_change_bytes"], 0, "{seed} {fix}: a fix that changes nothing proves nothing");
        }
    }
}

#[test]
fn what_a_trim_by_the_clock_is_predicted_to_save_is_what_calling_it_saves() {
    // The program's phases lie half a second from every trim.
    let answer = what_if(&victim("what_if/trimmer.c", &[]), &["--trim-every", "1"]);
    is_identical(&answer, 900);
    let Some(real) = footprint(&victim("what_if/trimmer.c", &["fixed"])) else { return };
    let trimmed = &list(&answer, "runs")[1];
    let predicted = (number(trimmed, "peak_footprint_bytes"), number(trimmed, "end_footprint_bytes"));
    println!("trimmer: predicted {predicted:?}, measured {real:?}");
    assert_eq!(predicted, (real.peak_bytes, real.end_bytes), "peak and end with trims");
    assert_ne!(trimmed["peak_change_bytes"], 0);
    assert_ne!(trimmed["end_change_bytes"], 0);
}

#[test]
fn threads_that_share_an_arena_are_served_in_its_order() {
    let load = victim("what_if/shared_arena.c", &[]).env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1");
    // A thread that gets no processor for some 20 ms between the lock and its stamp is beyond what an arena's numbers
    // tell; on a busy machine that happens.
    let answers = (0..5).map(|_| what_if(&load, &[]));
    let is_same = |answer: &Value| answer["fidelity"]["identical"] == true;
    let found = answers.into_iter().find(is_same).expect("one run of five without such a wait");
    is_identical(&found, 20_000);
}

/// The ids that stand behind `before` in a report's text.
fn ids(text: &str, before: &str) -> Vec<String> {
    let behind = text.split(before).skip(1).filter_map(|rest| rest.get(..12));
    behind.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit())).map(str::to_owned).collect()
}

#[test]
fn a_site_is_named_by_the_id_that_any_report_gives_it() {
    let recording = victim("what_if/pinner.c", &[]).record();
    let id = recording.sites_in("what_if_pin")[0]["id"].as_str().expect("a site has an id").to_owned();
    let by_id = recording.json("what-if", &["--without", &id]);
    let by_name = recording.json("what-if", &["--without", "what_if_pin"]);
    let change = |answer: &Value| list(answer, "runs")[1]["end_change_bytes"].clone();
    assert_eq!(change(&by_id), change(&by_name));
    for (report, options) in [
        ("top", &["--by", "count"][..]),
        ("leaks", &[]),
        ("fragmentation", &["--at", "exit", "--fixes", "never"]),
        ("flamegraph", &["-o", "-"]),
        ("flamegraph", &["--inverted", "-o", "-"]),
        ("flamegraph", &["--metric", "pinned", "--at", "exit", "-o", "-"]),
    ] {
        let text = recording.run(report, options);
        let found = ids(&String::from_utf8_lossy(&text.stdout), "site ");
        assert!(found.contains(&id), "{report} {options:?}: {found:?}");
        if report == "flamegraph" {
            continue;
        }
        let json = recording.json(report, if report == "fragmentation" { &options[..2] } else { &[] });
        assert!(ids(&json.to_string(), "\"id\":\"").contains(&id), "{report}");
    }
}

#[test]
fn the_promised_fields_of_a_run_are_there() {
    let recording = victim("story.c", &[]).record();
    let answer = recording.json("what-if", &["--set", "top_pad=0", "--allocator", "glibc"]);
    for run in &list(&answer, "runs") {
        for field in ["peak_footprint_bytes", "mean_footprint_bytes", "peak_rss_bytes"] {
            assert!(run[field].is_u64(), "{field}: {run}");
        }
        let is_served = run["engine"] == "replay";
        assert_eq!(
            ["brk_calls", "mmap_calls", "duration_ns"].map(|at| run[at].is_u64()),
            [!is_served, !is_served, is_served]
        );
        assert!(run["name"].is_string());
    }
}

/// An hour of little and a moment of much: what the mean is over decides what it is.
#[test]
fn the_mean_of_a_served_run_is_over_the_recorded_time_as_that_of_a_simulated_one() {
    let recording = victim("marks_in_memory.c", &["plain", "slow"]).record();
    let answer = recording.json("what-if", &["--allocator", "glibc", "--touch", "all"]);
    let means: Vec<u64> = list(&answer, "runs").iter().map(|run| number(run, "mean_footprint_bytes")).collect();
    println!("{means:?}");
    assert!(means[0].abs_diff(means[1]) * 20 < means[0], "{means:?}");
}

#[test]
fn other_allocators_serve_the_recorded_requests() {
    let recording = victim("what_if/waves.c", &[]).record();
    for (allocator, library) in [
        ("glibc", ""),
        ("jemalloc", "libjemalloc.so.2"),
        ("mimalloc", "libmimalloc.so.2"),
        ("tcmalloc", "libtcmalloc_minimal.so.4"),
    ] {
        if !library.is_empty() && !std::path::Path::new("/usr/lib/x86_64-linux-gnu").join(library).exists() {
            println!("skipped: {library} is not installed");
            continue;
        }
        let answer = recording.json("what-if", &["--allocator", allocator, "--touch", "all"]);
        let runs = list(&answer, "runs");
        let (baseline, run) = (&runs[0], &runs[1]);
        println!("{allocator}: {run}");
        assert_eq!((run["name"].as_str(), run["engine"].as_str()), (Some(allocator), Some("replay")));
        assert_eq!(number(run, "refused_requests"), 0);
        // Whoever holds all blocks with every page written to has at least what is live at the worst moment.
        assert!(number(run, "peak_rss_bytes") > number(baseline, "peak_rss_bytes") / 2, "{allocator}");
        assert!(number(run, "page_faults") > 0 && number(run, "duration_ns") > 0);
        if allocator == "glibc" {
            let off = number(run, "peak_rss_bytes").abs_diff(number(baseline, "peak_rss_bytes"));
            assert!(off <= 128 << 10, "the real glibc's resident peak is {off} B from the modelled one");
        }
    }
}

#[test]
fn a_served_run_writes_to_as_much_of_a_block_as_the_program_had_written() {
    // Half of its 8 MiB is; the 3 MB of small blocks are.
    let recording = victim("marks_in_memory.c", &[]).record_with(&["--snapshot-at-markers"]);
    let peak_kib = |options: &[&str]| {
        let answer = recording.json("what-if", &[&["--allocator", "glibc"], options].concat());
        number(&list(&answer, "runs")[1], "peak_rss_bytes") / 1024
    };
    let (recorded, all) = (peak_kib(&[]), peak_kib(&["--touch", "all"]));
    println!("recorded {recorded} KiB, all {all} KiB");
    // The kernel counts resident pages by processor and adds them up now and then.
    assert!((all - recorded).abs_diff(4 * 1024) <= 256, "the half that was never written to");
    assert!(recorded.abs_diff(7_040) <= 256, "{recorded}");
}

#[test]
fn an_allocator_that_is_none_is_refused() {
    let recording = victim("story.c", &[]).record();
    let output = support::xalloc().arg("what-if").arg(&recording.trace).args(["--allocator", "hoard"]).output();
    let output = output.expect("xalloc-report starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("hint: there are jemalloc"));
}

#[test]
fn a_site_is_named_by_the_operator_that_allocates() {
    let recording = victim("threaded_maps.cpp", &[]).record();
    let answer = recording.json("what-if", &["--without", "operator new*"]);
    let runs = list(&answer, "runs");
    let [before, without] = [0, 1].map(|run| number(&runs[run], "peak_footprint_bytes"));
    assert!(without * 4 < before, "{without} of {before}");
}
