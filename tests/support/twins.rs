//! The programs whose leaks are known, and what their headers say of each (`programs/leaks/twins.h`).

use super::victims::source;

/// The files with such programs.
pub(crate) const FILES: [&str; 12] = [
    "reach.c",
    "leaks/roots.c",
    "leaks/exits.c",
    "leaks/threads.c",
    "leaks/coroutines.cpp",
    "leaks/forks.c",
    "leaks/libraries.c",
    "leaks/cycles.c",
    "leaks/shapes.cpp",
    "leaks/old_string.cpp",
    "leaks/rust.rs",
    "leaks/hidden.c",
];

/// The two ways to run a program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Twin {
    Keep,
    Lose,
}

impl Twin {
    pub(crate) const BOTH: [Twin; 2] = [Twin::Keep, Twin::Lose];

    /// The argument that asks for it.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Twin::Keep => "keep",
            Twin::Lose => "lose",
        }
    }
}

/// What a header says of a block: classes, several of them with a + between.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Truth {
    /// What it is.
    pub(crate) is: String,
    /// What a scan says, which cannot always know.
    pub(crate) said: String,
}

impl Truth {
    /// Whether a scan is to say something else than the truth, by design.
    pub(crate) fn is_hidden(&self) -> bool {
        self.is != self.said
    }
}

/// Whether one of the classes in `said` is a leak.
pub(crate) fn is_leaked(said: &str) -> bool {
    said.split('+').any(|class| matches!(class, "definite" | "cycle" | "indirect" | "leak"))
}

/// A program with its twin.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Of the twins, in the order of [`Twin::BOTH`]; `None`: there is none.
    pub(crate) truth: [Option<Truth>; 2],
    pub(crate) about: String,
}

/// The table in the header of `file`.
pub(crate) fn cases(file: &str) -> Vec<Case> {
    let text = source(file);
    let rows = text.lines().map_while(|line| line.starts_with([' ', '/']).then_some(line)).filter_map(|line| {
        let row = line.strip_prefix(" *   ").or_else(|| line.strip_prefix("//!   "))?;
        let mut words = row.split_whitespace();
        let name = words.next()?.to_owned();
        let mut truth = || {
            let (word, of) = (words.next()?, |text: &str| text.to_owned());
            let (is, said) = word.split_once('~').unwrap_or((word, word));
            Some((word != "-").then(|| Truth { is: of(is), said: of(said) }))
        };
        let truth = [truth()?, truth()?];
        Some(Case { name, truth, about: words.collect::<Vec<_>>().join(" ") })
    });
    let mut rows: Vec<Case> = rows.collect();
    assert_eq!(rows.remove(0).name, "case", "{file} has a table");
    rows
}
