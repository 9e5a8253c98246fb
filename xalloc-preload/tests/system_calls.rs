//! A program asks the kernel for memory by the same calls, in the same order, as without the library.
//!
//! `strace` lists both runs from the heap's first call on. Addresses differ from run to run and are left out; a break is
//! compared by how far it moved, everything else by lengths, protections and flags. Left out as well is what only the
//! library asks: mappings without reserve that can be written, which its own tables are and the heap never makes.
//! Programs of one thread only, without their children: what trims a sub-heap's reservation to its alignment depends on where it lies.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]

use std::process::Command;

use support::{Scratch, library};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;

/// A number as `strace` writes it.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// A line of `strace` without its process number and the spaces before the result: the call, its arguments, the result.
fn parsed(line: &str) -> Option<(&str, Vec<&str>, &str)> {
    let call = line.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ' ');
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once('=')?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    Some((name, arguments.split(", ").collect(), result.trim()))
}

/// What the calls of a list say of memory, from the second look at the break on: the loader makes the first, the heap the
/// next.
fn of_the_heap(list: &str) -> Vec<String> {
    let mut looks = 0;
    let mut end = 0;
    let mut calls = Vec::new();
    for (name, arguments, result) in list.lines().filter_map(parsed) {
        if name == "execve" {
            // A wrapper that becomes the program.
            (looks, end) = (0, 0);
            calls.clear();
        }
        if name == "brk" && arguments == ["NULL"] {
            looks += 1;
        }
        if name == "mmap" && arguments[3].contains("MAP_HUGETLB") {
            // A heap of huge pages never looks at the break.
            looks = 2;
        }
        if looks < 2 {
            continue;
        }
        match name {
            "brk" => {
                let now = number(result).expect("the break is an address");
                calls.push(format!("brk {:+}", now.wrapping_sub(if end == 0 { now } else { end }) as i64));
                end = now;
            }
            "mmap" if arguments[2].contains("PROT_WRITE") && arguments[3].contains("MAP_NORESERVE") => {}
            // Neither the address nor the descriptor.
            "mmap" => calls.push(format!("mmap {}", arguments[1..4].join(" "))),
            _ => calls.push(format!("{name} {}", arguments[1..].join(" "))),
        }
    }
    calls
}

/// The calls of one run, with `variable` naming the library: programs copy their environment, so both runs have one of the
/// same length. `None`: there is no such program, or no `strace`.
fn calls(scratch: &Scratch, variable: &str, tunables: &str, command: &[&str]) -> Option<Vec<String>> {
    let list = scratch.path("list");
    let kept = "trace=execve,brk,mmap,munmap,mremap,madvise,mprotect";
    let tuned = format!("GLIBC_TUNABLES={tunables}");
    let traced = ["-E", &format!("{variable}={}", library().display()), "-E", &tuned, "-e", kept];
    // Programs whose requests depend on addresses (python, by its identities) ask for the same only at the same ones.
    let mut strace = Command::new("setarch");
    strace
        .args(["-R", "strace"])
        .args(traced)
        .arg("-o")
        .arg(&list)
        .args(command)
        .env("PYTHONHASHSEED", "0")
        .env("PERL_HASH_SEED", "0")
        .env("PYTHONMALLOC", "malloc");
    let output = strace.current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    output.status.success().then(|| of_the_heap(&std::fs::read_to_string(&list).expect("strace wrote it")))
}

fn compare(command: &[&str]) {
    compare_under("", command);
}

fn compare_under(tunables: &str, command: &[&str]) {
    let name = command[0];
    let scratch = Scratch::new(&format!("calls-{}{tunables}", name.rsplit('/').next().unwrap_or(name)));
    let (Some(plain), Some(ours)) =
        (calls(&scratch, "NO_PRELOAD", tunables, command), calls(&scratch, "LD_PRELOAD", tunables, command))
    else {
        return println!("skipped: {name}, or strace, is not there or may not trace");
    };
    assert!(plain.iter().filter(|call| call.starts_with(['b', 'm'])).count() > 2, "{name} grows its heap: {plain:?}");
    let at = plain.iter().zip(&ours).position(|(plain, ours)| plain != ours).unwrap_or(plain.len().min(ours.len()));
    assert_eq!(plain.get(at), ours.get(at), "{name}: call {at} of {}", plain.len());
    println!("{name} {tunables}: {} calls, all equal", plain.len());
}

#[test]
fn programs_ask_the_kernel_for_memory_as_without_the_library() {
    compare(&[
        "lua5.4",
        "-e",
        "local t = {} for i = 1, 20000 do t[i % 5000] = {tostring(i)} end t = ('x'):rep(1 << 20)",
    ]);
    let rows = "create table t(a, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 9000) \
                insert into t select i, hex(i * 7919) from n; create index x on t(b); select count(*) from t;";
    compare(&["sqlite3", ":memory:", rows]);
    compare(&["perl", "-e", r#"my %h; $h{"key$_"} = "v" x ($_ % 300) for 1 .. 9000; %h = (); my $s = "x" x 9000000;"#]);
    compare(&["git", "--no-pager", "log", "--stat", "-n", "5"]);
    compare(&["ls", "-lR", "/usr/include/linux"]);
    let python =
        "import json; d = {str(i): [i, str(i) * (i % 50)] for i in range(8000)}; len(json.loads(json.dumps(d)))";
    compare(&["/usr/bin/python3", "-c", python]);
}

#[test]
fn programs_ask_for_huge_pages_as_without_the_library() {
    let lua = "local t = {} for i = 1, 90000 do t[i % 50000] = {tostring(i)} end t = ('x'):rep(9 << 20) t = nil";
    let perl = r#"my %h; $h{"key$_"} = "v" x ($_ % 300) for 1 .. 30000; %h = (); my $s = "x" x 9000000;"#;
    for hugetlb in ["1", "2", "2097152", "1073741824", "3"] {
        let tunables = format!("glibc.malloc.hugetlb={hugetlb}");
        compare_under(&tunables, &["lua5.4", "-e", lua]);
        compare_under(&tunables, &["perl", "-e", perl]);
    }
}
