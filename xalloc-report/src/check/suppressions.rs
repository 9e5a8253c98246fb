//! Which leaks are known and not to be reported: suppression files of LeakSanitizer and of valgrind, as they are.
//!
//! Both formats know no end of an entry's life, so a comment that both tools skip carries it: `# xalloc: expires
//! 2027-01-31` holds for the entry that follows it, or, in valgrind's braces, for the entry that it stands in. From
//! the day after, the entry suppresses nothing and is listed as expired.
//!
//! The first entry that matches a leak suppresses it, in the order of the files and of their lines.
//!
//! A program may carry suppressions of its own ([`programs`]); they hold for its own leaks, behind all files.

mod lsan;
mod programs;
mod valgrind;

pub use programs::{ProgramsOwn, suppress};
use schemars::JsonSchema;
use serde::Serialize;

use super::date::Date;
use crate::analysis::CallStack;
use crate::trace::LeakClass;

/// What is wrong with a suppression file.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct SuppressionError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// What is wrong there.
    pub what: String,
}

/// One entry of a suppression file.
#[derive(Clone, Debug)]
struct Suppression {
    /// Its name: valgrind's first line, or LeakSanitizer's whole line.
    name: String,
    /// The file that it stands in.
    file: String,
    /// The line that it begins at, from 1.
    line: u32,
    /// The last day on which it holds.
    expires: Option<Date>,
    /// The program whose leaks alone it is about, by file name; `None`: everybody's.
    program: Option<String>,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Lsan(lsan::Entry),
    Valgrind(valgrind::Entry),
}

/// An entry and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct SuppressionUse {
    /// Its name.
    pub name: String,
    /// The file that it stands in.
    pub file: String,
    /// The line that it begins at, from 1.
    pub line: u32,
    /// The last day on which it holds; `null` without an end.
    pub expires: Option<Date>,
    /// Whether that day is over, so that it suppressed nothing.
    pub expired: bool,
    /// Blocks that it suppressed.
    pub blocks: u64,
    /// Requested bytes of these.
    pub bytes: u64,
}

/// All entries that were read.
#[derive(Clone, Debug, Default)]
pub struct Suppressions {
    entries: Vec<Suppression>,
    /// Entries of valgrind's files that are about other things than leaks.
    pub foreign: u64,
}

impl Suppressions {
    /// Reads one more file. Its format is told by its first line that is no comment: valgrind's entries begin with a
    /// brace.
    ///
    /// # Errors
    /// At the first line that is neither format.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), SuppressionError> {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let entries = if first.is_some_and(|line| line.starts_with('{')) {
            let valgrind::Read { entries, foreign } = valgrind::read(file, text)?;
            self.foreign += foreign;
            entries
        } else {
            lsan::read(file, text)?
        };
        self.entries.extend(entries);
        Ok(())
    }

    /// The number of the entry that suppresses blocks of this class and origin in a process of `program`.
    #[must_use]
    pub fn matching(&self, class: Option<LeakClass>, at: &CallStack, program: &str, today: Date) -> Option<usize> {
        let is_about = |entry: &Suppression| entry.program.as_deref().is_none_or(|its| its == program);
        self.entries.iter().position(|entry| is_about(entry) && entry.holds_on(today) && entry.matches(class, at))
    }

    /// Every entry, with nothing suppressed yet.
    #[must_use]
    pub fn uses(&self, today: Date) -> Vec<SuppressionUse> {
        let usage = |entry: &Suppression| SuppressionUse {
            name: entry.name.clone(),
            file: entry.file.clone(),
            line: entry.line,
            expires: entry.expires,
            expired: !entry.holds_on(today),
            blocks: 0,
            bytes: 0,
        };
        self.entries.iter().map(usage).collect()
    }
}

impl Suppression {
    fn holds_on(&self, today: Date) -> bool {
        self.expires.is_none_or(|last| today <= last)
    }

    fn matches(&self, class: Option<LeakClass>, at: &CallStack) -> bool {
        match &self.matcher {
            Matcher::Lsan(entry) => entry.matches(at),
            // Blocks that no scan looked at have no kind that an entry could name.
            Matcher::Valgrind(entry) => class.is_some_and(|class| entry.matches(class, at)),
        }
    }
}

/// What the comment says to xalloc: the last day of an entry.
fn expiry(comment: &str) -> Result<Option<Date>, String> {
    let Some(said) = comment.trim_start_matches('#').trim().strip_prefix("xalloc:") else { return Ok(None) };
    let mut words = said.split_whitespace();
    match (words.next(), words.next()) {
        (Some("expires"), Some(date)) => date.parse().map(Some),
        _ => Err(format!("`{}` is nothing that xalloc knows; write `# xalloc: expires 2027-01-31`", comment.trim())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::analysis::{FrameView, StackState};

    /// A stack of functions with file and module, innermost first.
    pub(in crate::check) fn stack(call: &str, frames: &[(&str, &str, &str)]) -> CallStack {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let frames = frames.iter().map(|(function, file, module)| FrameView {
            function: text(function),
            file: text(file),
            line: text(file).map(|_| 7),
            module: text(module),
            address: "0x10".to_owned(),
            inlined: false,
            jumped: false,
        });
        CallStack { call: call.to_owned(), id: String::new(), stack: StackState::Whole, frames: frames.collect() }
    }

    pub(super) fn today() -> Date {
        "2026-11-22".parse().expect("a date")
    }

    #[test]
    fn the_first_entry_that_holds_suppresses_and_an_expired_one_does_not() {
        let mut all = Suppressions::default();
        all.read("a.supp", "# xalloc: expires 2026-11-21 fixed upstream\nleak:parse\nleak:parse_header\n")
            .expect("a file");
        all.read("b.supp", "{\n  all\n  Memcheck:Leak\n  ...\n}\n").expect("a file");
        let at = stack("malloc", &[("parse_header", "", "app")]);
        assert_eq!(all.matching(Some(LeakClass::Definite), &at, "app", today()), Some(1));
        assert_eq!(all.matching(Some(LeakClass::Definite), &at, "app", "2026-11-21".parse().expect("a date")), Some(0));
        assert_eq!(
            all.matching(Some(LeakClass::Definite), &stack("malloc", &[("other", "", "app")]), "app", today()),
            Some(2)
        );
        let uses = all.uses(today());
        assert_eq!(uses.iter().map(|entry| entry.expired).collect::<Vec<_>>(), [true, false, false]);
        assert_eq!((uses[2].file.as_str(), uses[2].line, uses[2].name.as_str()), ("b.supp", 1, "all"));
    }

    #[test]
    fn a_comment_to_xalloc_that_says_nothing_known_is_an_error_with_its_line() {
        let mut all = Suppressions::default();
        for (text, line) in [
            ("leak:a\n# xalloc: expire 2027-01-01\nleak:b", 2),
            ("# xalloc: expires soon\nleak:a", 1),
            ("\n{\n  # xalloc: expires 2027-02-30\n}\n", 3),
        ] {
            assert_eq!(all.read("s", text).expect_err(text).line, line);
        }
    }
}
