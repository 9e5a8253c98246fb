//! Call stacks as reports show them: without the allocator's frames, inlined functions spelled out.

use schemars::JsonSchema;
use serde::Serialize;
use xalloc_core::fnv::Fnv1a;
use xalloc_core::wire::Call;

use super::{allocator_frames, names};
use crate::trace::{Contents, Frame, Function, StackIndex};

/// One function of a call stack.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
pub struct FrameView {
    /// Demangled name; `null` if the module has no symbol there.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u32>,
    /// Path of the module; `null` for code without a file.
    pub module: Option<String>,
    /// Return address as an address of the module (what `addr2line -e MODULE` takes), or the raw address without one.
    pub address: String,
    /// Whether the function was inlined into the next one of the list.
    pub inlined: bool,
    /// Whether the function went on to the one before it in the list by a jump and left no frame: it is known from the
    /// call, which is where module and address are.
    pub jumped: bool,
}

/// How much of a call stack is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StackState {
    /// All of it.
    Whole,
    /// Its outermost frames are missing: it was deeper than the recording goes.
    Cut,
    /// Nothing: the process's stack table was full.
    Lost,
    /// Nothing: none was captured.
    None,
}

/// Where an allocation comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CallStack {
    /// The call by which the program asked: `malloc`, `operator new`, …
    pub call: String,
    /// Names the stack on the command line and in other reports: a hash of its code locations that is the same in every
    /// recording of the same files, as 12 hexadecimal digits.
    pub id: String,
    /// How much of the stack is known.
    pub stack: StackState,
    /// Functions, innermost first, without the allocator's own.
    pub frames: Vec<FrameView>,
}

/// The innermost function of a stack outside the allocator.
pub(super) fn innermost(contents: &Contents, stack: StackIndex) -> Option<FrameView> {
    // Which call it was has no influence on the frames.
    CallStack::of(contents, stack, Call::Malloc).frames.into_iter().next()
}

/// All function names of a stack, the allocator's included and the hooks' left out, innermost first.
pub(super) fn functions(contents: &Contents, stack: StackIndex) -> impl Iterator<Item = &str> {
    let mut next = (stack != StackIndex::NONE).then_some(stack);
    let nodes = std::iter::from_fn(move || {
        let at = next?;
        let node = contents.stacks.get(at.0 as usize)?;
        // A parent's index is smaller than its child's; a damaged trace could otherwise go round for ever.
        next = (node.parent < at && node.parent != StackIndex::NONE).then_some(node.parent);
        Some(node)
    });
    let frames = nodes.filter_map(|node| contents.frames.get(node.frame?.0 as usize));
    let is_hook = |frame: &&Frame| {
        let module = frame.module.and_then(|module| contents.modules.get(module.0 as usize));
        module.is_some_and(|module| allocator_frames::is_hook_module(&module.path))
    };
    frames.filter(move |frame| !is_hook(frame)).flat_map(|frame| {
        let called = frame.functions.iter().map(|function| function.name.as_str());
        frame.jumped.as_deref().into_iter().chain(called)
    })
}

impl CallStack {
    /// Resolves a stack.
    #[must_use]
    pub fn of(contents: &Contents, stack: StackIndex, call: Call) -> CallStack {
        let call = call.name().to_owned();
        let id = id(contents, stack);
        let mut resolved = CallStack { call, id, stack: StackState::Whole, frames: Vec::new() };
        if stack == StackIndex::NONE {
            resolved.stack = StackState::None;
            return resolved;
        }
        let mut at = stack;
        let mut innermost = true;
        while at != StackIndex::NONE {
            let Some(node) = contents.stacks.get(at.0 as usize) else {
                resolved.stack = StackState::Lost;
                break;
            };
            match node.frame.and_then(|frame| contents.frames.get(frame.0 as usize)) {
                Some(frame) => resolved.push(contents, frame, &mut innermost),
                None if at == StackIndex::UNKNOWN => resolved.stack = StackState::Lost,
                None => resolved.stack = StackState::Cut,
            }
            // A parent's index is smaller than its child's; a damaged trace could otherwise go round for ever.
            at = if node.parent < at { node.parent } else { StackIndex::NONE };
        }
        resolved
    }

