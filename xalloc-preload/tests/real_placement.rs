//! The requests of real programs, as a recording has them, carried out again on the plain libc: every block lies where
//! the recorded program had it, to the last event.
//!
//! `tests/programs/xreplay.c` carries them out. What is compared is the place of each block: its distance from the
//! heap's beginning, or for a block with a mapping of its own that it has one and where in its page it lies.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "most events are none of this test's business")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Recording, Scratch, library};
use trace::{Kind, Op, Outcome};
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{Call, Event};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;
#[path = "../../xalloc-core/tests/placement/trace.rs"]
mod trace;

/// A request and where the recorded program got its block.
struct Step {
    op: Op,
    /// `None`: the operation makes no block.
    got: Option<(Addr, ArenaId)>,
}

/// The requests of a recording of one thread, or why they cannot be carried out again.
fn requests(recording: &Recording) -> Result<Vec<Step>, String> {
    let mut slots: HashMap<Addr, u32> = HashMap::new();
    let mut unused: Vec<u32> = Vec::new();
    let mut next_slot = 0;
    let mut steps = Vec::new();
    let mut resized: Option<Addr> = None;
    for event in &recording.events {
        let step = |kind, slot, size, got| Step { op: Op { kind, thread: 0, slot, size, align: 0 }, got };
        match event.stamped.event {
            Event::Alloc { addr, size_bytes, arena, call, .. } => {
                let old = resized.take().and_then(|old| slots.remove(&old));
                let is_resized = old.is_some();
                let slot = old.or_else(|| unused.pop()).unwrap_or_else(|| {
                    next_slot += 1;
                    next_slot - 1
                });
                let kind = match call {
                    Call::Calloc => Kind::Calloc,
                    Call::Realloc | Call::Reallocarray if is_resized => Kind::Realloc,
                    Call::Malloc | Call::Realloc | Call::Reallocarray => Kind::Malloc,
                    _ => return Err(format!("it calls {call:?}, which this test does not carry out")),
                };
                slots.insert(addr, slot);
                steps.push(step(kind, slot, size_bytes, Some((addr, arena))));
            }
            Event::Free { addr, .. } => {
                let slot = slots.remove(&addr).ok_or_else(|| format!("{addr:x?} was freed and never allocated"))?;
                unused.push(slot);
                steps.push(step(Kind::Free, slot, 0, None));
            }
            Event::ReallocBegin { addr } => resized = Some(addr),
            Event::ReallocUndo { .. } => resized = None,
            Event::ProgramBrk { .. } => return Err("it moves the break itself".into()),
            Event::ThreadStart { .. } if event.thread > 0 => return Err("it has threads".into()),
            _ => {}
        }
    }
    if next_slot >= 1 << 22 { Err("it has more blocks than xreplay has slots".into()) } else { Ok(steps) }
}

fn xreplay(scratch: &Scratch) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/xreplay.c");
    let program = scratch.path("xreplay");
    let status = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(source).status();
    assert!(status.expect("a C compiler is installed").success(), "xreplay compiles");
    program
}

/// Where the recorded program had a block, as xreplay tells places.
fn place(addr: Addr, arena: ArenaId, base: u64) -> (u64, u64) {
    if arena == ArenaId::NONE { (2, addr.0 % 4096) } else { (1, addr.0 - base) }
}

