//! Answers that are kept on disk: never other ones than the files give.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use object::read::elf::ElfFile64;
use object::{Object, ObjectSymbol};

use super::kit::{Lab, build_id, has_tool, range_of};
use crate::symbols::remember::Memory;
use crate::symbols::resolve::{self, Answer};
use crate::symbols::trail::Trail;
use crate::symbols::{Detail, Missing, Module, ModuleIndex, Places, Symbolizer, Wanted};

/// Asks about one module, whatever is kept in `answers`.
struct Asked {
    module: Module,
    places: Places,
}

impl Asked {
    fn about(path: &Path, lab: &Lab) -> Asked {
        let module = Module { path: path.to_owned(), build_id: build_id(path) };
        Asked { module, places: Places { answers: Some(lab.path("answers")), ..lab.places() } }
    }

    fn directly(&self, addresses: &[u64]) -> Answer {
        resolve::resolve(&self.module, &self.places, &Trail::default(), std::iter::once(addresses.to_vec()))
    }

    fn memory(&self) -> Memory {
        Memory::of(&self.module, &self.places).unwrap()
    }

    /// The answer, which must be what the files say, and how often they were read.
    fn answer(&self, addresses: &[u64]) -> usize {
        // The tests' files were made a moment ago.
        self.answer_at(addresses, SystemTime::now() + Duration::from_secs(10))
    }

    fn answer_at(&self, addresses: &[u64], now: SystemTime) -> usize {
        let reads = Cell::new(0);
        let batches = addresses.chunks(7).map(<[u64]>::to_vec);
        let answer = self.memory().answer(batches, now, |trail, batches| {
            reads.set(reads.get() + 1);
            resolve::resolve(&self.module, &self.places, trail, batches)
        });
        assert_same(&answer, &self.directly(addresses));
        reads.get()
    }
}

fn assert_same(one: &Answer, other: &Answer) {
    assert_eq!(one.frames, other.frames);
    assert_eq!(one.callees, other.callees);
    assert_eq!((one.detail, &one.missing), (other.detail, &other.missing));
}

/// Addresses in the functions of a file, and some that lie between them.
fn probes(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    let elf = ElfFile64::<object::Endianness>::parse(&bytes[..]).unwrap();
    let mut starts: Vec<u64> = elf.symbols().chain(elf.dynamic_symbols()).map(|symbol| symbol.address()).collect();
    starts.sort_unstable();
    starts.dedup();
    let step = (starts.len() / 200).max(1);
    starts.into_iter().step_by(step).flat_map(|start| [start.wrapping_sub(1), start, start + 9]).collect()
}

#[test]
fn what_was_asked_before_is_answered_alike_without_reading_a_file() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O2");
    let system = ["/usr/bin/perl", "/usr/bin/gdb", "/lib/x86_64-linux-gnu/libc.so.6", "/bin/true"].map(PathBuf::from);
    let real = Places { debug_root: "/usr/lib/debug".into(), ..lab.places() };
    for path in system.into_iter().filter(|path| path.exists() && !build_id(path).is_empty()).chain([app]) {
        let mut asked = Asked::about(&path, &lab);
        asked.places.debug_root.clone_from(&real.debug_root);
        let probes = probes(&path);
        assert_eq!(asked.answer(&probes), 1, "{}", path.display());
        assert_eq!(asked.answer(&probes), 0, "{}", path.display());
        // In another order, and a part.
        let backwards: Vec<u64> = probes.iter().rev().skip(1).copied().collect();
        assert_eq!(asked.answer(&backwards), 0, "{}", path.display());
    }
}

#[test]
fn new_addresses_are_read_and_join_the_old_ones() {
    let lab = Lab::new();
    let asked = Asked::about(&lab.build_app("-g -O2"), &lab);
    let range: Vec<u64> = range_of(&lab.path("app"), "outer").collect();
    let (old, new) = range.split_at(range.len() / 2);
    assert_eq!(asked.answer(old), 1);
    assert_eq!(asked.answer(&range), 1);
    assert_eq!(asked.answer(new), 0);
    assert_eq!(asked.answer(old), 0);
}

