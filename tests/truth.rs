//! Exact truth on small programs: what a victim's header says is what every report says.
//!
//! The victims and the meaning of their `truth:` lines are explained in `tests/programs/README.md`.

mod support;

use std::collections::HashMap;

use serde_json::Value;
use support::victims::{self, deep_binding_victim, exporting_victim, files, loader_of_libraries, source, victim};
use support::{Load, Recording, functions, list, number, tool, xalloc};

/// One `truth:` line.
struct Claim {
    scope: String,
    values: Vec<(String, u64)>,
}

fn claims(file: &str) -> Vec<Claim> {
    let source = source(file);
    let lines = source.lines().filter_map(|line| line.split_once("truth: ")).map(|(_, claim)| claim);
    let claims: Vec<Claim> = lines
        .map(|line| {
            let (scope, values) = line.rsplit_once(": ").unwrap_or_else(|| panic!("{file}: no scope in {line}"));
            let value = |pair: &str| {
                let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("{file}: {pair}"));
                (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{file}: {pair}")))
            };
            Claim { scope: scope.to_owned(), values: values.split_whitespace().map(value).collect() }
        })
        .collect();
    assert!(!claims.is_empty(), "{file} states no truth");
    claims
}

/// Records the victim and holds every claim of its header against the reports.
fn holds(file: &str, load: &Load) -> Recording {
    holds_with(file, load, &[])
}

/// As [`holds`], recorded with further options.
fn holds_with(file: &str, load: &Load, options: &[&str]) -> Recording {
    let plain = load.plain();
    let recording = load.record_with(options);
    assert_eq!(recording.status().code(), plain.status.code(), "{file}: {}", recording.stderr());
    assert_eq!(recording.output.stdout, plain.stdout, "{file} printed something else");
    let summary = recording.summary();
    let sites = recording.sites();
    for claim in claims(file) {
        for (name, expected) in &claim.values {
            let found = figure(&claim, name, *expected, &summary, &sites);
            assert_eq!(found, *expected, "{file}: {}: {name}\n{}", claim.scope, recording.stderr());
        }
    }
    recording
}

/// What the reports say where `claim` says `expected`.
fn figure(claim: &Claim, name: &str, expected: u64, summary: &Value, sites: &[Value]) -> u64 {
    if claim.scope == "summary" {
        return number(summary, name);
    }
    if let Some(function) = claim.scope.strip_prefix("in ") {
        let goes_through = |site: &&Value| functions(site).iter().any(|name| name.contains(function));
        let of_function: Vec<&Value> = sites.iter().filter(goes_through).collect();
        assert!(!of_function.is_empty(), "no call stack goes through {function}");
        return of_function.iter().map(|site| number(site, name)).sum();
    }
    if let Some(threads) = claim.scope.strip_suffix(" threads") {
        let wanted: usize = threads.parse().expect("a number of threads");
        let alike = |thread: &&Value| claim.values.iter().all(|(name, value)| number(thread, name) == *value);
        let all = list(summary, "by_thread");
        assert_eq!(all.iter().filter(alike).count(), wanted, "threads with all of {:?} in {all:?}", claim.values);
        return expected;
    }
    let forked = match claim.scope.as_str() {
        "parent process" => false,
        "child process" => true,
        other => panic!("no such scope: {other}"),
    };
    let processes = list(summary, "by_process");
    let matching: Vec<&Value> = processes.iter().filter(|process| process["parent_pid"].is_null() != forked).collect();
    assert_eq!(matching.len(), 1, "{}: {processes:?}", claim.scope);
    number(matching[0], name)
}

#[test]
fn totals_peak_by_stack_temporary_and_what_stays_are_exact() {
    let recording = holds("totals.c", &victim("totals.c", &[]));
    let leaks = list(&recording.json("leaks", &[]), "sites");
    assert_eq!(leaks.len(), 1, "{leaks:?}");
    assert_eq!((number(&leaks[0], "bytes"), number(&leaks[0], "blocks")), (10_000, 10));
    let innermost = &list(&leaks[0], "frames")[0];
    assert_eq!(innermost["function"], "truth_keep");
    assert_eq!(innermost["inlined"], false);
    let file = innermost["file"].as_str().expect("a source file");
    assert!(file.ends_with("totals.c"), "{file}");
    let line = number(innermost, "line") as usize;
    assert!(source("totals.c").lines().nth(line - 1).expect("a line of the file").contains("malloc(1000)"), "{line}");
    assert!(innermost["module"].as_str().expect("a module").ends_with("totals"));
}

