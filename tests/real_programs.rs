//! Real programs: what they print and how they end is as without us, and no event is lost. Where a program is
//! single-threaded and does the same in each run, its allocations are counted as heaptrack counts them.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::victims::victim;
use support::{Load, Recording, number, tool, xalloc};

/// Records the load; output, status and completeness are as they must be.
fn undisturbed(load: &Load) -> Recording {
    let plain = load.plain();
    assert!(plain.status.success(), "it fails without us: {}", String::from_utf8_lossy(&plain.stderr));
    assert!(!plain.stdout.is_empty(), "a load that prints nothing proves nothing");
    let recording = load.record();
    assert_eq!(recording.status().code(), plain.status.code(), "{}", recording.stderr());
    assert!(recording.output.stdout == plain.stdout, "{} prints something else", load.program().display());
    complete(&recording.summary());
    summed_up_as_read(&recording);
    recording
}

/// What was added up while the program ran is what its trace says when it is read.
fn summed_up_as_read(recording: &Recording) {
    let read = recording.run::<&str>("summary", &[]).stdout;
    let read = String::from_utf8_lossy(&read);
    assert!(read.contains("allocations"), "{read}");
    assert!(recording.stderr().contains(&*read), "`record` said\n{}\nand `summary`\n{read}", recording.stderr());
}

fn complete(summary: &Value) {
    for name in ["dropped_events", "unknown_frees", "implied_frees", "unknown_stacks"] {
        assert_eq!(number(summary, name), 0, "{name} in {summary}");
    }
    assert!(number(summary, "allocations") > 0);
}

/// Allocations of the load as heaptrack counts them; `None` where there is no heaptrack. (Its format cannot hold a command
/// line with line feeds: scripts go into files.)
fn heaptrack_count(load: &Load) -> Option<u64> {
    let heaptrack = tool("heaptrack")?;
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(heaptrack);
    command.arg("-o").arg(folder.path().join("count"));
    // heaptrack takes its variables out of the program's environment, ours stay in (children need them), and perl and
    // python copy every variable: two more make the programs alike.
    command.env("STANDS_FOR_LD_PRELOAD", "1").env("STANDS_FOR_XALLOC_SESSION", "1");
    let output = load.behind(command);
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // The program's own output is in there too; heaptrack's count comes behind it.
    let count = told.lines().rev().find_map(|line| line.trim_start().strip_prefix("allocations:"));
    let count = count.and_then(|digits| digits.trim().parse::<u64>().ok());
    let count = count.unwrap_or_else(|| panic!("no count in what heaptrack said:\n{told}"));
    Some(count - of_heaptracks_own(load.program()))
}

/// As [`heaptrack_count`], from heaptrack's record of each allocation: what it interprets that with runs out of memory
/// (`std::bad_alloc`) while it reads the debug information of some programs.
fn heaptrack_raw_count(load: &Load) -> Option<u64> {
    let (heaptrack, zstd) = (tool("heaptrack")?, tool("zstd")?);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(heaptrack);
    command.arg("--raw").arg("-o").arg(folder.path().join("raw"));
    let told = load.behind(command);
    let raw = folder.path().join("raw.raw.zst");
    assert!(raw.exists(), "no record in what heaptrack made:\n{}", String::from_utf8_lossy(&told.stderr));
    let unpacked = Command::new(zstd).args(["-d", "-c"]).arg(raw).output().expect("zstd starts").stdout;
    // A line that begins with `+` is an allocation.
    let count = unpacked.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"+")).count() as u64;
    Some(count - of_heaptracks_own(load.program()))
}

/// heaptrack's library is C++: a program that does not load libstdc++ itself gets the one block that libstdc++ makes at
/// its start (its reserve for exceptions) on top.
fn of_heaptracks_own(program: &Path) -> u64 {
    let output = Command::new("ldd").arg(program).output().expect("ldd starts");
    u64::from(!String::from_utf8_lossy(&output.stdout).contains("libstdc++"))
}

fn counted_as_heaptrack_does(load: &Load, recording: &Recording) {
    counted_within(0, load, recording);
}

/// For interpreters that copy each variable of the environment into tables of their own: how many allocations that
/// takes depends on the variables' very names (perl: 5 or 6 each, measured by adding some), and ours are not heaptrack's.
fn counted_as_heaptrack_does_but_for_the_environment(load: &Load, recording: &Recording) {
    const THREE_VARIABLES: u64 = 18;
    counted_within(THREE_VARIABLES, load, recording);
}