    /// Appends the functions of a code location; `innermost` says that only allocator frames came before.
    fn push(&mut self, contents: &Contents, frame: &Frame, innermost: &mut bool) {
        let module = frame.module.and_then(|module| contents.modules.get(module.0 as usize));
        if module.is_some_and(|module| allocator_frames::is_hook_module(&module.path)) {
            return;
        }
        let module = module.map(|module| module.path.to_string_lossy().into_owned());
        let address = names::address(frame.address);
        if let Some(name) = &frame.jumped {
            let function = Function { name: name.clone(), file: None, line: None, inlined: false };
            let view = FrameView::of(&function, module.clone(), address.clone());
            self.push_function(FrameView { jumped: true, ..view }, innermost);
        }
        if frame.functions.is_empty() {
            *innermost = false;
            self.frames.push(FrameView {
                function: None,
                file: None,
                line: None,
                module,
                address,
                inlined: false,
                jumped: false,
            });
            return;
        }
        for function in &frame.functions {
            self.push_function(FrameView::of(function, module.clone(), address.clone()), innermost);
        }
    }

    fn push_function(&mut self, frame: FrameView, innermost: &mut bool) {
        let name = frame.function.as_deref().unwrap_or_default();
        if *innermost && allocator_frames::is_allocator(name) {
            if let Some(operator) = allocator_frames::operator_new(name) {
                self.call = operator.to_owned();
            }
            return;
        }
        *innermost = false;
        self.frames.push(frame);
    }
}

/// The hash of a stack: FNV-1a over the build-ids (else the paths) and addresses of its frames, the hooks' left out.
///
/// What is hashed is what a symboliser would be asked, so names and line numbers, which may be missing, play no part.
pub(super) fn id(contents: &Contents, stack: StackIndex) -> String {
    let mut hash = Fnv1a::new();
    let mut at = stack;
    while at != StackIndex::NONE {
        let Some(node) = contents.stacks.get(at.0 as usize) else { break };
        match node.frame.and_then(|frame| contents.frames.get(frame.0 as usize)) {
            Some(frame) => {
                let module = frame.module.and_then(|module| contents.modules.get(module.0 as usize));
                if !module.is_some_and(|module| allocator_frames::is_hook_module(&module.path)) {
                    match module {
                        Some(module) if !module.build_id.is_empty() => hash.add(&module.build_id),
                        Some(module) => hash.add(module.path.as_os_str().as_encoded_bytes()),
                        None => hash.add(b"no module"),
                    }
                    hash.add(&frame.address.to_le_bytes());
                }
            }
            None => hash.add(b"no frame"),
        }
        at = if node.parent < at { node.parent } else { StackIndex::NONE };
    }
    format!("{:012x}", hash.value() >> 16)
}

impl FrameView {
    fn of(function: &Function, module: Option<String>, address: String) -> FrameView {
        FrameView {
            function: Some(function.name.clone()),
            file: function.file.as_ref().map(|file| file.to_string_lossy().into_owned()),
            line: function.line,
            module,
            address,
            inlined: function.inlined,
            jumped: false,
        }
    }