#[test]
fn the_histogram_holds_every_allocation_in_its_class() {
    let recording = victim("totals.c", &[]).record();
    let histogram = recording.json("histogram", &[]);
    let buckets = list(&histogram, "buckets");
    let sum = |name| buckets.iter().map(|bucket| number(bucket, name)).sum::<u64>();
    assert_eq!((sum("count"), sum("bytes")), (119, 214_200));
    let class_of = |size| {
        let holds = |bucket: &&Value| number(bucket, "from_bytes") <= size && size < number(bucket, "to_bytes");
        let of_size: Vec<u64> = buckets.iter().filter(holds).map(|bucket| number(bucket, "count")).collect();
        assert_eq!(of_size.len(), 1, "{size} is in {} classes", of_size.len());
        of_size[0]
    };
    assert_eq!([32, 200, 1_000, 50_000].map(class_of), [100, 5, 10, 4]);
    assert!(histogram["percentiles"].is_object());
}

/// The naive oracle: replays the events one by one and comes to the figures of the summary.
#[test]
fn the_events_add_up_to_the_summary() {
    for (file, load) in [("totals.c", victim("totals.c", &[])), ("threads.c", victim("threads.c", &[]))] {
        let recording = load.record();
        let summary = recording.summary();
        let (mut live, mut peak, mut bytes, mut blocks) = (0, 0, 0, HashMap::new());
        let (mut allocations, mut frees, mut last_seq) = (0, 0, None);
        for event in recording.events("alloc,free") {
            assert!(last_seq < Some(number(&event, "seq")), "{file}: {event} is out of order");
            last_seq = Some(number(&event, "seq"));
            let addr = event["addr"].as_str().expect("an address").to_owned();
            let size = number(&event, "size");
            match event["kind"].as_str() {
                Some("alloc") => {
                    allocations += 1;
                    bytes += size;
                    live += size;
                    assert_eq!(blocks.insert(addr, size), None, "{file}: {event} overlaps a live block");
                }
                Some("free") => {
                    frees += 1;
                    assert_eq!(blocks.remove(&addr), Some(size), "{file}: {event} frees something else");
                    live -= size;
                }
                other => panic!("{file}: {other:?}"),
            }
            peak = peak.max(live);
        }
        let figures = ["allocations", "frees", "allocated_bytes", "peak_live_bytes", "live_at_exit_bytes"];
        assert_eq!(figures.map(|name| number(&summary, name)), [allocations, frees, bytes, peak, live], "{file}");
        assert_eq!(number(&summary, "live_at_exit_blocks"), blocks.len() as u64, "{file}");
    }
}

#[test]
fn a_realloc_is_told_in_place_moved_and_failed() {
    holds("realloc.c", &victim("realloc.c", &[]));
}

#[test]
fn zero_sizes_arrays_alignment_and_overflow_are_counted_as_asked() {
    holds("zero_and_aligned.c", &victim("zero_and_aligned.c", &[]));
}

#[test]
fn eight_threads_that_free_each_others_blocks_keep_their_own_books() {
    for clock in ["auto", "tsc", "monotonic"] {
        let recording = holds_with("threads.c", &victim("threads.c", &[]), &["--clock", clock]);
        let duration_ns = number(&recording.summary(), "duration_ns");
        assert!((1_000..60_000_000_000).contains(&duration_ns), "{clock}: {duration_ns}");
    }
}

#[test]
fn a_forked_child_has_books_of_its_own_and_its_inheritance_apart() {
    holds("fork.c", &victim("fork.c", &[]));
}

#[test]
fn a_child_that_no_fork_handler_announces_is_recorded_and_said_to_lack_its_parents_blocks() {
    let recording = holds("unannounced.c", &victim("unannounced.c", &[]));
    let note = "forked processes that began without their parent's blocks, because the fork was not seen: 1";
    assert!(recording.stderr().contains(note), "{}", recording.stderr());
}

#[test]
fn children_by_posix_spawn_vfork_fork_and_exec_are_followed() {
    holds("spawn.c", &victim("spawn.c", &[]));
}

#[test]
fn a_program_that_replaces_itself_again_and_again_is_followed_to_its_last_child() {
    holds("replaced.c", &victim("replaced.c", &[]));
}