fn counted_within(margin: u64, load: &Load, recording: &Recording) {
    if let Some(expected) = heaptrack_count(load) {
        let counted = number(&recording.summary(), "allocations");
        let difference = counted.abs_diff(expected);
        assert!(difference <= margin, "{}: {counted} allocations, heaptrack {expected}", load.program().display());
    }
}

fn input(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("an input");
    path
}

#[test]
fn sqlite3_with_300_000_rows_and_an_index() {
    let Some(sqlite3) = tool("sqlite3") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let script = "create table t(a integer primary key, b text);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 300000)
            insert into t select i, 'value ' || (i * 7919 % 300007) from n;
        create index by_b on t(b);
        select count(*), sum(a), min(b), max(b) from t;
        select a from t where b > 'value 29' order by b limit 5;\n";
    let load = Load::new(sqlite3, &[":memory:"]).stdin(input(folder.path(), "script.sql", script));
    counted_as_heaptrack_does(&load, &undisturbed(&load));
}

#[test]
fn python3_with_malloc_for_every_object() {
    let Some(python3) = tool("python3") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let script = "import json\n\
        rows = [{'i': i, 's': str(i) * 3, 'l': list(range(i % 7))} for i in range(20000)]\n\
        text = json.dumps(rows)\n\
        print(len(text), sum(row['i'] for row in json.loads(text)))\n";
    let script = input(folder.path(), "rows.py", script);
    let load =
        Load::new(python3, &["-S", &script.to_string_lossy()]).env("PYTHONMALLOC", "malloc").env("PYTHONHASHSEED", "0");
    counted_as_heaptrack_does_but_for_the_environment(&load, &undisturbed(&load));
}

#[test]
fn lua_with_a_million_tables_and_strings() {
    let Some(lua) = tool("lua5.4") else { return };
    let script = "local t, n = {}, 0 \
        for i = 1, 1000000 do t[i % 1000 + 1] = {s = 'text ' .. i} n = n + #t[i % 1000 + 1].s end print(n)";
    let load = Load::new(lua, &["-e", script]);
    counted_as_heaptrack_does(&load, &undisturbed(&load));
}

#[test]
fn perl_with_a_hash_of_strings() {
    let Some(perl) = tool("perl") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let script = r#"my %h; $h{"key $_"} = "value $_" x 3 for 1 .. 100000;
        my $n = 0; $n += length $h{$_} for keys %h; print scalar(keys %h), " $n\n";"#;
    let script = input(folder.path(), "hash.pl", script);
    let load = Load::new(perl, &[&script.to_string_lossy()]).env("PERL_HASH_SEED", "0").env("PERL_PERTURB_KEYS", "0");
    counted_as_heaptrack_does_but_for_the_environment(&load, &undisturbed(&load));
}

#[test]
fn jq_over_200_000_lines() {
    let Some(jq) = tool("jq") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let line = |i: u32| format!("{{\"i\":{i},\"name\":\"entry {i}\",\"list\":[{},{}]}}\n", i % 7, i % 11);
    let lines: String = (0..200_000).map(line).collect();
    let filter = "select(.i % 1000 == 0) | {i, name, sum: (.list | add)}";
    let load = Load::new(jq, &["-c", filter]).stdin(input(folder.path(), "lines.json", &lines));
    counted_as_heaptrack_does(&load, &undisturbed(&load));
}

/// A repository with a history, made without asking for anybody's configuration.
fn repository(git: &Path, folder: &Path) {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(git);
        command.arg("-C").arg(folder).args(arguments);
        command.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")]);
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.org");
            command.env(format!("GIT_{who}_DATE"), "2024-01-01T00:00:00Z");
        }
        let output = command.output().expect("git starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["init", "-q"]);
    for commit in 0..60 {
        for file in 0..20 {
            let lines: String = (0..50).map(|line| format!("{commit} {} {line}\n", (commit + file) % 13)).collect();
            fs::write(folder.join(format!("file{}", (file * 7 + commit) % 30)), lines).expect("a file");
        }
        run(&["add", "."]);
        run(&["commit", "-q", "-m", &format!("Commit {commit}")]);
    }
}

