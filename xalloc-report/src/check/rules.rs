//! What a check can fail on, each with a name for the command line and an id that never changes.
//!
//! Ids go into SARIF, JUnit, codequality and dashboards: an id that is renamed makes old findings look fixed.

use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::Named;
use crate::trace::LeakClass;

/// A rule about blocks that were alive at the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// No block is lost.
    Definite,
    /// No ring of blocks is lost.
    Cycle,
    /// No block is held by its middle alone.
    Possible,
    /// No block that the program can still get at is left at exit.
    Reachable,
    /// No call stack holds more and more over the run.
    Growth,
    /// No leak of any class is missing from the baseline.
    New,
}

impl Named for Rule {
    const ALL: &'static [Rule] =
        &[Rule::Definite, Rule::Cycle, Rule::Possible, Rule::Reachable, Rule::Growth, Rule::New];

    fn name(self) -> &'static str {
        match self {
            Rule::Definite => "definite",
            Rule::Cycle => "cycle",
            Rule::Possible => "possible",
            Rule::Reachable => "reachable",
            Rule::Growth => "growth",
            Rule::New => "new",
        }
    }
}

impl Rule {
    /// The rules that a check fails on unless told otherwise.
    pub const USUAL: &'static [Rule] = &[Rule::Definite, Rule::Cycle];

    /// The rule of a class; `None` for classes that no rule is about.
    #[must_use]
    pub fn of(class: LeakClass) -> Option<Rule> {
        match class {
            LeakClass::Definite => Some(Rule::Definite),
            LeakClass::Cycle => Some(Rule::Cycle),
            LeakClass::Possible => Some(Rule::Possible),
            LeakClass::Reachable => Some(Rule::Reachable),
            // What is held by a leak goes with it, and the rest is nobody's fault.
            LeakClass::Indirect | LeakClass::Runtime | LeakClass::Inherited | LeakClass::OwnerActive => None,
        }
    }

    /// The id in machine-readable reports.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Rule::Definite => "xalloc/definite-leak",
            Rule::Cycle => "xalloc/leaked-cycle",
            Rule::Possible => "xalloc/possible-leak",
            Rule::Reachable => "xalloc/reachable-at-exit",
            Rule::Growth => "xalloc/growth",
            Rule::New => "xalloc/not-in-baseline",
        }
    }

    /// What a leak that breaks the rule is, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Rule::Definite => "definite leak",
            Rule::Cycle => "leaked cycle",
            Rule::Possible => "possible leak",
            Rule::Reachable => "reachable at exit",
            Rule::Growth => "growth over the run",
            Rule::New => "leak that is not in the baseline",
        }
    }

    /// What the rule means, in a sentence or two.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Rule::Definite => "Nothing in the program points to the block any more, so it can never be freed.",
            Rule::Cycle => {
                "The blocks point to each other and nothing else points to them, so none of them can ever be freed."
            }
            Rule::Possible => {
                "Only pointers into the middle of the block are left, and no known shape of data explains them."
            }
            Rule::Reachable => "The block was alive at exit and the program could still have freed it.",
            Rule::Growth => "What the call stack holds rose over the whole run: a leak, or a cache without a limit.",
            Rule::New => "The leak is not in the baseline.",
        }
    }
}

/// The id for what could not be judged.
pub const INDETERMINATE_ID: &str = "xalloc/indeterminate";
/// The id for a program that failed by itself.
pub const PROGRAM_FAILED_ID: &str = "xalloc/program-failed";
/// The id for a pointer that is no block, or a heap that was overwritten.
pub const HEAP_FAULT_ID: &str = "xalloc/heap-fault";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_an_id_of_its_own() {
        let ids: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        assert_eq!(ids.len(), Rule::ALL.len());
        assert!(ids.iter().all(|id| id.starts_with("xalloc/")));
    }
}
