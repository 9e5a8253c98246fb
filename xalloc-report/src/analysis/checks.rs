//! Every check of a recording, one line each: what was leaked at that moment.

use schemars::JsonSchema;
use serde::Serialize;

use super::leaks::LeakSum;
use super::process::pid;
use crate::model::Model;
use crate::trace::{Contents, Occasion, Scan, ScanOutcome};

/// One check of one process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, JsonSchema)]
pub struct CheckView {
    /// Its number in the recording, from 1.
    pub number: u64,
    /// Process id.
    pub pid: u32,
    /// What caused it.
    pub occasion: Occasion,
    /// When it was made, nanoseconds since the recording's start.
    pub at_ns: u64,
    /// Why no block got a class; `null` if every one did.
    pub not_checked_reason: Option<String>,
    /// What was leaked then: definite, cycle and indirect.
    pub leaked: LeakSum,
}

impl CheckView {
    /// The checks of the model's processes.
    pub(super) fn all(contents: &Contents, model: &Model) -> Vec<CheckView> {
        let is_asked = |scan: &Scan| model.processes.iter().any(|row| row.process == scan.process);
        let numbered = (1..).zip(&contents.scans).filter(|(_, scan)| is_asked(scan));
        numbered.map(|(number, scan)| CheckView::of(contents, number, scan)).collect()
    }

    fn of(contents: &Contents, number: u64, scan: &Scan) -> CheckView {
        let mut leaked = LeakSum::default();
        for finding in scan.findings().iter().filter(|finding| finding.class.is_leaked()) {
            leaked.add(finding.bytes, finding.blocks);
        }
        CheckView {
            number,
            pid: pid(contents, scan.process),
            occasion: scan.occasion,
            at_ns: scan.at_ns,
            not_checked_reason: match &scan.outcome {
                ScanOutcome::Checked(_) => None,
                ScanOutcome::NotChecked { reason } => Some(reason.clone()),
            },
            leaked,
        }
    }
}
