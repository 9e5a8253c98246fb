//! The baseline: the leaks that are known and accepted, and the figures that growth is measured against.
//!
//! It is a text file for a repository: one entry a line, sorted, so that a change is one line of a diff. A leak that is
//! not in it is *new*; one with more bytes or blocks than it says has *grown*. Both fail, as if there were no baseline;
//! what is in it and has not grown is shown and does not fail.
//!
//! ```text
//! # xalloc baseline 1
//! figure server peak_live_bytes 48912
//! leak definite 3f9a8b7c6d5e4f30 1000 10 cache_insert
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;

use super::leak::{Leak, class_name};
use crate::trace::LeakClass;

/// The first line of every baseline: format and version.
const HEADER: &str = "# xalloc baseline 1";
const REMARK: &str =
    "# Known leaks (class, fingerprint, bytes, blocks, function) and figures; `check --update-baseline` writes it.";

/// What is wrong with a baseline.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// It does not begin as one.
    #[error("it does not begin with `{HEADER}`")]
    Header,
    /// A line is none of a baseline.
    #[error("line {line}: {what}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

/// A leak of the baseline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Requested bytes, what it holds included.
    pub bytes: u64,
    /// Blocks, likewise.
    pub blocks: u64,
    /// The blamed function, for people.
    pub function: String,
}

/// Known leaks and figures.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Baseline {
    leaks: BTreeMap<(String, String), Known>,
    figures: BTreeMap<(String, String), u64>,
}

impl Baseline {
    /// Reads one.
    ///
    /// # Errors
    /// At the first line that is none of a baseline's.
    pub fn parse(text: &str) -> Result<Baseline, BaselineError> {
        let mut lines = (1..).zip(text.lines());
        if lines.next().is_none_or(|(_, line)| line.trim_end() != HEADER) {
            return Err(BaselineError::Header);
        }
        let mut baseline = Baseline::default();
        for (line, text) in lines {
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                baseline.line(text).map_err(|what| BaselineError::Line { line, what })?;
            }
        }
        Ok(baseline)
    }

    fn line(&mut self, text: &str) -> Result<(), &'static str> {
        let mut words = text.splitn(6, ' ');
        let mut word = || words.next().ok_or("it has too few words");
        match word()? {
            "leak" => {
                let class = word()?;
                if !is_class(class) {
                    return Err("its class is none");
                }
                let fingerprint = word()?;
                let bytes = word()?.parse().map_err(|_| "its bytes are no number")?;
                let blocks = word()?.parse().map_err(|_| "its blocks are no number")?;
                let known = Known { bytes, blocks, function: word()?.to_owned() };
                let twice = self.leaks.insert((class.to_owned(), fingerprint.to_owned()), known);
                twice.map_or(Ok(()), |_| Err("its leak stands there twice"))
            }
            "figure" => {
                let (run, figure) = (word()?.to_owned(), word()?.to_owned());
                let value = word()?.parse().map_err(|_| "its value is no number")?;
                let twice = self.figures.insert((run, figure), value);
                twice.map_or(Ok(()), |_| Err("its figure stands there twice"))
            }
            _ => Err("it begins with neither `leak` nor `figure`"),
        }
    }

    /// The entry of a leak.
    #[must_use]
    pub fn known(&self, class: Option<LeakClass>, fingerprint: &str) -> Option<&Known> {
        self.leaks.get(&(class_name(class).to_owned(), fingerprint.to_owned()))
    }

    /// A figure of a run.
    #[must_use]
    pub fn figure(&self, run: &str, figure: &str) -> Option<u64> {
        self.figures.get(&(word_of(run), figure.to_owned())).copied()
    }

    /// Accepts a leak; one that several runs have counts with the most that one of them has.
    pub fn accept(&mut self, leak: &Leak) {
        let known = self
            .leaks
            .entry((leak.class_name().to_owned(), leak.fingerprint.clone()))
            .or_insert_with(|| Known { bytes: 0, blocks: 0, function: leak.function().replace(['\n', '\r'], " ") });
        known.bytes = known.bytes.max(leak.whole_bytes());
        known.blocks = known.blocks.max(leak.whole_blocks());
    }

    /// Keeps a figure of a run; of runs with one name the largest.
    pub fn keep(&mut self, run: &str, figure: &str, value: u64) {
        let kept = self.figures.entry((word_of(run), figure.to_owned())).or_default();
        *kept = value.max(*kept);
    }

    /// The leaks that it has.
    pub fn leaks(&self) -> impl Iterator<Item = (&str, &str, &Known)> {
        self.leaks.iter().map(|((class, fingerprint), known)| (class.as_str(), fingerprint.as_str(), known))
    }

    /// The file: sorted, one entry a line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{HEADER}\n{REMARK}\n");
        // Writing to a String does not fail, here and below.
        for ((run, figure), value) in &self.figures {
            let _ = writeln!(out, "figure {run} {figure} {value}");
        }
        let mut leaks: Vec<_> = self.leaks().collect();
        // By class and function: what belongs together is found together in a diff.
        leaks.sort_by(|a, b| (a.0, &a.2.function, a.1).cmp(&(b.0, &b.2.function, b.1)));
        for (class, fingerprint, known) in leaks {
            let _ = writeln!(out, "leak {class} {fingerprint} {} {} {}", known.bytes, known.blocks, known.function);
        }
        out
    }
}

