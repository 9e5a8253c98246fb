//! A leak as a verdict shows it: one class and one fingerprint, over all processes of a run.

use schemars::JsonSchema;
use serde::Serialize;

use super::own::OwnCode;
use super::rules::Rule;
use crate::analysis::{CallStack, FrameView, LeakSum, StackState};
use crate::trace::LeakClass;

/// The class in reports and baselines.
pub(super) fn class_name(class: Option<LeakClass>) -> &'static str {
    class.map_or("unchecked", LeakClass::name)
}

/// Why a leak does or does not fail the check.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It breaks a rule.
    Fails,
    /// It is in the baseline and has not grown.
    Known,
    /// A suppression names it.
    Suppressed,
    /// No frame of it is ours.
    NotOwn,
    /// No rule that was asked for is about it.
    Listed,
}

/// A function of a leak's stack, without what another run of the same build would change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, JsonSchema)]
pub struct Place {
    /// Demangled name; `null` if the module has no symbol there.
    pub function: Option<String>,
    /// Source file: relative to the source root if it lies in it, else as the debug information has it.
    pub file: Option<String>,
    /// Line in it, from 1.
    pub line: Option<u32>,
    /// Path of the module; `null` for code without a file.
    pub module: Option<String>,
    /// Whether the function was inlined into the next one of the list.
    pub inlined: bool,
    /// Whether `file` is relative to the source root.
    #[serde(skip)]
    pub in_tree: bool,
    /// The source file as the debug information has it, for formats that want whole paths.
    #[serde(skip)]
    pub path: Option<String>,
    /// Address in the module, for formats that cannot do without.
    #[serde(skip)]
    pub address: String,
}

impl Place {
    /// A stack as places.
    pub(super) fn all(frames: &[FrameView], own: &OwnCode) -> Vec<Place> {
        frames.iter().map(|frame| Place::of(frame, own)).collect()
    }

    fn of(frame: &FrameView, own: &OwnCode) -> Place {
        let relative = own.relative(frame);
        Place {
            function: frame.function.clone(),
            in_tree: relative.is_some(),
            file: relative.or_else(|| frame.file.clone()),
            path: frame.file.clone(),
            line: frame.line,
            module: frame.module.clone(),
            inlined: frame.inlined,
            address: frame.address.clone(),
        }
    }

    /// The function, or the module where no name is known.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.function, &self.module) {
            (Some(function), _) => function.clone(),
            (None, Some(module)) => format!("{} (no symbol)", module.rsplit('/').next().unwrap_or(module)),
            (None, None) => "code without a file".to_owned(),
        }
    }

    /// File and line, `src/parse.cc:88`; `None` without line information.
    #[must_use]
    pub fn source(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        Some(self.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
    }

    /// File and line, else the module, else nothing.
    #[must_use]
    pub fn source_or_module(&self) -> String {
        self.source().or_else(|| self.module.clone()).unwrap_or_default()
    }
}

/// The blocks of one class that share a fingerprint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct Leak {
    /// What the scan says of them; `null` where none looked.
    pub class: Option<LeakClass>,
    /// Names the same leak in other builds: 16 hexadecimal digits.
    pub fingerprint: String,
    /// Why it does or does not fail the check.
    pub disposition: Disposition,
    /// The rules that it breaks.
    pub breaks: Vec<Rule>,
    /// Requested bytes.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
    /// Indirectly leaked blocks that these hold.
    pub holds: LeakSum,
    /// Bytes a second by which the call stack's live bytes rose over the run; `null` if they did not.
    pub growth_bytes_per_s: Option<u64>,
    /// What the baseline says of it; `null` if it is not in one.
    pub baseline: Option<LeakSum>,
    /// The suppression that names it, as `name (file:line)`.
    pub suppressed_by: Option<String>,
    /// The programs that have it, in order of name.
    pub programs: Vec<String>,
    /// Distinct call stacks that share the fingerprint; the one with most bytes is shown.
    pub stacks: u64,
    /// The call by which the program asked: `malloc`, `operator new`, …
    pub call: String,
    /// How much of the stack is known.
    pub stack: StackState,
    /// The frame that is blamed, as an index into `frames`; `null` without frames.
    pub blamed: Option<u32>,
    /// Functions, innermost first, without the allocator's own.
    pub frames: Vec<Place>,
    /// A hidden pointer to one of the blocks, in words; `null` if there is none.
    pub hint: Option<String>,
}

impl Leak {
    /// The frame that is blamed.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        self.frames.get(self.blamed? as usize)
    }

    /// The class in reports and baselines.
    #[must_use]
    pub fn class_name(&self) -> &'static str {
        class_name(self.class)
    }

    /// The blamed function.
    #[must_use]
    pub fn function(&self) -> String {
        self.place().map_or_else(|| "unknown call stack".to_owned(), Place::name)
    }

    /// Requested bytes, with what they hold.
    #[must_use]
    pub fn whole_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.holds.bytes)
    }

    /// Blocks, with what they hold.
    #[must_use]
    pub fn whole_blocks(&self) -> u64 {
        self.blocks.saturating_add(self.holds.blocks)
    }

    /// The rule that it is reported under.
    #[must_use]
    pub fn rule(&self) -> Rule {
        let own = self.class.and_then(Rule::of);
        // What only grows or only is missing from the baseline is reported as that.
        let named = own.filter(|own| self.breaks.is_empty() || self.breaks.contains(own));
        named.or_else(|| self.breaks.first().copied()).unwrap_or(Rule::Growth)
    }

    /// The stack as places.
    pub(super) fn places(at: &CallStack, own: &OwnCode) -> Vec<Place> {
        Place::all(&at.frames, own)
    }
}
