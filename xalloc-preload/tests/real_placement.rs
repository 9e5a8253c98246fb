//! The requests of real programs, as a recording has them, carried out again on the plain libc: every block lies where
//! the recorded program had it, to the last event.
//!
//! `tests/programs/xreplay.c` carries them out. What is compared is the place of each block: its distance from the
//! heap's beginning, or for a block with a mapping of its own that it has one and where in its page it lies.
#![allow(clippy::disallowed_types, clippy::disallowed_macros, clippy::disallowed_methods, reason = "no hook runs here")]
#![allow(clippy::panic, clippy::wildcard_enum_match_arm, reason = "most events are none of this test's business")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Recording, Scratch, library};
use trace::{Kind, Op, Outcome};
use xalloc_core::units::{Addr, ArenaId};
use xalloc_core::wire::{Call, Event, HeapCall};

#[allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
mod support;
#[path = "../../xalloc-core/tests/placement/trace.rs"]
mod trace;

/// Threads that xreplay has room for.
const MOST_THREADS: u32 = 64;

/// A request and where the recorded program got its block.
struct Step {
    op: Op,
    /// `None`: the operation makes no block.
    got: Option<(Addr, ArenaId)>,
}

/// What is known of a program while its recording is read.
#[derive(Default)]
struct Reading {
    slots: HashMap<Addr, u32>,
    unused: Vec<u32>,
    next_slot: u32,
    /// By thread: the block that a realloc has begun with.
    resized: HashMap<u32, Addr>,
    /// By thread: the alignment that the next block is to have.
    align: HashMap<u32, u64>,
    steps: Vec<Step>,
}

impl Reading {
    fn push(&mut self, thread: u32, kind: Kind, slot: u32, (size, align): (u64, u64), got: Option<(Addr, ArenaId)>) {
        let thread = u8::try_from(thread).expect("there are fewer threads");
        self.steps.push(Step { op: Op { kind, thread, slot, size, align }, got });
    }

    fn alloc(&mut self, thread: u32, addr: Addr, size: u64, arena: ArenaId, call: Call) -> Result<(), String> {
        let old = self.resized.remove(&thread).and_then(|old| self.slots.remove(&old));
        let align = self.align.remove(&thread);
        let kind = match (call, align) {
            (Call::Calloc, None) => Kind::Calloc,
            (Call::Realloc | Call::Reallocarray, None) if old.is_some() => Kind::Realloc,
            (Call::Malloc | Call::Realloc | Call::Reallocarray, None) => Kind::Malloc,
            (Call::Memalign | Call::AlignedAlloc | Call::PosixMemalign, Some(_)) => Kind::Memalign,
            // No alignment is told where every block has it.
            (Call::Memalign | Call::AlignedAlloc | Call::PosixMemalign, None) => Kind::Malloc,
            _ => return Err(format!("it calls {call:?}, which this test does not carry out")),
        };
        let slot = old.or_else(|| self.unused.pop()).unwrap_or_else(|| {
            self.next_slot += 1;
            self.next_slot - 1
        });
        self.slots.insert(addr, slot);
        self.push(thread, kind, slot, (size, align.unwrap_or_default()), Some((addr, arena)));
        Ok(())
    }

    /// A block is freed.
    fn free(&mut self, thread: u32, addr: Addr) -> Result<(), String> {
        let slot = self.slots.remove(&addr).ok_or_else(|| format!("{addr:x?} was freed and never allocated"))?;
        self.unused.push(slot);
        self.push(thread, Kind::Free, slot, (0, 0), None);
        Ok(())
    }
}

/// The requests of a recording, in the order in which they were served, or why they cannot be carried out again.
fn requests(recording: &Recording) -> Result<Vec<Step>, String> {
    let mut reading = Reading::default();
    for event in &recording.events {
        let thread = event.thread;
        if thread >= MOST_THREADS {
            return Err("it has more threads than xreplay".into());
        }
        match event.stamped.event {
            Event::Alloc { addr, size_bytes, arena, call, .. } => {
                reading.alloc(thread, addr, size_bytes, arena, call)?
            }
            Event::Free { addr, .. } => reading.free(thread, addr)?,
            Event::ReallocBegin { addr } => {
                reading.resized.insert(thread, addr);
            }
            Event::ReallocUndo { .. } => {
                reading.resized.remove(&thread);
            }
            Event::HeapCall { call: HeapCall::Aligned, value, .. } => {
                reading.align.insert(thread, value);
            }
            Event::HeapCall { call: HeapCall::MallocTrim, value, .. } => {
                reading.push(thread, Kind::Trim, u32::MAX, (value, 0), None);
            }
            Event::HeapCall { call: HeapCall::Mallopt, argument, value } => {
                reading.push(thread, Kind::Mallopt, u32::MAX, (argument as u64, value), None);
            }
            Event::ThreadStart { .. } if thread > 0 => reading.push(thread, Kind::StartBare, u32::MAX, (0, 0), None),
            Event::ThreadExit if thread > 0 => reading.push(thread, Kind::Exit, u32::MAX, (0, 0), None),
            Event::ProgramBrk { .. } => return Err("it moves the break itself".into()),
            _ => {}
        }
    }
    if reading.next_slot >= 1 << 22 {
        Err("it has more blocks than xreplay has slots".into())
    } else {
        Ok(reading.steps)
    }
}

fn xreplay(scratch: &Scratch) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/programs/xreplay.c");
    let program = scratch.path("xreplay");
    let status = Command::new("cc").args(["-O1", "-pthread", "-o"]).arg(&program).arg(source).status();
    assert!(status.expect("a C compiler is installed").success(), "xreplay compiles");
    program
}

