//! Valgrind's suppressions: a name, `Memcheck:Leak`, optionally `match-leak-kinds:`, then the frames from the
//! innermost outwards, all in braces.
//!
//! A frame is `fun:`, `obj:` or `src:` with a pattern, and `...` stands for any number of frames. Frames beyond the
//! last line match anything. Entries for other errors than leaks and for other tools are counted and passed over.
//!
//! # What differs from valgrind, and how it is bridged
//! - Valgrind sees the allocator's own frames, and its entries begin with `fun:malloc` or `fun:_Znwm`. A trace keeps the
//!   call by which the program asked instead: it stands for the first frame, and further lines that name what only
//!   passes an allocation on may be missing from the stack.
//! - Valgrind writes C++ names mangled, a trace has them demangled. A mangled name is demangled before it is compared;
//!   one that a `*` cuts is demangled as far as whole parts of the name go.

use super::{Matcher, Suppression, SuppressionError, expiry};
use crate::analysis::{CallStack, FrameView, Pattern, is_allocator};
use crate::check::date::Date;
use crate::symbols::demangle;
use crate::trace::LeakClass;

/// What one entry suppresses.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    kinds: Vec<LeakClass>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    /// Patterns of one function: as written, and demangled.
    Function {
        patterns: Vec<Pattern>,
        passes_on: bool,
    },
    Object(Pattern),
    /// Of the source file, and of file and line.
    Source(Pattern),
    Any,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) entries: Vec<Suppression>,
    pub(super) foreign: u64,
}

impl Entry {
    pub(super) fn matches(&self, class: LeakClass, at: &CallStack) -> bool {
        // A ring is what valgrind calls definitely lost, through its leader.
        let kind = if class == LeakClass::Cycle { LeakClass::Definite } else { class };
        self.kinds.contains(&kind) && matches(&self.lines, at)
    }
}

/// Whether the lines match the stack from its innermost frame outwards. The call is frame 0.
fn matches(lines: &[Line], at: &CallStack) -> bool {
    let frames = at.frames.len() + 1;
    // reached[n]: the lines so far match the first n frames. A set of places instead of a search that goes back: time
    // is lines times frames, however many `...` there are.
    let mut reached = vec![false; frames + 1];
    reached[0] = true;
    for line in lines {
        let mut next = vec![false; frames + 1];
        for place in (0..=frames).filter(|&place| reached[place]) {
            match line {
                Line::Any => next[place..].fill(true),
                Line::Function { passes_on, .. } => {
                    let fits = place < frames && line.fits(at, place);
                    if fits {
                        next[place + 1] = true;
                    }
                    if *passes_on && place == 1 {
                        next[place] = true;
                    }
                }
                Line::Object(_) | Line::Source(_) => {
                    if place < frames && line.fits(at, place) {
                        next[place + 1] = true;
                    }
                }
            }
        }
        reached = next;
    }
    reached.contains(&true)
}

impl Line {
    fn fits(&self, at: &CallStack, place: usize) -> bool {
        let Some(place) = place.checked_sub(1) else { return self.fits_call(&at.call) };
        let frame = &at.frames[place];
        match self {
            Line::Function { patterns, .. } => {
                // What has no name is `???` to valgrind.
                let name = frame.function.as_deref().unwrap_or("???");
                patterns.iter().any(|pattern| pattern.matches(name))
            }
            Line::Object(pattern) => pattern.matches(frame.module.as_deref().unwrap_or("???")),
            Line::Source(pattern) => sources(frame).iter().any(|source| pattern.matches(source)),
            Line::Any => true,
        }
    }

    /// Whether the line can mean the allocator's own frame.
    fn fits_call(&self, call: &str) -> bool {
        match self {
            Line::Function { patterns, .. } => {
                let whole = format!("{call}(unsigned long)");
                patterns.iter().any(|pattern| pattern.matches(call) || pattern.matches(&whole))
            }
            // Which library valgrind serves memory from is nothing that an entry can mean here.
            Line::Object(pattern) => pattern.matches("vgpreload_memcheck-amd64-linux.so"),
            Line::Source(_) => false,
            Line::Any => true,
        }
    }
}

fn sources(frame: &FrameView) -> Vec<String> {
    let Some(file) = &frame.file else { return Vec::new() };
    let name = file.rsplit('/').next().unwrap_or(file);
    let lines = frame.line.map(|line| [format!("{name}:{line}"), format!("{file}:{line}")]);
    [name.to_owned(), file.clone()].into_iter().chain(lines.into_iter().flatten()).collect()
}

