//! Who keeps the memory: the report on recorded programs against what the real libc and the kernel do.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use support::victims::victim;
use support::{Load, Recording, Trace, functions, list, number, tool};

const KIB: u64 = 1024;

/// The heap of `recording` just before its program called `malloc_trim`.
fn before_the_trim(recording: &Recording) -> Value {
    let given_back = recording.events("release,trim");
    let first = given_back.first().expect("malloc_trim gives something back");
    let seq = (number(first, "seq") - 1).to_string();
    recording.json("fragmentation", &["--at", &seq])
}

#[test]
fn malloc_trim_of_the_real_libc_gives_back_to_the_page_what_the_ladder_says() {
    let program = victim("fragments.c", &[]);
    let recording = program.record();
    let seen = before_the_trim(&recording);
    // The program as it is, on the libc of this machine.
    let printed = String::from_utf8(program.plain().stdout).expect("text");
    let kib: Vec<u64> = printed.split_whitespace().map(|word| word.parse().expect("a number of KiB")).collect();
    let (before, after) = (kib[0] * KIB, kib[1] * KIB);
    assert!(before > after + 2_000 * KIB, "{printed}");
    let ladder = &seen["ladder"];
    assert_eq!(number(ladder, "systrim"), 0, "no free has trimmed, and none would: the top is small");
    assert_eq!(number(ladder, "malloc_trim"), before - after, "{ladder}");
    assert_eq!(number(ladder, "resident"), before, "{ladder}");
}

#[test]
fn the_culprits_of_a_recorded_program_are_named_by_function() {
    let recording = victim("fragments.c", &[]).record();
    let seen = before_the_trim(&recording);
    let step = &list(&seen, "staircase")[0];
    assert!(functions(step).iter().any(|name| name == "plugin_register"), "{step}");
    assert_eq!((number(step, "chunks"), number(step, "size")), (1, 72));
    assert!(number(step, "gain_bytes") > 2_700 * KIB, "{step}");
    let pins = list(&seen, "pins");
    assert!(functions(&pins[0]).iter().any(|name| name == "keep_note"), "{}", pins[0]);
    let shares: u64 = pins.iter().map(|pin| number(pin, "share_bytes")).sum();
    assert_eq!(shares, number(&seen, "pinned_bytes"));
    let books = &seen["books"];
    let classes = ["live", "tcache", "fastbin", "bin_free", "top", "metadata"];
    assert_eq!(classes.map(|class| number(books, class)).iter().sum::<u64>(), number(books, "segments"));
    let svg = recording.run("flamegraph", &["--metric", "pinned", "--at", "exit", "-o", "-"]);
    assert!(String::from_utf8_lossy(&svg.stdout).contains("keep_note"));
    for picture in ["map", "staircase", "ladder"] {
        let svg = recording.run("fragmentation", &["--picture", picture, "-o", "-"]);
        assert!(String::from_utf8_lossy(&svg.stdout).starts_with("<svg"), "{picture}");
    }
}

#[test]
fn a_free_past_the_cache_is_paired_with_who_made_the_block_and_one_into_it_is_not() {
    let seen = victim("free_pairs.c", &[]).record().json("fragmentation", &["--at", "exit", "--fixes", "never"]);
    let pairs = &seen["free_pairs"];
    assert_eq!((number(pairs, "known"), number(pairs, "unknown")), (21, 7), "{pairs}");
    let told: Vec<_> = list(pairs, "pairs")
        .iter()
        .map(|pair| {
            let leaf = |side: &str| functions(&pair[side])[0].clone();
            (leaf("allocated"), leaf("freed"), number(pair, "frees"), number(pair, "bytes"))
        })
        .collect();
    let pair = |made: &str, gone: &str, frees, bytes| (made.to_owned(), gone.to_owned(), frees, bytes);
    let expected = [pair("make", "drop_all", 20, 20 * 3_000), pair("make", "main", 1, 500_000)];
    assert_eq!(told, expected);
    // A block of a pair carries the site's id, by which what-if knows it.
    assert_eq!(list(pairs, "pairs")[0]["allocated"]["id"].as_str().map(str::len), Some(12));
}