/// Where the recorded program had a block, as xreplay tells places: kind, arena in the order of appearance, offset. Which
/// sub-heap of an arena it is the recording does not say.
fn place(addr: Addr, arena: ArenaId, base: u64, arenas: &mut Vec<ArenaId>) -> (u64, u64, u64) {
    const SUB_HEAP_BYTES: u64 = 64 << 20;
    match arena {
        ArenaId::NONE => (2, 0, addr.0 % 4096),
        ArenaId::MAIN => (1, 0, addr.0 - base),
        of_thread => {
            let number = arenas.iter().position(|&known| known == of_thread).unwrap_or_else(|| {
                arenas.push(of_thread);
                arenas.len() - 1
            });
            (3, number as u64, addr.0 % SUB_HEAP_BYTES)
        }
    }
}

/// Records `command` and carries its requests out on libc.
fn compare(name: &str, command: &mut Command) {
    let scratch = Scratch::new(&format!("placement-{name}"));
    let output = match recorded(&scratch, command).output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: {name}: {error}"),
    };
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    carry_out(name, &scratch);
}

/// The command as it is recorded.
fn recorded<'c>(scratch: &Scratch, command: &'c mut Command) -> &'c mut Command {
    command.env("LD_PRELOAD", library()).env("XALLOC_OUT", scratch.path("trace")).env("XALLOC_HEAP_STEPS", "0");
    command.env("XALLOC_FOLLOW", "0").env_remove("GLIBC_TUNABLES")
}

/// Carries out on libc what was recorded, and compares.
fn carry_out(name: &str, scratch: &Scratch) {
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
    let program = xreplay(scratch);
    let status = Command::new(program).args([&asked, &answered]).env_remove("GLIBC_TUNABLES").status();
    assert!(status.expect("xreplay runs").success());
    let outcomes = trace::decode_outcomes(&std::fs::read(&answered).expect("xreplay wrote it"));
    assert_eq!(outcomes.len(), steps.len());
    let mut arenas = Vec::new();
    for (at, (step, outcome)) in steps.iter().zip(&outcomes).enumerate() {
        let Some((addr, arena)) = step.got else { continue };
        let Outcome { place: kind, offset, .. } = *outcome;
        let replayed = (kind & 0xff, kind >> 8 & 0xffff, offset);
        let expected = place(addr, arena, base, &mut arenas);
        assert_eq!(expected, replayed, "{name}: event {at} of {}, {:?}", steps.len(), step.op);
    }
    let threads = steps.iter().filter(|step| step.op.kind == Kind::StartBare).count() + 1;
    if threads > 1 {
        println!("{name}: {threads} threads, {} of their arenas", arenas.len());
    }
    println!("{name}: {} requests, every block where libc puts it", steps.len());
}

/// The distribution's program of that name: others may be wrappers, of which only the wrapper would be recorded.
fn installed(name: &str) -> Command {
    let own = Path::new("/usr/bin").join(name);
    if own.exists() { Command::new(own) } else { Command::new(name) }
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
    compare("sqlite3", installed("sqlite3").args([":memory:", rows]));
}

#[test]
fn interpreters_have_their_blocks_where_libc_puts_them() {
    let perl = r#"my %h; $h{"key$_"} = "v" x ($_ % 300) for 1 .. 20000; delete $h{"key$_"} for 1 .. 9000; print scalar keys %h"#;
    compare("perl", installed("perl").args(["-e", perl]));
    let python =
        "import json; d = {str(i): [i, str(i) * (i % 50)] for i in range(8000)}; len(json.loads(json.dumps(d)))";
    let mut command = installed("python3");
    compare("python3", command.args(["-c", python]).env("PYTHONHASHSEED", "0").env("PYTHONMALLOC", "malloc"));
    let lua = "local t = {} for i = 1, 100000 do t[i % 5000] = {tostring(i)} end print(#t)";
    compare("lua5.4", installed("lua5.4").args(["-e", lua]));
}

#[test]
fn tools_have_their_blocks_where_libc_puts_them() {
    compare(
        "git",
        installed("git").args(["--no-pager", "log", "--stat", "-n", "30"]).current_dir(env!("CARGO_MANIFEST_DIR")),
    );
    compare("ls", installed("ls").args(["-lR", "/usr/include"]));
}

#[test]
fn a_server_under_its_clients_load_has_its_blocks_where_libc_puts_them() {
    let scratch = Scratch::new("placement-redis");
    let socket = scratch.path("redis.sock");
    let mut server = Command::new("redis-server");
    server.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    server.current_dir(scratch.path("")).stdout(Stdio::null());
    let mut server = match recorded(&scratch, &mut server).spawn() {
        Ok(server) => server,
        Err(error) => return println!("skipped: redis-server: {error}"),
    };
    let client = |program: &str, arguments: &[&str]| {
        let mut client = Command::new(program);
        client.arg("-s").arg(&socket).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        client.status().is_ok_and(|status| status.success())
    };
    let is_up = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        client("redis-cli", &["ping"])
    });
    let is_loaded = is_up && client("redis-benchmark", &["-n", "1500", "-c", "8", "-r", "3000", "-d", "100", "-q"]);
    client("redis-cli", &["shutdown", "nosave"]);
    if !is_loaded {
        // The process is this test's own, and a shutdown that was not heard leaves it.
        server.kill().ok();
    }
    assert!(server.wait().expect("it is a child").success() || !is_loaded);
    if !is_loaded {
        return println!("skipped: redis-server, redis-cli or redis-benchmark does not start here");
    }
    carry_out("redis-server", &scratch);
}

#[test]
fn threads_in_lock_step_have_their_blocks_where_libc_puts_them() {
    let scratch = Scratch::new("placement-lock-step");
    let program = scratch.program("lock_step");
    compare("lock_step", &mut Command::new(program));
}