fn function(pattern: &str) -> Line {
    let mut names = vec![pattern.to_owned()];
    if pattern.starts_with("_Z") || pattern.starts_with("_R") {
        let whole = demangle(pattern);
        if whole != pattern {
            names.push(whole);
        } else if let Some(parts) = parts_of_mangled(pattern) {
            names.push(parts);
        }
    }
    let passes_on = names.iter().any(|name| is_allocator(name));
    Line::Function { patterns: names.iter().map(|name| Pattern::whole(name)).collect(), passes_on }
}

/// `_ZN3foo3barE*` and `_ZN3foo3*` as `foo::bar*` and `foo::*`: the whole parts of a mangled name before its first
/// wildcard.
fn parts_of_mangled(pattern: &str) -> Option<String> {
    let cut = pattern.find(['*', '?'])?;
    let mangled = &pattern[..cut];
    let nested = mangled.strip_prefix("_ZNK").or_else(|| mangled.strip_prefix("_ZN"));
    let mut rest = nested.or_else(|| mangled.strip_prefix("_Z"))?;
    let mut parts = Vec::new();
    let mut open = true;
    while let Some(digits) = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|&digits| digits > 0) {
        let Ok(length) = rest[..digits].parse::<usize>() else { break };
        let Some(part) = rest[digits..].get(..length) else { break };
        parts.push(part);
        rest = &rest[digits + length..];
        if nested.is_none() || rest.starts_with('E') {
            open = false;
            break;
        }
    }
    let end = if open { "::*" } else { "*" };
    (!parts.is_empty()).then(|| format!("{}{end}", parts.join("::")))
}

fn kinds(list: &str) -> Result<Vec<LeakClass>, String> {
    let all = [LeakClass::Definite, LeakClass::Indirect, LeakClass::Possible, LeakClass::Reachable];
    let mut kinds = Vec::new();
    for name in list.split(',').map(str::trim) {
        match name {
            "all" => kinds.extend(all),
            "none" => {}
            _ => {
                let known = all.into_iter().find(|class| class.name() == name);
                kinds.push(known.ok_or_else(|| {
                    format!(
                        "`{name}` is no kind of leak; there are definite, indirect, possible, reachable, all and none"
                    )
                })?);
            }
        }
    }
    Ok(kinds)
}

fn line(text: &str) -> Result<Line, String> {
    match text.split_once(':') {
        _ if text == "..." => Ok(Line::Any),
        Some(("fun", pattern)) => Ok(function(pattern)),
        Some(("obj", pattern)) => Ok(Line::Object(Pattern::whole(pattern))),
        Some(("src", pattern)) => Ok(Line::Source(Pattern::whole(pattern))),
        _ => Err(format!("`{text}` is no frame; write fun:, obj:, src: or ...")),
    }
}

/// An entry that is being read.
#[derive(Default)]
struct Open {
    line: u32,
    name: Option<String>,
    is_leak: Option<bool>,
    kinds: Option<Vec<LeakClass>>,
    lines: Vec<Line>,
    expires: Option<Date>,
}

pub(super) fn read(file: &str, text: &str) -> Result<Read, SuppressionError> {
    let mut read = Read { entries: Vec::new(), foreign: 0 };
    let (mut open, mut expires): (Option<Open>, _) = (None, None);
    let mut last = 0;
    for (number, text) in (1u32..).zip(text.lines()) {
        last = number;
        let wrong = |what: String| SuppressionError { file: file.to_owned(), line: number, what };
        let text = text.trim();
        if text.starts_with('#') {
            let said = expiry(text).map_err(wrong)?;
            let place = open.as_mut().map_or(&mut expires, |open| &mut open.expires);
            *place = said.or(*place);
        } else if text.is_empty() {
        } else if text == "{" {
            if open.is_some() {
                return Err(wrong("an entry begins before the one before it ends".to_owned()));
            }
            open = Some(Open { line: number, expires: expires.take(), ..Open::default() });
        } else if let Some(entry) = &mut open {
            if text == "}" {
                let entry = open.take().unwrap_or_default();
                finish(file, entry, &mut read).map_err(wrong)?;
            } else {
                entry.take(text).map_err(wrong)?;
            }
        } else {
            return Err(wrong(format!("`{text}` stands outside of braces")));
        }
    }
    match open {
        None => Ok(read),
        Some(entry) => {
            let what = format!("the entry that begins in line {} has no closing brace", entry.line);
            Err(SuppressionError { file: file.to_owned(), line: last, what })
        }
    }
}

impl Open {
    fn take(&mut self, text: &str) -> Result<(), String> {
        if self.name.is_none() {
            self.name = Some(text.to_owned());
            return Ok(());
        }
        let Some(is_leak) = self.is_leak else {
            let (tools, kind) = text
                .split_once(':')
                .ok_or_else(|| format!("`{text}` names no tool and no error; write Memcheck:Leak"))?;
            self.is_leak = Some(kind == "Leak" && tools.split(',').any(|tool| tool.trim() == "Memcheck"));
            return Ok(());
        };
        if !is_leak {
            return Ok(());
        }
        match text.strip_prefix("match-leak-kinds:") {
            Some(list) if self.lines.is_empty() && self.kinds.is_none() => self.kinds = Some(kinds(list)?),
            Some(_) => return Err("match-leak-kinds stands once, before the frames".to_owned()),
            None => self.lines.push(line(text)?),
        }
        Ok(())
    }
}