#[test]
fn without_follow_only_the_command_itself_is_recorded() {
    let load = victim("fork.c", &[]);
    let recording = load.record_with(&["--no-follow"]);
    assert_eq!(recording.status().code(), Some(0), "{}", recording.stderr());
    assert_eq!(number(&recording.summary(), "processes"), 1);
    assert!(recording.sites_in("truth_child").is_empty());
}

#[test]
fn stacks_through_libraries_that_are_gone_keep_their_names() {
    holds("dlopen.c", &loader_of_libraries());
}

#[test]
fn a_library_that_looks_into_libc_first_is_served_by_the_same_heap() {
    let load = deep_binding_victim();
    for allocator in ["core", "system"] {
        holds_with("deep_bind.c", &load, &["--allocator", allocator]);
    }
}

/// As jemalloc does it: whoever calls `malloc` while the program maps its first memory waits for ever.
#[test]
fn a_program_with_a_malloc_of_its_own_runs_on_and_is_said_to_be_served_by_that() {
    let load = exporting_victim("own_malloc.c", &[]);
    let recording = load.record();
    assert_eq!(recording.output.stdout, load.plain().stdout);
    assert_eq!(recording.status().code(), Some(0), "{}", recording.stderr());
    assert!(recording.stderr().contains("no call of malloc was seen"), "{}", recording.stderr());
    let mut doctor = xalloc();
    doctor.arg("doctor");
    let doctor = load.behind(doctor);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("defines malloc itself"), "{doctor:?}");
}

#[test]
fn an_inlined_function_is_a_frame_of_its_own_inside_the_other() {
    let recording = holds("inlined.c", &victim("inlined.c", &[]));
    for site in recording.sites_in("truth_outer") {
        let frames = list(&site, "frames");
        let told: Vec<_> = frames.iter().take(3).map(|frame| (&frame["function"], &frame["inlined"])).collect();
        let expected = [("truth_inner", true), ("truth_outer", false), ("main", false)];
        for (found, (function, inlined)) in told.iter().zip(expected) {
            assert_eq!(found.0, function, "{frames:?}");
            assert_eq!(*found.1, inlined, "{frames:?}");
        }
        assert_eq!(told.len(), expected.len());
    }
}

#[test]
fn templates_operators_and_exceptions_are_told_by_their_names() {
    let recording = holds("templates.cpp", &victim("templates.cpp", &[]));
    let call_in = |function: &str| recording.sites_in(function)[0]["call"].as_str().map(str::to_owned);
    assert_eq!(call_in("truth::single").as_deref(), Some("operator new"));
    // libstdc++'s new[] jumps to new, so that no frame of its own tells the two apart: the call does.
    for arrays in ["truth::many", "truth::make<long", "truth::lined", "truth::quiet"] {
        assert_eq!(call_in(arrays).as_deref(), Some("operator new[]"), "{arrays}");
    }
}

#[test]
fn rust_functions_have_their_v0_names() {
    let recording = holds("names.rs", &victim("names.rs", &[]));
    for site in recording.sites_in("truth::") {
        assert!(functions(&site).iter().all(|name| !name.starts_with("_R")), "{:?}", functions(&site));
    }
}

#[test]
fn a_stack_goes_on_through_the_frame_of_a_signal() {
    let recording = holds("signal.c", &victim("signal.c", &[]));
    let functions = functions(&recording.sites_in("truth_handler")[0]);
    let at = |wanted: &str| functions.iter().position(|name| name == wanted);
    assert!(at("truth_handler") < at("truth_raise") && at("truth_raise") < at("main"), "{functions:?}");
    assert_eq!(at("truth_handler"), Some(0), "{functions:?}");
}

#[test]
fn a_recursion_deeper_than_a_stack_keeps_is_cut_and_says_so() {
    let recording = holds("recursion.c", &victim("recursion.c", &[]));
    let sites = recording.sites_in("truth_bottom");
    let of_size =
        |size| sites.iter().find(|site| number(site, "allocated_bytes") == size).expect("a site of that size");
    let depth = |site| functions(site).iter().filter(|name| *name == "truth_descend").count();
    assert_eq!((depth(of_size(500)), &of_size(500)["stack"]), (501, &Value::from("whole")));
    assert_eq!(of_size(3_000)["stack"], "cut");
    assert!((1_000..3_000).contains(&depth(of_size(3_000))), "{}", depth(of_size(3_000)));
}

