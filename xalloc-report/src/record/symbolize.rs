//! Names for the frames of a recording, while its binaries are still the ones that ran.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::symbols::{self, Early, Missing, Places, Symbolizer, Wanted, demangle};
use crate::trace::{Contents, Frame, FrameIndex, Function, Module};

/// What could not be named, by file.
pub type Unnamed = Vec<(PathBuf, Vec<Missing>)>;

/// The naming of frames as they appear, so that little is left to do at the end.
pub(crate) struct Naming {
    early: Early,
    /// Frames that were looked at.
    frames: usize,
}

impl Naming {
    /// Nothing is asked yet; debug information is looked for in `places`.
    pub(crate) fn new(places: Places) -> Naming {
        Naming { early: Early::new(places), frames: 0 }
    }

    /// Asks for the names of the frames that are there for the first time. Those whose module is not known yet are
    /// named at the end.
    pub(crate) fn note(&mut self, contents: &Contents) {
        let mut gained: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for frame in contents.frames.get(self.frames..).unwrap_or_default() {
            if let Some(module) = frame.module {
                gained.entry(module.0 as usize).or_default().push(call_of(frame));
            }
        }
        self.frames = contents.frames.len();
        for (module, addresses) in gained {
            self.early.ask(symbols::ModuleIndex(module), addresses, || symbols_module(&contents.modules[module]));
        }
    }
}

/// A frame holds a return address; the call that is meant ends one byte before it.
fn call_of(frame: &Frame) -> u64 {
    frame.address.wrapping_sub(1)
}

fn symbols_module(module: &Module) -> symbols::Module {
    symbols::Module { path: module.path.clone(), build_id: module.build_id.clone() }
}

/// Fills in the functions of all frames that lie in a module, and the operators that left none.
pub(crate) fn symbolize(contents: &mut Contents, places: Places, naming: Naming) -> Unnamed {
    let modules = contents.modules.iter().map(symbols_module).collect();
    let mut frames_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, frame) in contents.frames.iter().enumerate() {
        if let Some(module) = frame.module {
            frames_of.entry(module.0 as usize).or_default().push(at);
        }
    }
    let wanted: Vec<Wanted> = frames_of
        .iter()
        .map(|(&module, frames)| Wanted {
            module: symbols::ModuleIndex(module),
            addresses: frames.iter().map(|&at| call_of(&contents.frames[at])).collect(),
        })
        .collect();
    let answers = Symbolizer::new(modules, places).resolve_after(naming.early, &wanted);
    let mut unnamed = Unnamed::new();
    let mut callees = vec![None; contents.frames.len()];
    for ((module, frames), answer) in frames_of.into_iter().zip(answers) {
        for ((at, functions), callee) in frames.into_iter().zip(answer.frames).zip(answer.callees) {
            contents.frames[at].functions = functions.into_iter().map(function).collect();
            callees[at] = callee;
        }
        if !answer.missing.is_empty() {
            unnamed.push((contents.modules[module].path.clone(), answer.missing));
        }
    }
    name_jumped(contents, &callees);
    contents.recording.symbolized = true;
    unnamed
}

/// Names the operators that went on to another one by a jump, by the calls that led to them.
///
/// `callees` are the linker's names of what each frame calls. Only calls of operators are believed to be jumped from: a
/// function has many names (versions, aliases, resolvers), and that the stack shows another one seldom means a jump.
fn name_jumped(contents: &mut Contents, callees: &[Option<String>]) {
    let Contents { stacks, frames, .. } = contents;
    for node in stacks.iter() {
        let caller = stacks.get(node.parent.0 as usize).and_then(|parent| parent.frame);
        let (Some(callee), Some(FrameIndex(caller))) = (node.frame, caller) else { continue };
        let shown = frames.get(callee.0 as usize).and_then(outermost).filter(|name| is_operator_new(name));
        let (Some(shown), Some(Some(called))) = (shown, callees.get(caller as usize)) else { continue };
        let called = demangle(called);
        if is_operator_new(&called) && called != shown {
            frames[caller as usize].jumped = Some(called);
        }
    }
}

fn outermost(frame: &Frame) -> Option<&str> {
    frame.functions.last().map(|function| function.name.as_str())
}

/// Whether this is one of C++'s operators that allocate. Without parameters a name does not tell which.
fn is_operator_new(name: &str) -> bool {
    name.starts_with("operator new(") || name.starts_with("operator new[](")
}

fn function(frame: symbols::Frame) -> Function {
    let symbols::Frame { function, raw_name, file, line, column: _, inlined } = frame;
    let name = function.or(raw_name).unwrap_or_else(|| String::from("??"));
    Function { name, file: file.map(PathBuf::from), line, inlined }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{ModuleIndex, StackIndex, StackNode};

    #[test]
    fn a_return_address_in_our_own_binary_is_named_after_the_function_that_called() {
        #[inline(never)]
        fn here() -> u64 {
            let mut address = 0;
            backtrace::trace(|frame| {
                address = frame.ip() as u64;
                false
            });
            address
        }
        let runtime = here();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = std::env::current_exe().unwrap();
        let base = maps.lines().find(|line| line.ends_with(path.to_str().unwrap())).unwrap();
        let base = u64::from_str_radix(base.split('-').next().unwrap(), 16).unwrap();
        let name_of = |is_early| {
            let module = Module { path: path.clone(), build_id: Vec::new() };
            let address = runtime - base;
            let frame = Frame { module: Some(ModuleIndex(0)), address, functions: Vec::new(), jumped: None };
            let mut contents = Contents { modules: vec![module], frames: vec![frame], ..Contents::default() };
            let mut naming = Naming::new(Places::of_this_machine());
            if is_early {
                naming.note(&contents);
            }
            // One that was not there before joins it.
            contents.frames.push(Frame { address: address + 1, ..contents.frames[0].clone() });
            symbolize(&mut contents, Places::of_this_machine(), naming);
            assert!(contents.recording.symbolized);
            assert!(!contents.frames[1].functions.is_empty());
            contents.frames.swap_remove(0).functions
        };
        let (early, late) = (name_of(true), name_of(false));
        assert!(!late.is_empty());
        assert_eq!(early, late);
    }

    #[test]
    fn an_operator_that_a_call_names_and_the_stack_does_not_show_has_jumped() {
        let new = "operator new(unsigned long)";
        // What the stack shows; what the frame below it calls; what is concluded.
        for (shown, called, jumped) in [
            (new, Some("_Znam"), Some("operator new[](unsigned long)")),
            (new, Some("_ZnwmRKSt9nothrow_t"), Some("operator new(unsigned long, std::nothrow_t const&)")),
            (new, Some("_Znwm"), None),
            (new, Some("_Z6createm"), None),
            (new, None, None),
            ("operator new", Some("_Znwm"), None),
            ("malloc", Some("_Znam"), None),
        ] {
            let function = Function { name: shown.to_owned(), file: None, line: None, inlined: false };
            let frame = |functions| Frame { module: None, address: 0, functions, jumped: None };
            let node = |parent, frame| StackNode { parent: StackIndex(parent), frame };
            let mut contents = Contents {
                frames: vec![frame(vec![function]), frame(Vec::new())],
                stacks: vec![node(0, None), node(0, None), node(0, Some(FrameIndex(1))), node(2, Some(FrameIndex(0)))],
                ..Contents::default()
            };
            name_jumped(&mut contents, &[None, called.map(str::to_owned)]);
            assert_eq!(contents.frames[1].jumped.as_deref(), jumped, "{called:?} shown as {shown}");
            assert_eq!(contents.frames[0].jumped, None);
        }
    }
}