fn finish(file: &str, open: Open, read: &mut Read) -> Result<(), String> {
    let Open { line, name, is_leak, kinds: named, lines, expires } = open;
    let (Some(name), Some(is_leak)) = (name, is_leak) else {
        return Err("the entry has no name or no kind of error".to_owned());
    };
    if !is_leak {
        read.foreign += 1;
        return Ok(());
    }
    let kinds = match named {
        Some(kinds) => kinds,
        None => kinds("all")?,
    };
    let matcher = Matcher::Valgrind(Entry { kinds, lines });
    read.entries.push(Suppression { name, file: file.to_owned(), line, expires, program: None, matcher });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::stack;
    use super::*;

    fn suppresses(body: &str, class: LeakClass, at: &CallStack) -> bool {
        let text = format!("{{\n name\n Memcheck:Leak\n {}\n}}\n", body.replace(' ', "\n "));
        let entries = read("s", &text).expect(body).entries;
        let Matcher::Valgrind(entry) = &entries[0].matcher else { panic!("another format") };
        entry.matches(class, at)
    }

    fn at() -> CallStack {
        stack(
            "operator new",
            &[
                ("copy(char const*)", "/src/copy.cc", "/app/server"),
                ("foo::bar(int)", "/src/bar.cc", "/app/server"),
                ("", "", "/usr/lib/libplugin.so.2"),
                ("main", "/src/main.cc", "/app/server"),
            ],
        )
    }

    #[test]
    fn frames_are_matched_from_the_innermost_outwards() {
        for body in [
            "fun:_Znwm fun:_Z4copyPKc",
            "fun:*new* fun:copy* fun:_ZN3foo3barEi",
            "... fun:_ZN3foo3barE*",
            "... fun:_ZN3foo*",
            "... obj:*/libplugin.so* fun:main",
            "... src:bar.cc:7 ...",
            "... fun:??? fun:main",
            "fun:_Znwm ... fun:main",
            "fun:_Znwm fun:_ZnwmRKSt9nothrow_t fun:copy*",
            "...",
        ] {
            assert!(suppresses(body, LeakClass::Definite, &at()), "{body}");
        }
        for body in [
            "fun:_Z4copyPKc",
            "fun:malloc fun:copy*",
            "fun:_Znwm fun:_ZN3foo3barEi",
            "... fun:_ZN3fob*",
            "... fun:main fun:copy*",
            "... src:bar.cc:8",
            "... obj:libplugin.so",
        ] {
            assert!(!suppresses(body, LeakClass::Definite, &at()), "{body}");
        }
    }

    #[test]
    fn kinds_limit_an_entry_and_a_cycle_counts_as_definite() {
        let body = "match-leak-kinds:definite,possible ...";
        for (class, expected) in [
            (LeakClass::Definite, true),
            (LeakClass::Cycle, true),
            (LeakClass::Possible, true),
            (LeakClass::Reachable, false),
            (LeakClass::Runtime, false),
        ] {
            assert_eq!(suppresses(body, class, &at()), expected, "{class:?}");
        }
        assert!(!suppresses("match-leak-kinds:none ...", LeakClass::Definite, &at()));
    }

    #[test]
    fn entries_for_other_errors_are_counted_and_passed_over() {
        let text = "# dl\n{\n cond\n Memcheck:Cond\n fun:x\n}\n{\n p\n Memcheck:Param\n write(buf)\n ...\n}\n{\n l\n Memcheck,Addrcheck:Leak\n fun:a\n}\n";
        let read = read("s", text).expect("three entries");
        assert_eq!((read.foreign, read.entries.len(), read.entries[0].line), (2, 1, 13));
    }

    #[test]
    fn a_faulty_entry_is_named_with_its_line() {
        for (text, line) in [
            ("{\n a\n Memcheck:Leak\n function:x\n}", 4),
            ("{\n a\n Memcheck:Leak\n", 3),
            ("{\n a\n{\n", 3),
            ("{\n a\n}\n", 3),
            ("{\n a\n Memcheck:Leak\n match-leak-kinds:lost\n}", 4),
            ("{\n a\n Memcheck:Leak\n fun:x\n match-leak-kinds:all\n}", 5),
            ("{\n a\n Leak\n}", 3),
            ("{\n a\n Memcheck:Leak\n}\nfun:x\n", 5),
        ] {
            assert_eq!(read("s", text).expect_err(text).line, line, "{text}");
        }
    }
}