#[test]
fn the_programs_own_mappings_are_told_with_their_kind_and_their_caller() {
    let recording = holds("mappings.c", &victim("mappings.c", &[]));
    let events = recording.events("mmap,munmap,mremap,madvise,brk");
    let mut told = Vec::new();
    for event in &events {
        let kind = event["kind"].as_str().expect("a kind");
        let by = event["by"]["function"].as_str().unwrap_or_default();
        if !by.starts_with("truth_") {
            continue;
        }
        told.push(match kind {
            "program-mmap" => {
                let path = event["path"].as_str().expect("a path");
                let of_file = path.ends_with("mappings");
                assert_eq!(of_file, !path.is_empty(), "{path}");
                let shared = event["shared"].as_bool().expect("shared or private");
                format!("{by} {kind} {} {} {shared} {of_file}", number(event, "size"), event["protection"])
            }
            "program-munmap" => format!("{by} {kind} {}", number(event, "size")),
            "program-mremap" => format!("{by} {kind} {} {}", number(event, "size"), number(event, "to_size")),
            "program-madvise" => format!("{by} {kind} {} {}", number(event, "size"), event["advice"]),
            "program-brk" => {
                let moved = support::address(event, "to") as i64 - support::address(event, "from") as i64;
                format!("{by} {kind} {moved}")
            }
            other => panic!("{other} in a program that allocates nothing"),
        });
    }
    let expected = [
        r#"truth_private program-mmap 1048576 "rw-" false false"#,
        r#"truth_private program-madvise 1048576 "dontneed""#,
        r#"truth_private program-madvise 4096 "lock""#,
        r#"truth_private program-madvise 4096 "unlock""#,
        "truth_private program-mremap 1048576 2097152",
        "truth_private program-munmap 2097152",
        r#"truth_shared program-mmap 65536 "rw-" true false"#,
        "truth_shared program-munmap 65536",
        r#"truth_file program-mmap 4096 "r--" false true"#,
        "truth_file program-munmap 4096",
        "truth_break program-brk 8192",
        "truth_break program-brk -8192",
    ];
    // sbrk(0) asks and moves nothing; whether it is told does not matter.
    told.retain(|line| line != "truth_break program-brk 0");
    assert_eq!(told, expected);
}

#[test]
fn every_way_out_of_a_program_leaves_the_same_books_and_the_same_status() {
    let ways = ["return", "exit", "_exit", "_Exit", "quick_exit", "abort", "SIGTERM", "SIGINT", "SIGKILL", "SIGSEGV"];
    for way in ways {
        let load = victim("endings.c", &[way]);
        let plain = load.plain();
        let recording = load.record();
        let expected = exit_code_of_record(&plain);
        assert_eq!(recording.status().code(), Some(expected), "{way}: {}", recording.stderr());
        assert_eq!(recording.output.stdout, plain.stdout, "{way}");
        let summary = recording.summary();
        let sites = recording.sites();
        for claim in claims("endings.c") {
            for (name, expected) in &claim.values {
                assert_eq!(figure(&claim, name, *expected, &summary, &sites), *expected, "{way}: {name}");
            }
        }
        let end = &summary["end"];
        match plain_signal(&plain) {
            Some(signal) => assert_eq!((&end["how"], number(end, "signal")), (&"signalled".into(), signal as u64)),
            None => assert_eq!((&end["how"], number(end, "status")), (&"exited".into(), expected as u64)),
        }
    }
}

fn plain_signal(plain: &std::process::Output) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&plain.status)
}

/// `record` ends with the program's own status, or 128 and the number of the signal that ended it.
fn exit_code_of_record(plain: &std::process::Output) -> i32 {
    plain.status.code().or_else(|| plain_signal(plain).map(|signal| 128 + signal)).expect("it ended in one of two ways")
}

#[test]
fn a_program_that_closes_every_fd_is_recorded_to_its_end() {
    holds("closes_fds.c", &victim("closes_fds.c", &[]));
}

#[test]
fn a_program_that_clears_its_environment_is_recorded_to_its_end() {
    holds("clears_environment.c", &victim("clears_environment.c", &[]));
}

#[test]
fn forty_thread_keys_with_destructors_that_free_are_counted() {
    holds("thread_keys.c", &victim("thread_keys.c", &[]));
}