#[test]
fn a_debug_file_that_appears_changes_or_goes_is_noticed() {
    let lab = Lab::new();
    lab.build_app("-g -O2");
    lab.run("cp app whole");
    lab.run("objcopy --only-keep-debug whole whole.debug");
    lab.run("strip app");
    let hex: String = build_id(&lab.path("app")).iter().map(|byte| format!("{byte:02x}")).collect();
    let place = format!("debug-root/.build-id/{}/{}.debug", &hex[..2], &hex[2..]);
    let asked = Asked::about(&lab.path("app"), &lab);
    let outer: Vec<u64> = range_of(&lab.path("whole"), "outer").collect();
    let detail = || asked.directly(&outer).detail;

    assert_eq!((asked.answer(&outer), asked.answer(&outer), detail()), (1, 0, Detail::Exports));
    let debug = fs::read(lab.path("whole.debug")).unwrap();
    lab.write(&place, &debug);
    // The files that were read for some addresses are not those that are there for others.
    assert_eq!((asked.answer(&outer), asked.answer(&outer), detail()), (1, 0, Detail::Lines));
    lab.write(&place, &debug[..debug.len() / 2]);
    assert_eq!(asked.answer(&outer), 1);
    fs::remove_file(lab.path(&place)).unwrap();
    assert_eq!((asked.answer(&outer), asked.answer(&outer), detail()), (1, 0, Detail::Exports));
    let elsewhere = Places { debug_root: lab.path("other-root"), ..asked.places.clone() };
    assert_eq!(Asked { places: elsewhere, module: asked.module.clone() }.answer(&outer), 1);
}

#[test]
fn a_change_between_two_readings_makes_both_void() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O2");
    let asked = Asked::about(&app, &lab);
    let range: Vec<u64> = range_of(&app, "outer").collect();
    let later = SystemTime::now() + Duration::from_secs(10);
    assert_eq!(asked.answer(&range[..4]), 1);
    let reads = Cell::new(0);
    let answer = asked.memory().answer(std::iter::once(range.clone()), later, |trail, batches| {
        reads.set(reads.get() + 1);
        // After what is kept was found to be true.
        lab.run("touch app");
        resolve::resolve(&asked.module, &asked.places, trail, batches)
    });
    assert_same(&answer, &asked.directly(&range));
    assert_eq!(reads.get(), 2);
}