fn is_class(name: &str) -> bool {
    LeakClass::ALL.into_iter().map(Some).chain([None]).any(|class| class_name(class) == name)
}

/// The name of a run as one word.
fn word_of(run: &str) -> String {
    let word: String =
        run.chars().map(|letter| if letter.is_whitespace() || letter.is_control() { '_' } else { letter }).collect();
    if word.is_empty() { "_".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# xalloc baseline 1
# Known leaks (class, fingerprint, bytes, blocks, function) and figures; `check --update-baseline` writes it.
figure my_server peak_live_bytes 48912
leak cycle 0000000000000002 24 2 make_ring(Node*)
leak definite 0000000000000003 10 1 alpha
leak definite 0000000000000001 1000 10 operator new, of A<B, C>
";

    #[test]
    fn what_is_written_is_what_was_read() {
        let baseline = Baseline::parse(TEXT).expect("a baseline");
        assert_eq!(baseline.text(), TEXT);
        assert_eq!(baseline.figure("my server", "peak_live_bytes"), Some(48_912));
        assert_eq!(baseline.known(Some(LeakClass::Definite), "0000000000000001").map(|known| known.blocks), Some(10));
        assert_eq!(baseline.known(Some(LeakClass::Cycle), "0000000000000001"), None);
    }

    #[test]
    fn comments_blank_lines_and_another_order_change_nothing() {
        let mut lines: Vec<_> = TEXT.lines().skip(2).collect();
        lines.reverse();
        let text = format!("{HEADER}\n\n# reviewed by us\n{}\n", lines.join("\n"));
        assert_eq!(Baseline::parse(&text).expect("a baseline").text(), TEXT);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for line in [
            "leak definite 1 2",
            "leak lost 1 2 3 f",
            "leak definite 1 x 3 f",
            "block definite 1 2 3 f",
            "figure a b -1",
            "leak definite 0000000000000003 10 1 alpha\nleak definite 0000000000000003 9 1 alpha",
        ] {
            let error = Baseline::parse(&format!("{HEADER}\n{line}\n")).expect_err(line).to_string();
            assert!(error.starts_with(&format!("line {}: ", 1 + line.lines().count())), "{error}");
        }
        assert!(matches!(Baseline::parse("leak definite 1 2 3 f"), Err(BaselineError::Header)));
        assert!(matches!(Baseline::parse("# xalloc baseline 2\n"), Err(BaselineError::Header)));
    }
}