    /// The function, or module and address where no name is known.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.function, self.module_name()) {
            (Some(function), _) => function.clone(),
            (None, Some(module)) => format!("{module}+{}", self.address),
            (None, None) => self.address.clone(),
        }
    }

    /// File name and line, `parse.cc:88`; `None` without line information.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let file = last_part(self.file.as_deref()?);
        Some(self.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
    }

    /// File name of the module.
    #[must_use]
    pub fn module_name(&self) -> Option<&str> {
        self.module.as_deref().map(last_part)
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::{Sample, server};
    use crate::trace::{Event, StackNode};

    fn stack_of(sample: &Sample, size_bytes: u64) -> CallStack {
        let found = sample.streams[0].entries.iter().find_map(|entry| {
            let Event::Alloc { block, .. } = entry.event else { return None };
            (block.size_bytes == size_bytes).then_some((block.stack, block.call))
        });
        let (stack, call) = found.expect("the sample has a block of this size");
        CallStack::of(&sample.contents, stack, call)
    }

    #[test]
    fn hook_and_operator_are_hidden_and_the_operator_names_the_call() {
        let stack = stack_of(&server(), 24);
        assert_eq!(stack.call, "operator new");
        let names: Vec<_> = stack.frames.iter().map(FrameView::name).collect();
        assert_eq!(names, ["copy_value(std::string_view)", "parse_header(Request&)", "main", "_start"]);
        assert!(stack.frames[0].inlined && !stack.frames[1].inlined);
        assert_eq!(stack.frames[1].place().as_deref(), Some("parse.cc:88"));
    }

    #[test]
    fn the_id_of_a_stack_depends_on_its_code_alone() {
        let sample = server();
        let stack = stack_of(&sample, 24);
        let mut renamed = server();
        for frame in &mut renamed.contents.frames {
            frame.functions.clear();
        }
        assert_eq!(stack_of(&renamed, 24).id, stack.id);
        assert_ne!(stack_of(&sample, 4_096).id, stack.id);
        renamed.contents.frames.iter_mut().for_each(|frame| frame.address += 1);
        assert_ne!(stack_of(&renamed, 24).id, stack.id);
    }

    #[test]
    fn an_operator_that_jumped_names_the_call_and_is_shown_behind_the_programs_own() {
        let mut sample = server();
        let new = ("operator new(unsigned long)", "", 0);
        let main = sample.frame("app", 0x10, &[("main", "", 0)]);
        let libs = sample.frame("libstdc++.so.6", 0x20, &[new]);
        let own = sample.frame("app", 0x30, &[("pool::take", "", 0), new]);
        sample.contents.frames[main.0 as usize].jumped = Some("operator new[](unsigned long)".into());
        let told = |sample: &mut Sample, innermost| {
            let stack = sample.stack(&[main, innermost]);
            let stack = CallStack::of(&sample.contents, stack, Call::Malloc);
            let frames: Vec<_> = stack.frames.iter().map(|frame| (frame.name(), frame.jumped)).collect();
            (stack.call, frames)
        };
        let frame = |name: &str, jumped| (name.to_owned(), jumped);
        assert_eq!(told(&mut sample, libs), ("operator new[]".to_owned(), vec![frame("main", false)]));
        let shown = vec![
            frame("pool::take", false),
            frame("operator new(unsigned long)", false),
            frame("operator new[](unsigned long)", true),
            frame("main", false),
        ];
        assert_eq!(told(&mut sample, own), ("malloc".to_owned(), shown));
    }

    #[test]
    fn code_without_a_symbol_is_named_by_module_and_address() {
        let stack = stack_of(&server(), 4_096);
        assert_eq!(stack.frames[0].name(), "plugin.so+0x77");
        assert_eq!(stack.frames[0].function, None);
    }

    #[test]
    fn a_lost_stack_says_so_and_a_cut_one_keeps_its_inner_frames() {
        let mut sample = server();
        let lost = CallStack::of(&sample.contents, StackIndex::UNKNOWN, Call::Malloc);
        assert_eq!((lost.stack, lost.frames.len()), (StackState::Lost, 0));
        let cut = StackIndex(sample.contents.stacks.len() as u32);
        let frame = sample.contents.stacks[2].frame;
        sample.contents.stacks.push(StackNode { parent: StackIndex::NONE, frame: None });
        sample.contents.stacks.push(StackNode { parent: cut, frame });
        let stack = CallStack::of(&sample.contents, StackIndex(cut.0 + 1), Call::Malloc);
        assert_eq!((stack.stack, stack.frames.len()), (StackState::Cut, 1));
    }

    #[test]
    fn a_stack_whose_parents_go_round_ends_all_the_same() {
        let mut sample = server();
        let frame = sample.contents.stacks[2].frame;
        sample.contents.stacks[2] = StackNode { parent: StackIndex(3), frame };
        let stack = CallStack::of(&sample.contents, StackIndex(3), Call::Malloc);
        assert!(stack.frames.len() <= 4);
    }
}