/// The fields of the report that others build on.
#[test]
fn the_promised_fields_of_the_report_are_there() {
    let seen = victim("fragments.c", &[]).record().json("fragmentation", &["--at", "exit", "--fixes", "never"]);
    assert!(seen["rss"]["unexplained"].is_i64());
    for (object, fields) in [
        ("books", &["live", "tcache", "fastbin", "bin_free", "top", "metadata", "segments"][..]),
        ("ladder", &["systrim", "malloc_trim", "after_flush", "ideal", "resident"]),
        ("rss", &["total"]),
    ] {
        for field in fields {
            assert!(seen[object][field].is_u64(), "{object}.{field}");
        }
    }
    let (pin, step) = (&list(&seen, "pins")[0], &list(&seen, "staircase")[0]);
    assert!(["live_bytes", "share_bytes", "marginal_bytes"].iter().all(|field| pin[*field].is_u64()), "{pin}");
    assert!(["size", "gain_bytes"].iter().all(|field| step[*field].is_u64()), "{step}");
    assert!(!list(pin, "frames").is_empty() && !list(step, "frames").is_empty());
}

#[test]
fn the_report_quotes_what_what_if_predicts_for_the_fix_that_it_suggests() {
    let recording = victim("fragments.c", &[]).record();
    let seen = recording.json("fragmentation", &["--at", "exit"]);
    let fixes = &seen["fixes"];
    assert_eq!((&fixes["skipped"], &fixes["identical"]), (&Value::Null, &Value::Bool(true)));
    let best = &list(fixes, "tried")[0];
    assert!(functions(&best["at"]).iter().any(|name| name == "plugin_register"), "{best}");
    let option = best["option"].as_str().expect("an option of what-if");
    let answer = recording.json("what-if", &option.split(' ').collect::<Vec<_>>());
    let runs = list(&answer, "runs");
    for (quoted, run) in [(&fixes["unfixed"], &runs[0]), (best, &runs[1])] {
        for name in ["peak_footprint_bytes", "end_footprint_bytes"] {
            assert_eq!(number(quoted, name), number(run, name), "{name}");
        }
    }
    let saved = number(&fixes["unfixed"], "end_footprint_bytes") - number(best, "end_footprint_bytes");
    assert!(saved > 2_700 * KIB, "{saved}");
    let text = recording.run("fragmentation", &["--at", "exit", "--fixes", "never"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("not tried: not asked for"));
}

#[test]
fn under_another_allocator_the_blocks_are_known_and_the_report_says_what_is_not() {
    let recording = victim("fragments.c", &[]).record_with(&["--allocator", "system"]);
    let seen = recording.json("fragmentation", &["--at", "exit"]);
    assert_eq!((&seen["core"], number(&seen, "requested")), (&Value::Bool(false), 401 * 24 - 24 + 72));
    assert!(!list(&seen, "pins").is_empty());
    let heap = seen.pointer("/rss/map").and_then(Value::as_array);
    let heap = heap.and_then(|map| map.iter().find(|row| row["segment"] == "heap"));
    assert!(heap.is_some_and(|row| number(row, "resident_bytes") > 0), "the kernel knows where its heap is");
    let text = recording.run("fragmentation", &[] as &[&str]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("record with --allocator core"));
}

#[test]
fn a_program_that_allocates_nothing_has_an_empty_heap_and_its_resident_memory() {
    let recording = victim("nothing.c", &[]).record();
    let seen = recording.json("fragmentation", &["--at", "exit"]);
    assert_eq!((number(&seen, "blocks"), number(&seen["books"], "segments")), (0, 0), "{}", seen["books"]);
    assert_eq!((&seen["fixes"]["identical"], &seen["fixes"]["unfixed"]), (&Value::Null, &Value::Null));
    assert!(number(&seen["rss"], "total") > 0 && number(&seen["rss"], "heap_resident") == 0, "{}", seen["rss"]);
    let what_if = recording.json("what-if", &["--set", "top_pad=0"]);
    assert_eq!((number(&what_if, "allocations"), &what_if["fidelity"]["identical"]), (0, &Value::Null));
    let text = recording.run("what-if", &[] as &[&str]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("allocated nothing"));
}

#[test]
fn a_moment_for_a_flame_graph_of_the_whole_run_is_refused() {
    let recording = victim("fragments.c", &[]).record();
    let mut command = support::xalloc();
    command.arg("flamegraph").arg(&recording.trace.path);
    let refused = command.args(["--metric", "allocated", "--at", "exit", "-o", "-"]).output().expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{said}");
    assert!(said.contains("--at is a moment of --metric pinned") && said.contains("hint: "), "{said}");
}

/// A redis server that is filled by a script and ends.
const REDIS: &str = "redis-server --port 0 --save '' --unixsocket $0 & \
                     until redis-cli -s $0 ping; do sleep 0.1; done; \
                     redis-cli -s $0 eval 'for i=1,50000 do redis.call(\"set\", i, string.rep(\"x\", i % 300)) end' 0; \
                     sleep 0.3; redis-cli -s $0 shutdown nosave; wait";

/// A file of numbered lines in `folder`; every `step`th is there.
fn lines(folder: &str, step: &str) -> String {
    let path = format!("{folder}/lines.{step}");
    let every: usize = step.parse().expect("a number");
    let text: String = (0..300_000).step_by(every).map(|number| format!("line {number}\n")).collect();
    std::fs::write(&path, text).expect("a file of lines");
    path
}

/// The C++ compiler itself, on a source that takes it a while.
fn cc1plus(folder: &str) -> Option<Load> {
    let told = std::process::Command::new("c++").arg("-print-prog-name=cc1plus").output().ok()?;
    let program = String::from_utf8(told.stdout).ok()?.trim().to_owned();
    let source = format!("{folder}/large.cpp");
    std::fs::write(
        &source,
        "#include <map>\n#include <regex>\n#include <string>\nstd::map<std::string, std::regex> all;\n",
    )
    .expect("a source");
    Some(Load::new(program, &["-quiet", &source, "-o", &format!("{folder}/large.s")]))
}

/// Programs that live long enough to be looked at, with some load; their files lie in `folder`, and `trace` is one that
/// the last of them, our own, reads.
fn programs(folder: &str, trace: &str) -> Vec<Load> {
    let load = |name: &str, arguments: &[&str]| match tool(name) {
        Some(program) => Some(Load::new(program, arguments)),
        None => {
            println!("skipped: {name} is not installed");
            None
        }
    };
    let sql = "create table t(a,b); with recursive c(x) as (select 1 union all select x+1 from c where x<200000) \
               insert into t select x, hex(x) from c; create index i on t(b); select count(*) from t;";
    [
        load(
            "perl",
            &["-e", "my %h; $h{$_} = \"x$_\" for 1..150000; delete $h{$_} for 1..100000; select(undef,undef,undef,.2)"],
        ),
        load("sqlite3", &[":memory:", sql]),
        load("lua5.4", &["-e", "t={} for i=1,200000 do t[i]={tostring(i)} end"]),
        load("node", &["-e", "const a=[];for(let i=0;i<300000;i++)a.push({i:i,s:'x'+i});setTimeout(()=>a.length,200)"]),
        load("python3", &["-c", "import time\na=[{i: str(i)} for i in range(100000)]\ndel a[::2]\ntime.sleep(.2)"]),
        load("git", &["diff", "--no-index", "--stat", &lines(folder, "1"), &lines(folder, "3")]),
        tool("redis-server").and(load("sh", &["-c", REDIS, &format!("{folder}/redis")])),
        cc1plus(folder),
        Some(victim("threaded_maps.cpp", &[])),
        Some(Load::new(env!("CARGO_BIN_EXE_xalloc-report"), &["fragmentation", trace])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the last look at the program found of its resident memory; `None`: it ended before anybody looked.
fn resident(program: &Load) -> Option<serde_json::Value> {
    let recording = program.record_with(&["--allocator", "core"]);
    let mut seen = recording.json("fragmentation", &["--at", "exit", "--fixes", "never"]);
    Some(seen["rss"].take()).filter(|rss| !rss.is_null())
}

/// The kernel's count less the rows.
fn unexplained(rss: &Value) -> i64 {
    rss["unexplained"].as_i64().expect("a signed number of bytes")
}

#[test]
fn the_resident_memory_of_real_programs_is_explained_to_a_hundredth() {
    let folder = tempfile::tempdir().expect("a folder for what the programs read");
    let text = |path: &std::path::Path| path.to_str().expect("a path in UTF-8").to_owned();
    let own = victim("threaded_maps.cpp", &[]).record();
    for program in programs(&text(folder.path()), &text(&own.trace.path)) {
        let name = program.program().display();
        let Some(rss) = resident(&program) else {
            println!("skipped: {name} ended before it was looked at");
            continue;
        };
        assert_eq!(number(&rss, "segments"), number(&rss, "not_resident") + number(&rss, "heap_resident"));
        let map: u64 = list(&rss, "map").iter().map(|row| number(row, "resident_bytes")).sum();
        assert_eq!(map, number(&rss, "heap_resident") + number(&rss, "others_resident"));
        let (unexplained, total) = (unexplained(&rss), number(&rss, "total"));
        println!("{name}: {unexplained} of {total} bytes are unexplained");
        assert!(unexplained.unsigned_abs() * 100 <= total, "{name}: {unexplained} of {total}");
    }
}

#[test]
fn a_program_that_is_checked_on_its_way_out_is_looked_at_there() {
    // It takes a few milliseconds: nothing but its wait for the check keeps it for the look.
    let recording = victim("story.c", &[]).record();
    let looks = recording.json("fragmentation", &["--at", "exit"])["looks"].take();
    let last = looks.as_array().and_then(|looks| looks.last()).expect("a look");
    assert_eq!(last["reason"], "exit", "{looks:?}");
}

#[test]
fn a_forked_child_begins_with_its_parents_heap_and_its_books_go_on_from_there() {
    let recording = victim("fork_heap.c", &[]).record();
    let summary = recording.json("summary", &[] as &[&str]);
    let pids: Vec<u64> = list(&summary, "by_process").iter().map(|process| number(process, "pid")).collect();
    let at_exit = |pid: u64| recording.json("fragmentation", &["--at", "exit", "--process", &pid.to_string()]);
    let (parent, child) = (at_exit(pids[0]), at_exit(pids[1]));
    assert_eq!((number(&parent, "blocks"), number(&parent, "requested")), (64, 64 * 8_000));
    assert_eq!((number(&child, "blocks"), number(&child, "requested")), (36, 32 * 8_000 + 3 * 200 + 300_000));
    let segments = |of: &Value| number(&of["books"], "segments");
    let mapping = (300_000_u64 + 16).next_multiple_of(4096);
    assert_eq!(segments(&child), segments(&parent) + mapping, "the parent's break, and the mapping of its own");
    assert!(number(&child["books"], "bin_free") >= 20 * 8_000, "what the child freed beyond its cache lies in bins");
    let pins = list(&child, "pins");
    assert!(pins.iter().any(|pin| functions(pin).iter().any(|name| name == "before_fork")));
    // The footprint begins with what the parent had.
    let largest = child["ratios"]["at_largest"].as_f64().expect("a ratio");
    assert!(largest > 0.9, "{largest}");
    let chosen = pids[1].to_string();
    let told = |options: &[&str]| String::from_utf8_lossy(&recording.run("fragmentation", options).stderr).into_owned();
    assert!(told(&[]).contains("2 programs were recorded"), "the one that was taken is named");
    assert_eq!(told(&["--process", &chosen]), "");
    let why = child["fixes"]["skipped"].as_str().unwrap_or_default();
    assert!(why.is_empty() || why.contains("began as a fork"), "{why}");
}

#[test]
fn a_child_that_calls_late_begins_with_the_heap_of_its_own_fork() {
    let recording = victim("fork_late.c", &[]).record();
    let summary = recording.json("summary", &[] as &[&str]);
    let requested = |process: &Value| {
        let pid = number(process, "pid").to_string();
        number(&recording.json("fragmentation", &["--at", "exit", "--process", &pid]), "requested")
    };
    let mut requested: Vec<u64> = list(&summary, "by_process").iter().map(requested).collect();
    requested.sort_unstable();
    assert_eq!(requested, [41_000, 50_000, 51_000]);
}

#[test]
fn a_signal_to_the_recorder_makes_it_look_and_does_not_reach_the_program() {
    let Some(shell) = tool("sh") else { return };
    // The shell's parent is the recorder. A signal of its own would end it: it has no handler.
    let script = "sleep 0.3; kill -USR1 $PPID; sleep 0.2; kill -USR1 $PPID; sleep 0.2; exit 7";
    let recording = Load::new(shell, &["-c", script]).record_with(&["--snapshot-on-signal", "usr1"]);
    assert_eq!(recording.status().code(), Some(7), "{}", recording.stderr());
    // The first process is the shell; the others are what it waits for.
    let seen = recording.json("fragmentation", &["--at", "exit", "--process", "0"]);
    let looks = list(&seen, "looks");
    let of_signal: Vec<_> = looks.iter().filter(|look| look["reason"] == "signal").collect();
    assert_eq!(of_signal.len(), 2, "{looks:?}");
    assert!(of_signal.iter().all(|look| number(look, "resident_bytes") > 0 && number(look, "cost_ns") > 0));
}

/// The report at a mark, with the resident bytes of the heap.
fn at_mark(recording: &Trace, name: &str) -> (Value, u64) {
    let seen = recording.json("fragmentation", &["--at", &format!("marker:{name}"), "--fixes", "never"]);
    // A look for the peak may fall into the wait, and sees the same.
    assert!(["marker", "peak"].iter().any(|reason| seen["rss"]["reason"] == *reason), "{name}: {}", seen["rss"]);
    let resident = number(&seen["rss"], "heap_resident");
    (seen, resident)
}

#[test]
fn a_program_that_waits_at_its_marks_is_seen_as_it_is_there() {
    let recording = victim("marks_in_memory.c", &[]).record_with(&["--snapshot-at-markers"]);
    let ((full, resident_full), (empty, resident_empty)) = (at_mark(&recording, "full"), at_mark(&recording, "empty"));
    assert_eq!((number(&full, "blocks"), number(&full, "requested")), (1001, 3_000_000 + (8 << 20)));
    assert_eq!((number(&empty, "blocks"), number(&empty, "requested")), (0, 0));
    assert_eq!((&full["residency"], &empty["residency"]), (&Value::from("measured"), &Value::from("measured")));
    // Half of the large block, with its header, and 2,940 KiB of the break were written to; all but 33 or 34 pages of
    // padding go back.
    let gone = resident_full - resident_empty;
    assert!((6_900 * KIB..=6_910 * KIB).contains(&gone), "{gone}");
    let untouched = &list(&full["rss"], "untouched")[0];
    assert!(functions(untouched).iter().any(|name| name == "main"), "{untouched}");
    let unexplained = unexplained(&full["rss"]).unsigned_abs();
    assert!(unexplained * 100 <= number(&full["rss"], "total"), "{unexplained}");
}

/// Records `marks_in_memory` as a process that only root may look at, by a recorder without root's rights. `None`: the
/// test cannot give them up.
fn hidden(folder: &Path, arguments: &[&str], options: &[&str]) -> Option<Trace> {
    let program = victim("marks_in_memory.c", &[]);
    let trace = folder.join("hidden.xtrace");
    // A user who is nobody gets everything that is needed in a folder of his own.
    std::fs::set_permissions(folder, Permissions::from_mode(0o777)).expect("the folder is ours");
    let copy = |from: &Path, name: &str| {
        let to = folder.join(name);
        std::fs::copy(from, &to).expect("a copy");
        to
    };
    let own = copy(Path::new(env!("CARGO_BIN_EXE_xalloc-report")), "xalloc-report");
    let program = copy(program.program(), "marks_in_memory");
    let is_root = std::process::Command::new("id").arg("-u").output().is_ok_and(|told| told.stdout == b"0\n");
    let mut command = match (is_root, tool("setpriv")) {
        (false, _) => std::process::Command::new(own),
        (true, Some(setpriv)) => {
            let mut command = std::process::Command::new(setpriv);
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(own);
            command
        }
        (true, None) => {
            println!("skipped: root can look at everything, and setpriv is not there");
            return None;
        }
    };
    command.current_dir(folder).env("HOME", folder).env("TMPDIR", folder).env("XDG_CACHE_HOME", folder);
    command.env_remove("XDG_RUNTIME_DIR").arg("record").args(options).arg("-o").arg(&trace).arg("--").arg(program);
    let output = command.arg("hidden").args(arguments).output().expect("xalloc-report starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(Trace::at(trace))
}

#[test]
fn a_process_that_hides_its_page_tables_tells_its_pages_itself_and_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder for nobody");
    let Some(hidden) = hidden(folder.path(), &[], &["--snapshot-at-markers"]) else { return };
    let open = victim("marks_in_memory.c", &[]).record_with(&["--snapshot-at-markers"]);
    for name in ["full", "empty"] {
        let ((its, its_resident), (own, own_resident)) = (at_mark(&hidden, name), at_mark(&open, name));
        assert_eq!((&own["rss"]["pages_from"], &its["rss"]["pages_from"]), (&"pagemap".into(), &"mincore".into()));
        assert_eq!((&its["residency"], its_resident), (&Value::from("measured"), own_resident), "{name}");
        let unexplained = unexplained(&its["rss"]).unsigned_abs();
        assert!(unexplained * 100 <= number(&its["rss"], "total"), "{unexplained}");
        assert_eq!(list(&its["rss"], "untouched").len(), list(&own["rss"], "untouched").len());
    }
    let at_exit = hidden.json("fragmentation", &["--at", "exit", "--fixes", "never"]);
    assert_eq!((&at_exit["rss"]["reason"], &at_exit["rss"]["pages_from"]), (&"exit".into(), &"mincore".into()));
    let text = hidden.run("fragmentation", &["--at", "marker:full", "--fixes", "never"]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("it told its pages itself, by mincore") && text.contains("(mincore)"), "{text}");
}

#[test]
fn a_process_that_hides_its_page_tables_is_interrupted_for_them_when_a_signal_asks() {
    let folder = tempfile::tempdir().expect("a folder for nobody");
    let Some(hidden) = hidden(folder.path(), &["signal"], &["--snapshot-on-signal", "usr1"]) else { return };
    let seen = hidden.json("fragmentation", &["--at", "exit", "--fixes", "never"]);
    let looks = list(&seen, "looks");
    let of_signal: Vec<_> = looks.iter().filter(|look| look["reason"] == "signal").collect();
    assert_eq!(of_signal.len(), 1, "{looks:?}");
    assert_eq!(of_signal[0]["pages_from"], "mincore");
    // The first half of 8 MiB, and 2,940 KiB of the break.
    assert!(number(of_signal[0], "resident_bytes") > 6_900 * KIB, "{looks:?}");
}

#[test]
fn a_mark_that_nobody_set_is_no_moment() {
    let recording = victim("marks_in_memory.c", &[]).record();
    let unasked = recording.json("fragmentation", &["--at", "marker:full", "--fixes", "never"]);
    assert_eq!(number(&unasked, "blocks"), 1001, "the layout at a mark needs no look");
    let output = support::xalloc().arg("fragmentation").arg(&recording.trace).args(["--at", "marker:ful"]).output();
    let output = output.expect("xalloc-report starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no mark named `ful`") && said.contains("hint: "), "{said}");
}
