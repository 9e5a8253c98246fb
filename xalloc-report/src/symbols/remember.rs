//! Answers from one recording to the next: a module that was asked the same before is not opened again.
//!
//! To open libc's debug information takes longer than many a program runs, and the second recording of a program asks
//! what the first one asked. So a module's answers are kept in the user's cache, one file a module.
//!
//! # Invariant
//! What is remembered is what would be read: an answer is kept only if it was complete and every file that was opened or
//! looked for on the way to it is known ([`Trail`]), and it is given only if all of these are as they were, and if
//! this very program kept it. Only what depends on nothing but the module and the address is kept; a module with a reader
//! that met something malformed is read anew each time.
//!
//! A cache that is damaged, foreign, full, read-only or absent costs time and nothing else.
//!
//! # Why not an index of the debug information
//! It would serve addresses that were not asked before, but takes hundreds of megabytes for what a program of some size
//! links, and has to be made first; what recordings ask is some thousand addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use xalloc_core::fnv::Fnv1a;

use super::resolve::{self, Answer};
use super::trail::{self, Identity, Sights, Trail};
use super::{Detail, Frame, Missing, Module, Places};
use crate::os::cache;

/// Beginning of a file of answers, with the version of its format.
const MAGIC: &[u8] = b"xalloc names 1\n";
/// Most that one module's answers take: some hundred thousand frames.
const MOST_BYTES: u64 = 16 << 20;
/// Most that the answers of all modules take.
const MOST_BYTES_IN_ALL: u64 = 128 << 20;
/// Most files that an answer may rest on: each is looked at before the answer is given.
const MOST_SIGHTS: usize = 1024;

/// As [`resolve::resolve`], from memory as far as that reaches.
pub(super) fn resolve(module: &Module, places: &Places, batches: impl Iterator<Item = Vec<u64>>) -> Answer {
    match Memory::of(module, places) {
        Some(memory) => {
            let read = |trail: &Trail, batches: &mut dyn Iterator<Item = Vec<u64>>| {
                resolve::resolve(module, places, trail, batches)
            };
            memory.answer(batches, SystemTime::now(), read)
        }
        None => resolve::resolve(module, places, &Trail::default(), batches),
    }
}

/// Makes room in the directory of answers.
pub(super) fn tidy(directory: &Path) {
    // What cannot be removed costs space and nothing else.
    let _ = cache::forget_oldest(directory, MOST_BYTES_IN_ALL);
}

/// What has to be the same for an answer to be the same, besides the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    /// The program that reads, because each version may name things in another way.
    reader: Identity,
    path: PathBuf,
    /// The same without links: where debug files are looked for beside the binary.
    real_path: Option<PathBuf>,
    build_id: Vec<u8>,
    debug_root: PathBuf,
    debuginfod_find: Option<PathBuf>,
}

/// What is known about one address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Known {
    frames: Vec<Frame>,
    callee: Option<String>,
}

/// What is known about one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    key: Key,
    sights: Sights,
    detail: Detail,
    missing: Vec<Missing>,
    known: BTreeMap<u64, Known>,
}

/// The place of one module's answers.
pub(super) struct Memory {
    key: Key,
    pub(super) file: PathBuf,
}

impl Memory {
    /// `None` where nothing is to be remembered, or nothing tells the module from another one.
    pub(super) fn of(module: &Module, places: &Places) -> Option<Memory> {
        let directory = places.answers.as_ref().filter(|_| !module.build_id.is_empty())?;
        let key = Key {
            reader: Identity::at(Path::new("/proc/self/exe"))?,
            path: module.path.clone(),
            real_path: fs::canonicalize(&module.path).ok(),
            build_id: module.build_id.clone(),
            debug_root: places.debug_root.clone(),
            debuginfod_find: places.debuginfod_find.clone(),
        };
        // A path that is no text cannot be written down.
        let name = Fnv1a::of(&postcard::to_allocvec(&key).ok()?);
        Some(Memory { key, file: directory.join(format!("{name:016x}")) })
    }

    /// Answers from what is kept, and by `read` from the first address on that is not. `now` is a time before that.
    pub(super) fn answer(
        &self,
        mut batches: impl Iterator<Item = Vec<u64>>,
        now: SystemTime,
        read: impl Fn(&Trail, &mut dyn Iterator<Item = Vec<u64>>) -> Answer,
    ) -> Answer {
        let kept = self.recall();
        let (mut asked, mut unknown) = (Vec::new(), Vec::new());
        let mut batches_left = std::iter::from_fn(|| {
            loop {
                let mut batch = batches.next()?;
                asked.extend(&batch);
                batch.retain(|address| kept.as_ref().is_none_or(|kept| !kept.known.contains_key(address)));
                if !batch.is_empty() {
                    unknown.extend(&batch);
                    return Some(batch);
                }
            }
        });
        let Some(first) = batches_left.next() else {
            return kept.map_or_else(|| Answer::nothing(asked.len()), |kept| kept.answer(&asked));
        };
        let trail = Trail::default();
        let fresh = read(&trail, &mut std::iter::once(first).chain(batches_left));
        let gained = self.kept(&unknown, fresh, trail);
        match (kept, gained) {
            (None, Ok(gained)) => self.keep(gained, &asked, now),
            (None, Err(fresh)) => fresh,
            (Some(kept), Ok(gained)) if kept.agrees(&gained) => self.keep(kept.with(gained), &asked, now),
            // What is kept is about other files, or about the sound part of unsound ones.
            (Some(_), _) => {
                let _ = fs::remove_file(&self.file);
                let trail = Trail::default();
                let answer = read(&trail, &mut std::iter::once(asked.clone()));
                self.kept(&asked, answer, trail).map_or_else(|answer| answer, |kept| self.keep(kept, &asked, now))
            }
        }
    }

