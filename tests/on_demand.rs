//! Checks for leaks of running processes: what they find, who may ask, what the program sees of it.

#[path = "support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::running::{Running, ask, blocks, result_of};
use support::victims::{library, program};
use support::{list, number, tool, xalloc};

/// As `docs/commands.md` lists it.
const INDETERMINATE: i32 = 3;

/// Sends a signal to a process of this test's own.
fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "SIG{name} to {pid}");
}

fn words_of(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_leak_that_comes_between_two_questions_is_in_the_second_answer_alone() {
    let mut running = Running::start(&[], &["frame"]);
    let first = running.leaks();
    assert_eq!((first["checked"].as_bool(), number(&first, "check")), (Some(true), 1));
    assert_eq!([blocks(&first, "definite", 3333), blocks(&first, "definite", 5555)], [1, 0], "{first}");
    assert_eq!(blocks(&first, "reachable", 7777), 1, "{first}");
    assert_eq!(running.say("l"), "lost");
    let second = running.leaks();
    assert_eq!([blocks(&second, "definite", 3333), blocks(&second, "definite", 5555)], [1, 1], "{second}");
    assert_eq!(number(&second["totals"]["definite"], "bytes"), 3333 + 5555);
    assert_eq!(second["processes"][0]["occasion"], "demand");
    let (status, trace, _folder) = running.end();
    assert_eq!(status.code(), Some(7), "the status is the program's");
    let at_end = trace.json("leaks", &[]);
    let told: Vec<_> = list(&at_end, "checks")
        .iter()
        .map(|check| (check["occasion"].as_str().unwrap_or_default().to_owned(), number(&check["leaked"], "bytes")))
        .collect();
    let kept = [("demand", 3333), ("demand", 3333 + 5555), ("exit", 7777 + 3333 + 5555)];
    assert_eq!(told, kept.map(|(occasion, bytes)| (occasion.to_owned(), bytes)));
    let kept = trace.json("leaks", &["--check", "1"]);
    assert_eq!(
        (&kept["totals"], &kept["bytes"]),
        (&first["totals"], &first["bytes"]),
        "a check is kept as it was shown"
    );
}

#[test]
fn what_threads_hold_anywhere_is_reachable_while_they_run() {
    let library = library("asked_library.c", "libasked.so");
    let library = library.to_str().expect("a path in UTF-8");
    let cases = ["frame", "thread", "register", "vector", "own", "shared", "blocking", library];
    for allocator in ["core", "system"] {
        for deaf in [&[][..], &["deaf"]] {
            let running = Running::start(&["--allocator", allocator], &[&cases, deaf].concat());
            let leaks = running.leaks();
            assert_eq!(leaks["checked"], true, "{}", leaks["not_checked_reason"]);
            let seen = [blocks(&leaks, "reachable", 7777), blocks(&leaks, "definite", 7777)];
            assert_eq!(seen, [cases.len() as u64, 0], "{allocator} {deaf:?}: {leaks}");
            if allocator == "core" {
                assert_eq!(blocks(&leaks, "definite", 3333), 1, "{deaf:?}: {leaks}");
            }
        }
    }
}

#[test]
fn hundreds_of_threads_stand_still_and_go_on() {
    let mut running = Running::start(&[], &["hundreds"]);
    let leaks = running.leaks();
    let process = &leaks["processes"][0];
    assert_eq!((&leaks["checked"], &process["running_threads"]), (&true.into(), &0.into()), "{process}");
    assert_eq!([blocks(&leaks, "reachable", 7777), blocks(&leaks, "definite", 3333)], [256, 1]);
    println!("256 threads were stopped for {} us", number(process, "duration_ns") / 1000);
    assert_eq!(running.say("l"), "lost", "it goes on");
}

#[test]
fn a_forked_child_is_asked_for_itself() {
    let running = Running::start(&[], &["frame", "child"]);
    let leaks = running.leaks();
    assert_eq!((list(&leaks, "processes").len(), blocks(&leaks, "definite", 3333)), (1, 1), "{leaks}");
    assert_eq!(blocks(&leaks, "inherited", 7777), 1, "{leaks}");
}

#[test]
fn a_signal_to_the_recorder_has_every_process_checked() {
    let running = Running::start(&["--leak-check-on-demand", "usr1"], &["frame", "child"]);
    signal(running.recorder(), "USR1");
    // What the recorder does by itself, nobody is told of; the next question is answered after it.
    let deadline = Instant::now() + Duration::from_secs(60);
    let own = loop {
        let of_child = list(&running.leaks(), "checks").len();
        if of_child >= 2 || Instant::now() > deadline {
            break of_child;
        }
        sleep(Duration::from_millis(50));
    };
    assert!(own >= 2, "the child was checked {own} times");
    let (_, trace, _folder) = running.end();
    let checks = list(&trace.json("leaks", &[]), "checks");
    let mut pids: Vec<_> =
        checks.iter().filter(|check| check["occasion"] == "demand").map(|check| &check["pid"]).collect();
    pids.sort_by_key(|pid| pid.as_u64());
    pids.dedup();
    assert_eq!(pids.len(), 2, "parent and child: {checks:?}");
}

#[test]
fn the_program_sees_nothing_but_time() {
    let asked = program("asked.c");
    let mut plain =
        Command::new(&asked).arg("frame").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    plain.stdin.take().expect("a pipe").write_all(b"lle").expect("a pipe");
    let plain = plain.wait_with_output().expect("it ends");
    let mut running = Running::start(&[], &["frame"]);
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count();
    let before = descriptors(running.pid);
    for _ in 0..2 {
        running.leaks();
        assert_eq!(running.say("l"), "lost");
    }
    assert_eq!(descriptors(running.pid), before);
    let threads = std::fs::read_dir(format!("/proc/{}/task", running.pid)).expect("its threads").count();
    assert_eq!(threads, 1);
    let (status, _, _folder) = running.end();
    assert_eq!(status.code(), plain.status.code());
    assert_eq!(
        String::from_utf8_lossy(&plain.stdout).lines().skip(1).collect::<Vec<_>>(),
        ["lost", "lost", "end, and kept"]
    );
}

#[test]
fn a_process_that_is_not_there_or_not_recorded_is_told_of_with_a_hint() {
    let told = words_of(&ask(1 << 30).output().expect("it starts"));
    assert!(told.contains("error: there is no process 1073741824") && told.contains("hint:"), "{told}");
    let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep");
    let told = words_of(&ask(sleeper.id()).output().expect("it starts"));
    let _ = (sleeper.kill(), sleeper.wait());
    assert!(
        told.contains("is not recorded") && told.contains("hint: only what runs under `xalloc-report record`"),
        "{told}"
    );
}

#[test]
fn who_is_not_checked_is_told_why() {
    let running = Running::start(&["--no-leak-check"], &[]);
    let told = words_of(&running.asked());
    assert!(told.contains("recorded without checks for leaks") && told.contains("hint:"), "{told}");
    drop(running);
    let running = Running::start(&["--sample", "4KiB"], &[]);
    let told = words_of(&running.asked());
    assert!(told.contains("recorded by --sample") && !told.contains("--no-leak-check"), "{told}");
    drop(running);
    let mut running = Running::start(&[], &["deaf"]);
    let told = words_of(&running.asked());
    assert!(told.contains("all of its threads block SIGURG") && told.contains("hint:"), "{told}");
    assert_eq!(running.say("l"), "lost");
}

#[test]
fn a_thread_that_waits_for_signals_is_handed_none() {
    let mut running = Running::start(&[], &["awaiting"]);
    // It said that it is ready a moment before it waits: until then all threads block.
    let told = loop {
        let told = words_of(&running.asked());
        if !told.contains("block SIGURG") {
            break told;
        }
    };
    assert!(told.contains("a thread of it waits for signals") && told.contains("hint:"), "{told}");
    assert_eq!(running.say("e"), "end");
}

#[test]
fn a_program_that_reads_its_signals_is_handed_none() {
    let mut running = Running::start(&[], &["reading"]);
    let told = words_of(&running.asked());
    assert!(told.contains("it has a signalfd for SIGURG") && told.contains("hint:"), "{told}");
    assert_eq!(running.say("e"), "end");
}

#[test]
fn a_program_with_a_handler_of_its_own_gets_the_signal_once() {
    let mut running = Running::start(&[], &["urgent"]);
    let told = words_of(&running.asked());
    assert!(told.contains("its handler for SIGURG is the program's own") && told.contains("hint:"), "{told}");
    assert_eq!(running.say("e"), "end after 1 signals");
}

/// Three ask at once of a process that is stopped; time enough goes by for all of them to be heard.
fn three_askers(running: &Running) -> [Child; 3] {
    let asker = || ask(running.pid).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let askers = [asker(), asker(), asker()];
    sleep(Duration::from_millis(500));
    askers
}

/// Records a program that allocates without a pause: the recorder, and the program's process id.
fn never_pausing(folder: &Path, options: &[&str]) -> (Child, u32) {
    let mut recorder = xalloc();
    recorder.args(["record", "-q", "--no-symbols", "-o"]).arg(folder.join("recording.xtrace")).args(options).arg("--");
    let recorder = recorder.arg(program("never_pauses.c")).stdout(Stdio::piped()).spawn();
    let mut recorder = recorder.expect("the recorder starts");
    let mut line = String::new();
    let output = recorder.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("it says its number");
    (recorder, line.trim().parse().expect("a number"))
}

#[test]
fn what_is_not_known_for_want_of_events_is_no_success() {
    let folder = tempfile::tempdir().expect("a folder for the trace");
    let (mut recorder, pid) = never_pausing(folder.path(), &["--overflow", "drop"]);
    signal(recorder.id(), "STOP");
    sleep(Duration::from_millis(300));
    signal(recorder.id(), "CONT");
    let answer = ask(pid).output().expect("xalloc-report starts");
    signal(pid, "KILL");
    recorder.wait().expect("the recorder ends");
    let told: Value = serde_json::from_slice(&answer.stdout).expect("JSON on stdout");
    let reason = told["result"]["not_checked_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("events are missing"), "{told}");
    assert_eq!(answer.status.code(), Some(INDETERMINATE), "{told}");
}

#[test]
fn a_program_that_allocates_without_a_pause_is_asked_between_two_calls() {
    let folder = tempfile::tempdir().expect("a folder for the trace");
    let (mut recorder, pid) = never_pausing(folder.path(), &[]);
    let answers: Vec<Output> = (0..5).map(|_| ask(pid).output().expect("xalloc-report starts")).collect();
    signal(pid, "KILL");
    recorder.wait().expect("the recorder ends");
    for answer in answers {
        let told = result_of(&answer);
        assert_eq!(told["checked"].as_bool(), Some(true), "{told}");
        assert_eq!(blocks(&told, "definite", 1234) + blocks(&told, "possible", 1234), 1, "{told}");
    }
}

#[test]
fn a_stopped_process_is_waited_for_and_who_asks_meanwhile_is_told_of_the_next_check() {
    let running = Running::start(&[], &[]);
    signal(running.pid, "STOP");
    let askers = three_askers(&running);
    signal(running.pid, "CONT");
    for asker in askers {
        let leaks = result_of(&asker.wait_with_output().expect("it ends"));
        assert_eq!(blocks(&leaks, "definite", 3333), 1);
        assert!(number(&leaks, "check") <= 2, "those who wait share a check");
    }
    signal(running.pid, "STOP");
    let told = words_of(&running.asked());
    assert!(told.contains("it is stopped") && told.contains("hint:"), "{told}");
    signal(running.pid, "CONT");
    assert_eq!(blocks(&running.leaks(), "definite", 3333), 1, "it can be asked again");
}

#[test]
fn a_process_that_ends_first_is_said_to_have_ended() {
    let running = Running::start(&[], &[]);
    signal(running.pid, "STOP");
    let askers = three_askers(&running);
    signal(running.pid, "KILL");
    for asker in askers {
        let told = words_of(&asker.wait_with_output().expect("it ends"));
        assert!(told.contains("ended before it could be checked") && told.contains("hint:"), "{told}");
    }
}

#[test]
fn a_process_whose_recorder_is_gone_runs_on_and_cannot_be_asked() {
    let mut running = Running::start(&[], &[]);
    signal(running.recorder(), "KILL");
    let deadline = Instant::now() + Duration::from_secs(20);
    // The lock goes with the recorder, a moment after the signal.
    let told = loop {
        let told = words_of(&running.asked());
        if told.contains("is gone") || Instant::now() > deadline {
            break told;
        }
    };
    assert!(told.contains("the recorder of process") && told.contains("hint: the process runs on"), "{told}");
    assert_eq!(running.say("l"), "lost");
}

#[test]
fn another_users_process_is_said_to_be_one() {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root || tool("setpriv").is_none() {
        println!("skipped: another user's process takes root and setpriv");
        return;
    }
    let running = Running::start(&[], &[]);
    // The program may lie where another user cannot go.
    let copy = std::env::temp_dir().join(format!("xalloc-report.{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_xalloc-report"), &copy).expect("a copy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups"]).arg(&copy).args(["leaks", "--pid", &running.pid.to_string()]);
    let output = command.output().expect("setpriv");
    std::fs::remove_file(copy).expect("the copy goes");
    let told = words_of(&output);
    assert!(told.contains("belongs to another user (uid 0)") && told.contains("hint: ask as that user"), "{told}");
}

/// Whether the kernel lets a process be traced here.
fn strace() -> Option<std::path::PathBuf> {
    let strace = tool("strace")?;
    let works = Command::new(&strace).args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success());
    if !works {
        println!("skipped: strace may not trace here");
    }
    works.then_some(strace)
}

