//! LeakSanitizer's suppressions: `leak:PATTERN`, one a line.
//!
//! A pattern is looked for in the function, the source file and the module of every frame. `*`, `^` and `$` are as in
//! [`Pattern::part`]. A line that begins with `#` is a comment.

use super::{Matcher, Suppression, SuppressionError, expiry};
use crate::analysis::{CallStack, Pattern};

/// What one line suppresses.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pattern: Pattern,
}

impl Entry {
    pub(super) fn matches(&self, at: &CallStack) -> bool {
        at.frames.iter().any(|frame| {
            let names = [&frame.function, &frame.file, &frame.module];
            // An unknown name matches nothing, not even `*`: the sanitizer's rule.
            names.into_iter().flatten().any(|name| !name.is_empty() && self.pattern.matches(name))
        })
    }
}

pub(super) fn read(file: &str, text: &str) -> Result<Vec<Suppression>, SuppressionError> {
    let (mut entries, mut expires) = (Vec::new(), None);
    for (number, line) in (1u32..).zip(text.lines()) {
        let wrong = |what: String| SuppressionError { file: file.to_owned(), line: number, what };
        let line = line.trim();
        if line.starts_with('#') {
            expires = expiry(line).map_err(wrong)?.or(expires);
        } else if let Some(pattern) = line.strip_prefix("leak:") {
            let matcher = Matcher::Lsan(Entry { pattern: Pattern::part(pattern) });
            let (name, file) = (line.to_owned(), file.to_owned());
            entries.push(Suppression { name, file, line: number, expires: expires.take(), program: None, matcher });
        } else if !line.is_empty() {
            return Err(wrong(format!(
                "`{line}` is no suppression of leaks; write `leak:PATTERN`, or valgrind's braces"
            )));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::super::tests::stack;
    use super::*;

    fn suppresses(line: &str) -> bool {
        let entries = read("s", line).expect("one entry");
        let Matcher::Lsan(entry) = &entries[0].matcher else { panic!("another format") };
        entry.matches(&stack(
            "malloc",
            &[("parse_header(Request&)", "/src/parse.cc", "/usr/lib/libfoo.so.1"), ("", "", "")],
        ))
    }

    #[test]
    fn a_pattern_is_looked_for_in_function_file_and_module() {
        for line in
            ["leak:parse_header", "leak:parse.cc$", "  leak:libfoo.so  ", "leak:^/usr/*foo", "leak:^parse_*(Request&)$"]
        {
            assert!(suppresses(line), "{line}");
        }
        for line in ["leak:main", "leak:^libfoo", "leak:parse$", "leak:malloc", "leak:^$"] {
            assert!(!suppresses(line), "{line}");
        }
    }

    #[test]
    fn another_sanitizers_line_is_named_with_its_number() {
        let error = read("tsan.supp", "# races\n\nrace:foo\n").expect_err("no leak");
        assert_eq!((error.line, error.to_string().contains("race:foo")), (3, true));
    }

    #[test]
    fn an_expiry_holds_for_the_next_line_alone() {
        let entries = read("s", "# xalloc: expires 2027-01-31 ticket in review\n# a remark\nleak:a\nleak:b\n")
            .expect("two entries");
        assert_eq!(entries[0].expires.map(|date| date.to_string()).as_deref(), Some("2027-01-31"));
        assert_eq!(entries[1].expires, None);
    }
}