    /// What can be kept of an answer; an answer that cannot comes back.
    fn kept(&self, addresses: &[u64], answer: Answer, trail: Trail) -> Result<Kept, Answer> {
        let is_sound = answer.missing.iter().all(is_about_the_module) && answer.frames.len() == addresses.len();
        let Some(sights) = trail.sights().filter(|sights| is_sound && sights.len() <= MOST_SIGHTS) else {
            return Err(answer);
        };
        let Answer { frames, callees, detail, missing, .. } = answer;
        let known = frames.into_iter().zip(callees).map(|(frames, callee)| Known { frames, callee });
        let known = addresses.iter().copied().zip(known).collect();
        Ok(Kept { key: self.key.clone(), sights, detail, missing, known })
    }

    /// Writes down what is known, if nothing speaks against it, and answers.
    fn keep(&self, mut kept: Kept, asked: &[u64], now: SystemTime) -> Answer {
        let mut is_written = false;
        if trail::is_settled(&kept.sights, now) && trail::holds(&kept.sights) {
            is_written = self.write(&kept).is_some();
            if !is_written {
                // Those of recordings before may be what is too much.
                let asked: BTreeSet<u64> = asked.iter().copied().collect();
                kept.known.retain(|address, _| asked.contains(address));
                is_written = self.write(&kept).is_some();
            }
        }
        Answer { is_written, ..kept.answer(asked) }
    }

    /// `None` where there is no room.
    fn write(&self, kept: &Kept) -> Option<()> {
        let contents = postcard::to_allocvec(kept).ok()?;
        let bytes = [MAGIC, &crc32fast::hash(&contents).to_le_bytes(), &contents].concat();
        if bytes.len() as u64 > MOST_BYTES {
            return None;
        }
        cache::make_private(self.file.parent()?).ok()?;
        cache::replace(&self.file, &bytes, 0o600).ok()
    }

    /// What is kept, if it is whole, about this module, and still true.
    fn recall(&self) -> Option<Kept> {
        let bytes = cache::read_own(&self.file, MOST_BYTES).ok()?;
        let (sum, contents) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
        if crc32fast::hash(contents) != u32::from_le_bytes(*sum) {
            return None;
        }
        let kept: Kept = postcard::from_bytes(contents).ok()?;
        let is_true = kept.key == self.key && kept.sights.len() <= MOST_SIGHTS && trail::holds(&kept.sights);
        // Of a cache that cannot be marked the wrong files are forgotten, and nothing else.
        is_true.then(|| cache::mark_used(&self.file)).map(|_| kept)
    }
}

impl Kept {
    /// Whether both were read from the same files, with the same success.
    fn agrees(&self, other: &Kept) -> bool {
        let is_same = |(path, seen): (&PathBuf, _)| self.sights.get(path).is_none_or(|before| before == seen);
        self.detail == other.detail && self.missing == other.missing && other.sights.iter().all(is_same)
    }

    fn with(mut self, other: Kept) -> Kept {
        self.sights.extend(other.sights);
        self.known.extend(other.known);
        self
    }

    fn answer(&self, asked: &[u64]) -> Answer {
        let known = asked.iter().map(|address| self.known.get(address).cloned().unwrap_or_default());
        let (frames, callees) = known.map(|known| (known.frames, known.callee)).unzip();
        Answer { frames, callees, detail: self.detail, missing: self.missing.clone(), is_written: false }
    }
}

/// Whether this can be said whichever addresses are asked.
fn is_about_the_module(missing: &Missing) -> bool {
    match missing {
        Missing::Stripped { .. } | Missing::NoLines { .. } | Missing::NoSupplementaryFile { .. } => true,
        // The first that an address came upon; others lead elsewhere.
        Missing::Malformed { .. } | Missing::NoSplitFile { .. } => false,
        // There was nothing to read, which is quickly found out.
        Missing::Kernel { .. }
        | Missing::NoFile { .. }
        | Missing::BuildIdMismatch { .. }
        | Missing::Unreadable { .. } => false,
    }
}