/// Ends the program and looks at the check of its end.
fn is_checked_at_its_end(running: Running) {
    let (_, trace, _folder) = running.end();
    let leaks = trace.json("leaks", &[]);
    assert_eq!((&leaks["checked"], blocks(&leaks, "definite", 3333)), (&true.into(), 1), "{leaks}");
}

#[test]
fn a_process_is_checked_under_strace() {
    let Some(strace) = strace() else { return };
    let words = [strace.to_str().expect("a path in UTF-8"), "-f", "-o", "/dev/null"];
    let running = Running::start_behind(xalloc(), &[], &words, &["frame", "thread", "register"]);
    let leaks = running.leaks();
    assert_eq!([blocks(&leaks, "reachable", 7777), blocks(&leaks, "definite", 3333)], [3, 1], "{leaks}");
    is_checked_at_its_end(running);
}

#[test]
fn a_process_is_checked_where_looking_into_others_is_refused() {
    let mut confined = Command::new(program("confined.c"));
    confined.arg(env!("CARGO_BIN_EXE_xalloc-report"));
    let running = Running::start_behind(confined, &[], &[], &["frame", "thread", "register", "blocking"]);
    let leaks = running.leaks();
    assert_eq!([blocks(&leaks, "reachable", 7777), blocks(&leaks, "definite", 3333)], [4, 1], "{leaks}");
    is_checked_at_its_end(running);
    let preload = format!("LD_PRELOAD={}", library("undumpable.c", "libundumpable.so").display());
    let running = Running::start_behind(xalloc(), &[], &[&preload], &["frame", "thread", "register", "blocking"]);
    let leaks = running.leaks();
    assert_eq!([blocks(&leaks, "reachable", 7777), blocks(&leaks, "definite", 3333)], [4, 1], "{leaks}");
    is_checked_at_its_end(running);
}

