//! What the threads of a process share: the stack trie, the rules, the list of announced modules, the generation.
//!
//! # Generations
//! After `dlclose` the same addresses may belong to another file. So every `dlclose` begins a generation: the rules
//! and the announcements are forgotten, and stacks begin at a root that names the generation. Code that is on some
//! thread's stack is not unloaded, so a capture that overlaps a `dlclose` is right in either generation.
//!
//! # Safety
//! - The tables are all atomics for which zero is a value, so zeroed memory is a valid one of them.
#![allow(unsafe_code)]

use xalloc_core::intern::{FrameWord, Trie};
use xalloc_core::primitive::{AtomicU32, Ordering};
use xalloc_core::session::{Header, Options};
use xalloc_core::units::StackId;

use super::evaluate::evaluate;
use super::rule::Rule;
use super::table::{Buckets, Key, RuleTable};
use crate::host;
use crate::modules::{Announce, Announced, Finder};

/// Most frames that a stack keeps.
pub(super) const DEPTH: usize = 1024;

#[repr(C)]
struct Tables {
    rules: Buckets,
    announced: Announced,
}

/// What all captures of a process have in common.
pub struct Shared {
    pub(super) trie: Trie<'static>,
    pub(super) header: &'static Header,
    /// Frames that a stack keeps, 1 to [`DEPTH`].
    pub(super) depth: usize,
    /// Compare every n-th capture of a thread with the plain walk; 0: none.
    pub(super) verify_every: u32,
    rules: RuleTable<'static>,
    announced: &'static Announced,
    finder: Finder,
    generation: AtomicU32,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl Shared {
    /// For a process whose stacks go into `trie` and whose counters are in `header`. `None` if the system has no
    /// memory for the tables.
    ///
    /// This asks `dlsym`, which may allocate: call it while the process boots, with captures off. A forked child whose
    /// segment is a new one makes a new value; its thread's [`super::ThreadCapture`] is to forget the old one.
    #[must_use]
    pub fn new(trie: Trie<'static>, header: &'static Header, options: &Options) -> Option<Shared> {
        // SAFETY: no place is asked for.
        let memory = unsafe { host::map_anonymous(size_of::<Tables>(), core::ptr::null_mut()) }?;
        // SAFETY: zeroed (bullet of the module), aligned to a page, long enough, and never unmapped.
        let tables = unsafe { memory.cast::<Tables>().as_ref() };
        Some(Shared {
            trie,
            header,
            depth: (options.depth as usize).clamp(1, DEPTH),
            verify_every: options.verify_every,
            rules: RuleTable(&tables.rules),
            announced: &tables.announced,
            finder: Finder::new(),
            generation: AtomicU32::new(0),
        })
    }

    #[inline(always)]
    pub(super) fn generation(&self) -> u32 {
        // ORDERING: pairs with the Release in `on_dlclose`: a thread that runs code which was mapped after the
        // `dlclose` learned of it from the thread that mapped it, and so of the generation.
        self.generation.load(Ordering::Acquire)
    }

    /// The node that stacks of a generation begin at, whole ones or cut ones.
    pub(super) fn root(&self, generation: u32, cut: bool) -> StackId {
        let root = match generation {
            0 => StackId::NONE,
            number => self.trie.insert(StackId::NONE, FrameWord::generation(number)),
        };
        if cut { self.trie.insert(root, FrameWord::CUT) } else { root }
    }

    /// The node of everything that happens while recording is paused.
    #[must_use]
    pub fn paused(&self) -> StackId {
        self.trie.insert(StackId::NONE, FrameWord::PAUSED)
    }

    /// The rule of a frame, from the table or worked out and entered.
    #[inline(always)]
    pub(super) fn rule(&self, word: FrameWord, generation: u32, announce: &mut impl Announce) -> Rule {
        match self.rules.get(Key::new(word, generation)) {
            Some(rule) => rule,
            None => self.learn(word, generation, announce),
        }
    }

    #[cold]
    #[inline(never)]
    fn learn(&self, word: FrameWord, generation: u32, announce: &mut impl Announce) -> Rule {
        let address = address(word);
        // SAFETY: the address is on the stack of the calling thread, so its module stays.
        let image = unsafe { self.finder.image_at(address, self.announced, generation) };
        if let Some(image) = &image {
            self.announced.once(image, generation, announce);
        }
        let rule = evaluate(word, image.as_ref());
        self.rules.put(Key::new(word, generation), rule);
        rule
    }

    /// The rule of a frame as it is worked out, whatever the table says.
    pub(super) fn evaluated(&self, word: FrameWord) -> Rule {
        // SAFETY: as in `learn`.
        let image = unsafe { self.finder.image_at(address(word), self.announced, self.generation()) };
        evaluate(word, image.as_ref())
    }
}

/// An address inside the frame's function: a return address may lie behind it.
fn address(word: FrameWord) -> u64 {
    use xalloc_core::intern::FrameMeaning;
    match word.meaning() {
        FrameMeaning::ReturnAddress(ip) => ip.wrapping_sub(1),
        FrameMeaning::Interrupted(ip) => ip,
        FrameMeaning::Cut | FrameMeaning::Paused | FrameMeaning::Generation(_) => 0,
    }
}

/// Modules may have been unmapped: begins a generation. Its number is the answer.
///
/// To be called when `dlclose` has returned, before its caller goes on.
pub fn on_dlclose(shared: &Shared) -> u32 {
    // ORDERING: Release pairs with the Acquire in `Shared::generation`; Acquire orders two calls at once.
    let number = shared.generation.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
    shared.rules.empty();
    shared.announced.empty();
    number
}
