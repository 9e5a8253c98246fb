//! `malloc_trim`, `mallopt`, `mallinfo2` and `malloc_stats`.

use core::fmt;

use super::Heap;
use super::arena::{ArenaState, FAST_BINS};
use super::bins::BINS;
use super::os::Os;
use super::sink::Sink;
use super::step::Step;
use super::tcache::ThreadCache;
use super::tunables::Parameter;
use super::words::Words;

/// The fields of C `mallinfo2`, in bytes and chunks; `mallinfo` is the same, truncated to `int` by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MallInfo {
    /// Bytes that the arenas have from the system, mapped chunks not included.
    pub arena: u64,
    /// Free chunks in bins, the tops included.
    pub ordblks: u64,
    /// Free chunks in fast bins.
    pub smblks: u64,
    /// Chunks with a mapping of their own.
    pub hblks: u64,
    /// Bytes in those.
    pub hblkhd: u64,
    /// Always 0, as glibc has it.
    pub usmblks: u64,
    /// Bytes in fast bins.
    pub fsmblks: u64,
    /// Bytes in use: what is neither in a bin nor the top. Chunks in thread caches count as used.
    pub uordblks: u64,
    /// Bytes free in bins, fast bins and tops.
    pub fordblks: u64,
    /// Bytes of the main arena's top.
    pub keepcost: u64,
}

/// What one arena holds.
#[derive(Clone, Copy, Default)]
struct Counts {
    bin_chunks: u64,
    bin_bytes: u64,
    fast_chunks: u64,
    fast_bytes: u64,
    top_bytes: u64,
    system_bytes: u64,
}

impl Counts {
    fn of<O: Os>(words: Words<'_, O>, arena: &ArenaState) -> Counts {
        let mut counts = Counts {
            system_bytes: arena.system_bytes,
            top_bytes: if arena.top == 0 { 0 } else { words.size(arena.top) },
            ..Counts::default()
        };
        for index in 0..FAST_BINS {
            let mut chunk = arena.fast[index];
            while chunk != 0 {
                counts.fast_chunks += 1;
                counts.fast_bytes += words.size(chunk);
                chunk = words.fd(chunk);
            }
        }
        for bin in 1..BINS {
            let mut next = arena.bins.back(words, bin);
            while let Some(chunk) = next {
                counts.bin_chunks += 1;
                counts.bin_bytes += words.size(chunk);
                next = arena.bins.next_from_back(words, bin, chunk);
            }
        }
        counts
    }

    fn free_bytes(&self) -> u64 {
        self.bin_bytes + self.fast_bytes + self.top_bytes
    }
}

impl<O: Os> Heap<O> {
    /// C `malloc_trim`: whether memory went back to the system.
    pub fn trim<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, pad_bytes: u64) -> bool {
        self.settings.policy();
        let mut step = Step { heap: self, cache, sink };
        let mut released = false;
        let mut number = 0;
        loop {
            if let Some(arena) = self.arenas.get(number, &self.main)
                && let Some(mut arena) = self.enter(arena, step.cache)
            {
                released |= step.trim_arena(&mut arena, pad_bytes);
            }
            number = self.arenas.after(number);
            if number == 0 {
                return released;
            }
        }
    }

    /// C `mallopt`: whether the value was accepted. A parameter that does not exist is accepted without effect. Every
    /// call empties the main arena's fast bins (placement policy, section 6).
    pub fn mallopt<S: Sink>(&self, cache: &mut ThreadCache, sink: &mut S, parameter: i32, value: i32) -> bool {
        let policy = self.settings.policy();
        let mut step = Step { heap: self, cache, sink };
        let Some(mut main) = self.enter(&self.main, step.cache) else { return false };
        step.consolidate(&mut main);
        // C converts the value to `size_t`: -1 is the largest there is.
        let value = i64::from(value) as u64;
        Parameter::from_number(parameter).is_none_or(|parameter| self.settings.set(policy, parameter, value))
    }

    /// C `mallinfo2`.
    pub fn mallinfo2(&self, cache: &mut ThreadCache) -> MallInfo {
        let mut info =
            MallInfo { hblks: self.mapped_chunks.get(), hblkhd: self.mapped_bytes.get(), ..MallInfo::default() };
        self.each_arena(cache, |number, counts| {
            info.arena += counts.system_bytes;
            info.ordblks += counts.bin_chunks + 1;
            info.smblks += counts.fast_chunks;
            info.fsmblks += counts.fast_bytes;
            info.fordblks += counts.free_bytes();
            info.uordblks += counts.system_bytes - counts.free_bytes();
            if number == 0 {
                info.keepcost = counts.top_bytes;
            }
        });
        info
    }

    /// The text of C `malloc_stats`.
    ///
    /// # Errors
    /// What `out` returns.
    pub fn stats(&self, cache: &mut ThreadCache, out: &mut dyn fmt::Write) -> fmt::Result {
        let mapped_bytes = self.mapped_bytes.get();
        let (mut system, mut used) = (mapped_bytes, mapped_bytes);
        let mut written = Ok(());
        self.each_arena(cache, |number, counts| {
            let used_here = counts.system_bytes - counts.free_bytes();
            system += counts.system_bytes;
            used += used_here;
            written = written.and_then(|()| {
                writeln!(out, "Arena {number}:")?;
                writeln!(out, "system bytes     = {:10}", counts.system_bytes)?;
                writeln!(out, "in use bytes     = {used_here:10}")
            });
        });
        written?;
        writeln!(out, "Total (incl. mmap):")?;
        writeln!(out, "system bytes     = {system:10}")?;
        writeln!(out, "in use bytes     = {used:10}")?;
        writeln!(out, "max mmap regions = {:10}", self.max_mapped_chunks.get())?;
        writeln!(out, "max mmap bytes   = {:10}", self.max_mapped_bytes.get())
    }

    /// Counts every arena in the policy's order. Fast bins are left as they are.
    fn each_arena(&self, cache: &mut ThreadCache, mut visit: impl FnMut(u16, &Counts)) {
        self.settings.policy();
        let mut number = 0;
        loop {
            if let Some(arena) = self.arenas.get(number, &self.main)
                && let Some(arena) = self.enter(arena, cache)
            {
                let counts = Counts::of(Words(&self.os), &arena);
                drop(arena);
                visit(number, &counts);
            }
            number = self.arenas.after(number);
            if number == 0 {
                return;
            }
        }
    }
}