/// One request to a redis server, and what it answered first.
fn redis(stream: &mut TcpStream, words: &[&str]) -> String {
    let mut request = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
    stream.write_all(request.as_bytes()).expect("the server listens");
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).expect("the server answers");
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[test]
fn a_server_with_many_keys_answers_on_while_it_is_checked() {
    const KEYS: usize = 200_000;
    let Some(server) = tool("redis-server") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let mut recorder = xalloc();
    recorder.args(["record", "-q", "-o"]).arg(folder.path().join("redis.xtrace")).arg(server);
    recorder.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    let mut recorder = recorder.current_dir(folder.path()).stdout(Stdio::null()).spawn().expect("the recorder starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "redis-server does not listen: {error}"),
        }
        sleep(Duration::from_millis(50));
    };
    let info = redis(&mut stream, &["INFO", "server"]);
    let pid =
        info.lines().find_map(|line| line.strip_prefix("process_id:")).expect("its number").trim().parse().unwrap();
    let filled = redis(
        &mut stream,
        &["EVAL", "for i=1,tonumber(ARGV[1]) do redis.call('SET', 'key:'..i, 'value '..i) end", "0", &KEYS.to_string()],
    );
    assert!(!filled.starts_with('-'), "{filled}");
    let asker = std::thread::spawn(move || result_of(&ask(pid).output().expect("it starts")));
    let asked = Instant::now();
    let (mut longest, mut answers) = (Duration::ZERO, 0_usize);
    while !asker.is_finished() {
        let number = answers * 7919 % KEYS + 1;
        let value = format!("value {number}");
        let sent = Instant::now();
        assert_eq!(redis(&mut stream, &["GET", &format!("key:{number}")]), format!("${}\r\n{value}\r\n", value.len()));
        assert_eq!(redis(&mut stream, &["SET", &format!("key:{number}"), &value]), "+OK\r\n");
        longest = longest.max(sent.elapsed());
        answers += 1;
        sleep(Duration::from_millis(1));
    }
    let leaks = asker.join().expect("an answer");
    assert_eq!(redis(&mut stream, &["DBSIZE"]), format!(":{KEYS}\r\n"));
    signal(pid, "TERM");
    recorder.wait().expect("the recorder ends");
    let process = &leaks["processes"][0];
    assert_eq!(leaks["checked"], true, "{}", leaks["not_checked_reason"]);
    let paused = Duration::from_nanos(number(process, "duration_ns"));
    println!(
        "{} live blocks: stopped for {paused:?}; the slowest of {answers} answers in {:?} took {longest:?}",
        number(&leaks, "blocks"),
        asked.elapsed()
    );
    assert!(number(&leaks, "blocks") > KEYS as u64);
    assert_eq!(
        number(&leaks["totals"]["definite"], "blocks") + number(&leaks["totals"]["cycle"], "blocks"),
        0,
        "{}",
        leaks["totals"]
    );
}