#[test]
fn a_damaged_or_foreign_file_is_read_past_and_written_anew() {
    let lab = Lab::new();
    let asked = Asked::about(&lab.build_app("-g -O2"), &lab);
    let outer: Vec<u64> = range_of(&lab.path("app"), "outer").collect();
    assert_eq!(asked.answer(&outer), 1);
    let file = asked.memory().file;
    let whole = fs::read(&file).unwrap();
    let bit_flips = (0..whole.len()).step_by(whole.len() / 40).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = (0..whole.len()).step_by(whole.len() / 40).map(|end| whole[..end].to_vec());
    for bytes in bit_flips.chain(cuts) {
        fs::write(&file, bytes).unwrap();
        assert_eq!(asked.answer(&outer), 1);
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
    assert_eq!(asked.answer(&outer), 0);
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(asked.answer(&outer), 1);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // The answers of another module under this one's name.
    let other = Asked::about(Path::new("/bin/sh"), &lab);
    other.answer(&[0x1000]);
    fs::copy(other.memory().file, &file).unwrap();
    assert_eq!(asked.answer(&outer), 1);
}

#[test]
fn nonsense_under_a_right_check_sum_is_survived() {
    let lab = Lab::new();
    let asked = Asked::about(&lab.build_app("-g -O2"), &lab);
    let outer: Vec<u64> = range_of(&lab.path("app"), "outer").collect();
    assert_eq!(asked.answer(&outer), 1);
    let file = asked.memory().file;
    let whole = fs::read(&file).unwrap();
    // The check sum stands behind the first line.
    let sum_at = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let contents = &whole[sum_at + 4..];
    let survived = |contents: &[u8]| {
        fs::write(&file, [&whole[..sum_at], &crc32fast::hash(contents).to_le_bytes(), contents].concat()).unwrap();
        let later = SystemTime::now() + Duration::from_secs(10);
        let reads = Cell::new(0);
        let answer = asked.memory().answer(std::iter::once(outer.clone()), later, |trail, batches| {
            reads.set(reads.get() + 1);
            resolve::resolve(&asked.module, &asked.places, trail, batches)
        });
        assert_eq!((answer.frames.len(), answer.callees.len()), (outer.len(), outer.len()));
        reads.get()
    };
    assert_eq!(survived(contents), 0, "it is the check sum of the contents");
    let mut refused = 0;
    for at in (0..contents.len()).step_by(contents.len() / 100) {
        for byte in [0xff, contents[at] ^ 1] {
            let mut damaged = contents.to_vec();
            damaged[at] = byte;
            refused += survived(&damaged);
        }
        assert_eq!(survived(&contents[..at]), 1);
    }
    assert!(refused > 0);
}

#[test]
fn several_recorders_may_write_at_once() {
    let lab = Lab::new();
    lab.build_app("-g -O2");
    let range: Vec<u64> = range_of(&lab.path("app"), "outer").collect();
    thread::scope(|scope| {
        for part in range.chunks(range.len() / 4) {
            let lab = &lab;
            scope.spawn(move || {
                let asked = Asked::about(&lab.path("app"), lab);
                for _ in 0..20 {
                    asked.answer(part);
                }
            });
        }
    });
    let asked = Asked::about(&lab.path("app"), &lab);
    asked.answer(&range);
    assert_eq!(asked.answer(&range), 0);
    assert_eq!(fs::read_dir(lab.path("answers")).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn what_may_still_change_or_depends_on_more_than_the_address_is_not_kept() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O2");
    let outer: Vec<u64> = range_of(&app, "outer").collect();
    let asked = Asked::about(&app, &lab);
    assert_eq!(asked.answer_at(&outer, SystemTime::now()), 1, "built a moment ago");
    assert!(!asked.memory().file.exists());

    let nameless = Module { path: app.clone(), build_id: Vec::new() };
    assert!(Memory::of(&nameless, &asked.places).is_none());
    assert!(Memory::of(&asked.module, &lab.places()).is_none());

    if has_tool("objcopy") {
        lab.write("broken", [0xff; 64]);
        lab.run("objcopy --update-section .debug_info=broken app");
        let asked = Asked::about(&app, &lab);
        assert!(matches!(asked.directly(&outer).missing[..], [Missing::Malformed { .. }, ..]));
        assert_eq!((asked.answer(&outer), asked.answer(&outer)), (1, 1));
    }
}

#[test]
fn without_a_usable_cache_names_are_read_each_time() {
    let lab = Lab::new();
    let app = lab.build_app("-g -O2");
    let outer: Vec<u64> = range_of(&app, "outer").collect();
    for unusable in [PathBuf::from("/proc/nowhere"), lab.write("file", "")] {
        let mut asked = Asked::about(&app, &lab);
        asked.places.answers = Some(unusable);
        assert_eq!((asked.answer(&outer), asked.answer(&outer)), (1, 1));
    }
}

#[test]
fn a_symbolizer_remembers_for_the_next_one() {
    let lab = Lab::new();
    let shell = Path::new("/bin/sh");
    if build_id(shell).is_empty() {
        println!("skipped: /bin/sh has no build-id");
        return;
    }
    let asked = Asked::about(shell, &lab);
    let wanted = [Wanted { module: ModuleIndex(0), addresses: probes(shell) }];
    let resolved = || Symbolizer::new(vec![asked.module.clone()], asked.places.clone()).resolve(&wanted);
    let first = resolved();
    assert!(asked.memory().file.exists());
    assert_eq!(asked.answer(&wanted[0].addresses), 0);
    assert_eq!(resolved(), first);
}