#[test]
fn the_system_allocator_gives_the_same_books() {
    for file in ["totals.c", "zero_and_aligned.c"] {
        let recording = victim(file, &[]).record_with(&["--allocator", "system"]);
        let summary = recording.summary();
        assert_eq!(summary["allocator"], "system");
        let sites = recording.sites();
        for claim in claims(file) {
            for (name, expected) in &claim.values {
                assert_eq!(figure(&claim, name, *expected, &summary, &sites), *expected, "{file}: {name}");
            }
        }
    }
}

/// The victims' truth itself is checked against a tool that shares nothing with ours.
#[test]
fn dhat_counts_what_the_victims_headers_say() {
    let Some(valgrind) = tool("valgrind") else { return };
    let folder = tempfile::tempdir().expect("a folder for DHAT's output");
    // DHAT charges a realloc to the stack of the first allocation, does not know pvalloc, and writes one file a process.
    let not_comparable = [
        "realloc.c",
        "zero_and_aligned.c",
        "fork.c",
        "spawn.c",
        "replaced.c",
        "dlopen.c",
        "unannounced.c",
        "deep_bind.c",
    ];
    let mut compared = 0;
    for file in files(&["c", "cpp"]) {
        if not_comparable.contains(&file.as_str()) || !source(&file).contains("truth: in ") {
            continue;
        }
        let load = victim(&file, &[]);
        let out = folder.path().join(&file);
        let mut command = std::process::Command::new(&valgrind);
        command.args(["--tool=dhat", "--num-callers=100"]).arg(format!("--dhat-out-file={}", out.display()));
        load.behind(command);
        let profile: Value = serde_json::from_slice(&std::fs::read(&out).expect("DHAT's output")).expect("JSON");
        for claim in claims(&file) {
            let Some(function) = claim.scope.strip_prefix("in ") else { continue };
            for (name, expected) in &claim.values {
                let Some(key) = dhat_key(name) else { continue };
                assert_eq!(dhat_sum(&profile, function, key), *expected, "{file}: {function}: {name}");
                compared += 1;
            }
        }
    }
    assert!(compared > 40, "only {compared} figures were compared");
}

fn dhat_key(name: &str) -> Option<&'static str> {
    match name {
        "allocations" => Some("tbk"),
        "allocated_bytes" => Some("tb"),
        "live_at_exit_bytes" => Some("eb"),
        "live_at_exit_blocks" => Some("ebk"),
        "peak_bytes" => Some("gb"),
        "peak_blocks" => Some("gbk"),
        // Temporary allocations and reallocs it does not count.
        _ => None,
    }
}

fn dhat_sum(profile: &Value, function: &str, key: &str) -> u64 {
    let names = list(profile, "ftbl");
    let goes_through = |point: &&Value| {
        list(point, "fs").iter().any(|frame| {
            let name = frame.as_u64().and_then(|index| names[index as usize].as_str());
            name.is_some_and(|name| name.contains(function))
        })
    };
    list(profile, "pps").iter().filter(goes_through).map(|point| number(point, key)).sum()
}

#[test]
fn a_block_that_is_freed_twice_is_told_apart_from_foreign_memory() {
    let load = victim("double_free.c", &[]);
    let recording = load.record();
    assert_eq!(Some(exit_code_of_record(&load.plain())), recording.status().code(), "{}", recording.stderr());
    let summary = recording.summary();
    for claim in claims("double_free.c") {
        for (name, expected) in &claim.values {
            assert_eq!(number(&summary, name), *expected, "{name}");
        }
    }
    let first = &list(&summary, "first_faults")[0];
    let block = &first["block"];
    assert_eq!(number(block, "size"), 100);
    assert_eq!(block["allocated"]["frames"][0]["function"], "main");
    assert!(number(first, "at_ns") >= number(&block["freed"], "at_ns"));
    let shown = recording.stderr();
    assert!(shown.contains("a block that was freed before") && shown.contains("SIGABRT"), "{shown}");
}

#[test]
fn a_program_whose_file_is_replaced_by_its_like_while_it_runs_keeps_its_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("renewed");
    std::fs::copy(victims::program("renewed.c"), &program).expect("a copy");
    let recording = Load::new(&program, &[&program.to_string_lossy()]).record();
    assert_eq!(recording.status().code(), Some(7), "{}", recording.stderr());
    let top = recording.json("top", &["--by", "count"]);
    let sites = list(&top, "sites");
    let named: Vec<_> =
        sites.iter().filter(|site| functions(site).iter().any(|name| name == "allocated_after")).collect();
    assert_eq!(named.len(), 1, "{sites:#?}");
}
