//! Names for the frames of a recording, while its binaries are still the ones that ran.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::symbols::{self, Missing, Places, Symbolizer, Wanted};
use crate::trace::{Contents, Function};

/// What could not be named, by file.
pub type Unnamed = Vec<(PathBuf, Vec<Missing>)>;

/// Fills in the functions of all frames that lie in a module.
pub(crate) fn symbolize(contents: &mut Contents, places: Places) -> Unnamed {
    let modules = contents.modules.iter().map(|module| symbols::Module {
        path: module.path.clone(),
        build_id: module.build_id.clone(),
        ..symbols::Module::default()
    });
    let modules: Vec<_> = modules.collect();
    let mut frames_of: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, frame) in contents.frames.iter().enumerate() {
        if let Some(module) = frame.module {
            frames_of.entry(module.0 as usize).or_default().push(at);
        }
    }
    // A frame holds a return address; the call that is meant ends one byte before it.
    let wanted: Vec<Wanted> = frames_of
        .iter()
        .map(|(&module, frames)| Wanted {
            module: symbols::ModuleIndex(module),
            addresses: frames.iter().map(|&at| contents.frames[at].address.wrapping_sub(1)).collect(),
        })
        .collect();
    let answers = Symbolizer::new(modules, places).resolve(&wanted);
    let mut unnamed = Unnamed::new();
    for ((module, frames), answer) in frames_of.into_iter().zip(answers) {
        for (at, functions) in frames.into_iter().zip(answer.frames) {
            contents.frames[at].functions = functions.into_iter().map(function).collect();
        }
        if !answer.missing.is_empty() {
            unnamed.push((contents.modules[module].path.clone(), answer.missing));
        }
    }
    contents.recording.symbolized = true;
    unnamed
}

fn function(frame: symbols::Frame) -> Function {
    let symbols::Frame { function, raw_name, file, line, column: _, inlined } = frame;
    let name = function.or(raw_name).unwrap_or_else(|| String::from("??"));
    Function { name, file: file.map(PathBuf::from), line, inlined }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Frame, Module, ModuleIndex};

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
        let module = Module { path, build_id: Vec::new() };
        let frame = Frame { module: Some(ModuleIndex(0)), address: runtime - base, functions: Vec::new() };
        let mut contents = Contents { modules: vec![module], frames: vec![frame], ..Contents::default() };
        symbolize(&mut contents, Places::of_this_machine());
        assert!(!contents.frames[0].functions.is_empty());
        assert!(contents.recording.symbolized);
    }
}
