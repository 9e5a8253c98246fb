//! Modules, frames and stacks of all processes, each stored once.
//!
//! Two processes that run the same program meet the same code at different addresses; a frame is therefore named by
//! its file and the address in it, and equal stacks of different processes are one.

use std::collections::HashMap;

use rustc_hash::FxHashMap;

use crate::trace::{Contents, Frame, FrameIndex, Function, Module, ModuleIndex, Recording, StackIndex, StackNode};

use super::modules::Located;

/// What makes a frame the same as another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum FrameKey {
    InModule {
        module: ModuleIndex,
        address: u64,
    },
    /// Code without a file: the same only within one process, and only until code is unmapped.
    Elsewhere {
        process: u32,
        generation: u32,
        address: u64,
    },
    /// No code: recording was paused.
    Paused,
}

/// What a report shows in the place of the call stacks of a pause.
const PAUSED: &str = "[recording paused]";

/// The tables of [`Contents`] with what finds an entry again.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    pub(crate) contents: Contents,
    modules: HashMap<Module, ModuleIndex>,
    frames: FxHashMap<FrameKey, FrameIndex>,
    stacks: FxHashMap<StackNode, StackIndex>,
    /// Whether the contents gained a process, thread or stack that the sink has not been told of.
    pub(crate) gained: bool,
}

impl Dictionary {
    pub(crate) fn new(recording: Recording) -> Dictionary {
        let reserved = StackNode { parent: StackIndex::NONE, frame: None };
        let contents = Contents { recording, stacks: vec![reserved, reserved], ..Contents::default() };
        Dictionary { contents, ..Dictionary::default() }
    }

    /// Whether the sink must be told of new contents; it counts as told afterwards.
    #[inline]
    pub(crate) fn take_gained(&mut self) -> bool {
        std::mem::take(&mut self.gained)
    }

    pub(crate) fn module(&mut self, module: Module) -> ModuleIndex {
        let modules = &mut self.contents.modules;
        *self.modules.entry(module).or_insert_with_key(|module| {
            modules.push(module.clone());
            ModuleIndex(index(modules.len() - 1))
        })
    }

    pub(crate) fn frame_in(&mut self, located: Located) -> FrameIndex {
        let Located { module, address } = located;
        self.frame(FrameKey::InModule { module, address }, Some(module), address)
    }

    pub(crate) fn frame_elsewhere(&mut self, process: u32, generation: u32, address: u64) -> FrameIndex {
        self.frame(FrameKey::Elsewhere { process, generation, address }, None, address)
    }

    /// The stack of everything that happened while recording was paused.
    pub(crate) fn paused(&mut self) -> StackIndex {
        let frame = self.frame(FrameKey::Paused, None, 0);
        let functions = &mut self.contents.frames[frame.0 as usize].functions;
        if functions.is_empty() {
            functions.push(Function { name: PAUSED.to_owned(), file: None, line: None, inlined: false });
        }
        self.stack(StackIndex::NONE, Some(frame))
    }

    fn frame(&mut self, key: FrameKey, module: Option<ModuleIndex>, address: u64) -> FrameIndex {
        let frames = &mut self.contents.frames;
        *self.frames.entry(key).or_insert_with(|| {
            frames.push(Frame { module, address, functions: Vec::new(), jumped: None });
            FrameIndex(index(frames.len() - 1))
        })
    }

    /// Names the file of a frame that was met before its module was announced.
    pub(crate) fn place(&mut self, frame: FrameIndex, located: Located) {
        let frame = &mut self.contents.frames[frame.0 as usize];
        (frame.module, frame.address) = (Some(located.module), located.address);
    }

    /// The stack whose innermost frame is `frame` (`None`: the mark of a cut) and whose callers are `parent`.
    pub(crate) fn stack(&mut self, parent: StackIndex, frame: Option<FrameIndex>) -> StackIndex {
        let (stacks, gained) = (&mut self.contents.stacks, &mut self.gained);
        *self.stacks.entry(StackNode { parent, frame }).or_insert_with_key(|node| {
            *gained = true;
            stacks.push(*node);
            StackIndex(index(stacks.len() - 1))
        })
    }
}

/// Tables hold fewer than 2^32 entries: each entry took 16 bytes and more of memory that the recorder had to have.
fn index(position: usize) -> u32 {
    u32::try_from(position).expect("a table of 2^32 entries does not fit into memory")
}