#[test]
fn git_log_with_statistics() {
    let Some(git) = tool("git") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    repository(&git, folder.path());
    let folder = folder.path().to_string_lossy();
    undisturbed(&Load::new(git, &["-C", &folder, "--no-pager", "log", "--stat"]).env("GIT_CONFIG_GLOBAL", "/dev/null"));
}

#[test]
fn the_compiler_proper_on_regex() {
    let Ok(output) = Command::new("g++").arg("-print-prog-name=cc1plus").output() else {
        println!("skipped: g++ is not installed");
        return;
    };
    let compiler = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let source = "#include <regex>\n#include <string>\n\
        bool f(const std::string &s) { return std::regex_match(s, std::regex(\"[a-z]+(,[0-9]{1,3})*\")); }\n";
    let source = input(folder.path(), "regex.cpp", source);
    // The driver knows where the headers are, the compiler proper does not.
    let preprocessed = folder.path().join("regex.ii");
    let output = Command::new("g++").arg("-E").arg(&source).arg("-o").arg(&preprocessed).output().expect("g++ starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let preprocessed = preprocessed.to_string_lossy();
    let load = Load::new(compiler, &["-quiet", "-fpreprocessed", "-O1", &preprocessed, "-o", "-"]);
    let counted = number(&undisturbed(&load).summary(), "allocations");
    // Its hash tables of pointers make a few more or less, depending on where memory lies: 5 to 40 of two million.
    if let Some(expected) = heaptrack_raw_count(&load) {
        assert!(counted.abs_diff(expected) <= expected / 10_000, "{counted} allocations, heaptrack {expected}");
    }
}

#[test]
fn xz_on_two_threads() {
    let Some(xz) = tool("xz") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let text: String = (0..400_000_u64).map(|i| format!("{} ", i * i % 9973)).collect();
    let text = input(folder.path(), "numbers", &text);
    let load = Load::new(xz, &["-T2", "-1", "--block-size=256KiB", "-c"]).stdin(text);
    undisturbed(&load);
}

#[test]
fn node_with_its_own_heap_and_threads() {
    let Some(node) = tool("node") else { return };
    let script = "const rows = []; for (let i = 0; i < 100000; i++) rows.push({i, s: 'text ' + i});
        console.log(JSON.stringify(rows).length, require('crypto').createHash('sha256').update('x').digest('hex'));";
    undisturbed(&Load::new(node, &["-e", script]));
}

#[test]
fn a_threaded_cpp_program() {
    let recording = undisturbed(&victim("threaded_maps.cpp", &[]));
    assert_eq!(number(&recording.summary(), "threads"), 5);
}

/// Ends with the test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn redis_under_load_stopped_by_sigterm() {
    let (Some(server), Some(benchmark), Some(cli)) = (tool("redis-server"), tool("redis-benchmark"), tool("redis-cli"))
    else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, trace) = (folder.path().join("socket"), folder.path().join("redis.xtrace"));
    let ask = |words: &[&str]| {
        let output = Command::new(&cli).arg("-s").arg(&socket).args(words).output().expect("redis-cli starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut recorder = xalloc();
    recorder.arg("record").arg("-o").arg(&trace).arg("--").arg(&server);
    recorder.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let recorder = recorder.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut recorder = Server(recorder.spawn().expect("xalloc-report starts"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask(&["ping"]).contains("PONG") {
        assert!(Instant::now() < deadline, "the server does not answer");
        thread::sleep(Duration::from_millis(20));
    }
    let load = ["-n", "20000", "-c", "20", "-r", "5000", "-d", "100", "-q", "-t", "set,get,lpush,hset"];
    let output = Command::new(&benchmark).arg("-s").arg(&socket).args(load).output().expect("redis-benchmark starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let info = ask(&["info", "server"]);
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).expect("the server's process id").trim();
    assert!(Command::new("kill").args(["-TERM", pid]).status().expect("kill starts").success());
    let status = recorder.0.wait().expect("the recorder ends");
    assert_eq!(status.code(), Some(0), "redis ends with 0 on SIGTERM");

    let output = xalloc().arg("summary").arg(&trace).args(["--format", "json"]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    complete(&document["result"]);
    assert!(number(&document["result"], "allocations") > 40_000, "20,000 sets and pushes allocate more");
}