/// Records `command` and carries its requests out on libc.
fn compare(name: &str, command: &mut Command) {
    let scratch = Scratch::new(&format!("placement-{name}"));
    command.env("LD_PRELOAD", library()).env("XALLOC_OUT", scratch.path("trace")).env("XALLOC_HEAP_STEPS", "0");
    let output = match command.env("XALLOC_FOLLOW", "0").env_remove("GLIBC_TUNABLES").output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: {name}: {error}"),
    };
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let recordings = scratch.recordings();
    // A program may be a wrapper that becomes another one.
    let recording = recordings.iter().max_by_key(|recording| recording.events.len()).expect("it was recorded");
    let steps = match requests(recording) {
        Ok(steps) => steps,
        Err(why) => return println!("skipped: {name}: {why}"),
    };
    let (first, _) = steps.iter().find_map(|step| step.got).expect("it allocates");
    // The heap begins with a page, and the first block lies in that (placement policy, section 3).
    let base = first.0 / 4096 * 4096;
    let ops: Vec<Op> = steps.iter().map(|step| step.op).collect();
    let (asked, answered) = (scratch.path("ops"), scratch.path("outcomes"));
    std::fs::write(&asked, trace::encode(&ops)).expect("the scratch directory is writable");
    let program = xreplay(&scratch);
    let status = Command::new(program).args([&asked, &answered]).env_remove("GLIBC_TUNABLES").status();
    assert!(status.expect("xreplay runs").success());
    let outcomes = trace::decode_outcomes(&std::fs::read(&answered).expect("xreplay wrote it"));
    assert_eq!(outcomes.len(), steps.len());
    for (at, (step, outcome)) in steps.iter().zip(&outcomes).enumerate() {
        let Some((addr, arena)) = step.got else { continue };
        let Outcome { place: kind, offset, .. } = *outcome;
        assert_eq!(place(addr, arena, base), (kind, offset), "{name}: event {at} of {}, {:?}", steps.len(), step.op);
    }
    println!("{name}: {} requests, every block where libc puts it", steps.len());
}

/// A file with this text.
fn source(scratch: &Scratch, name: &str, text: &str) -> PathBuf {
    let path = scratch.path(name);
    std::fs::write(&path, text).expect("the scratch directory is writable");
    path
}

#[test]
fn a_compiler_has_its_blocks_where_libc_puts_them() {
    let scratch = Scratch::new("placement-source");
    let file = source(&scratch, "a.cc", "#include <vector>\nstd::vector<int> f() { return {1, 2, 3}; }\n");
    let ask = |question: &str| {
        let answer = Command::new("c++").arg(question).output().ok()?;
        Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    let (Some(compiler), Some(machine)) = (ask("-print-prog-name=cc1plus"), ask("-print-multiarch")) else {
        return println!("skipped: no C++ compiler");
    };
    compare(
        "cc1plus",
        Command::new(compiler).args(["-quiet", "-O1", "-imultiarch", &machine, "-o", "/dev/null"]).arg(file),
    );
}

#[test]
fn a_database_has_its_blocks_where_libc_puts_them() {
    let rows = "create table t(a integer, b text); \
                with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000) \
                insert into t select i, hex(i * 7919) from n; \
                create index x on t(b); select count(*), max(b) from t group by a % 97;";
    compare("sqlite3", Command::new("sqlite3").args([":memory:", rows]));
}

#[test]
fn interpreters_have_their_blocks_where_libc_puts_them() {
    let perl = r#"my %h; $h{"key$_"} = "v" x ($_ % 300) for 1 .. 20000; delete $h{"key$_"} for 1 .. 9000; print scalar keys %h"#;
    compare("perl", Command::new("perl").args(["-e", perl]));
    let python =
        "import json; d = {str(i): [i, str(i) * (i % 50)] for i in range(8000)}; len(json.loads(json.dumps(d)))";
    let mut command = Command::new("python3");
    compare("python3", command.args(["-c", python]).env("PYTHONHASHSEED", "0").env("PYTHONMALLOC", "malloc"));
    let lua = "local t = {} for i = 1, 100000 do t[i % 5000] = {tostring(i)} end print(#t)";
    compare("lua5.4", Command::new("lua5.4").args(["-e", lua]));
}

#[test]
fn tools_have_their_blocks_where_libc_puts_them() {
    compare(
        "git",
        Command::new("git").args(["--no-pager", "log", "--stat", "-n", "30"]).current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    compare("ls", Command::new("ls").args(["-lR", "/usr/include"]));
    compare("redis-server", Command::new("redis-server").arg("--version"));
}
